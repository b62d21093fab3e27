"""`bastide doctor`: whether this host can run the cloud."""

from __future__ import annotations

from typing import Annotated

import typer

from bastide.cli.options import Json


def doctor(
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only what is not in order.")
    ] = False,
    json: Json = False,
) -> None:
    """Check every requirement of this host and say what to do about each that is not met.

    Exit code 1 when something fails; a warning is a thing to know.
    """
    from dataclasses import asdict

    from bastide.cli.configuration import server_settings
    from bastide.cli.output import show_json
    from bastide.doctor import examine

    findings = examine(server_settings())
    failed = [finding for finding in findings if finding.level == "fail"]
    if json:
        show_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            if quiet and finding.level == "ok":
                continue
            typer.echo(f"{finding.level:<4}  {finding.name}: {finding.says}")
            if finding.todo:
                typer.echo(f"      what to do: {finding.todo}")
        warned = sum(finding.level == "warn" for finding in findings)
        typer.echo(
            f"{len(findings)} checks: {len(findings) - warned - len(failed)} ok, "
            f"{warned} to know, {len(failed)} failed"
        )
    if failed:
        raise typer.Exit(1)

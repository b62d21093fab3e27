"""`bastide prepare`: what is made once on a host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bastide.settings import Settings


def prepare(
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="Images to build; may be repeated. Default: debian-12."),
    ] = None,
) -> None:
    """Make what machines need: container runtime, emulator and kernel, agent bundle, images."""
    from bastide.cli.configuration import server_settings
    from bastide.cli.fault import Fault, need_root
    from bastide.domain.image import RECIPES, recipe
    from bastide.node.errors import NodeError
    from bastide.prepare.archive import PrepareError
    from bastide.prepare.bundle import BundleError, build_bundle
    from bastide.prepare.image import ensure_image
    from bastide.prepare.runtime import ensure_runtime

    need_root("preparing this host")
    state_dir = server_settings().state_dir
    wanted = [(name, recipe(name)) for name in image] if image else [(RECIPES[0].id, RECIPES[0])]
    unknown = [name for name, found in wanted if found is None]
    if unknown:
        known = ", ".join(item.id for item in RECIPES)
        raise Fault(f"no image {unknown[0]!r}", f"choose among: {known}", code=2)
    say = _Steps()
    try:
        state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        ensure_runtime(state_dir, say)
        _snapshots(state_dir, say)
        _microvms(state_dir, say)
        build_bundle(state_dir, lambda text: say(f"agent: {text}"))
        for _, found in wanted:
            if found is not None:
                ensure_image(found, state_dir, say)
    except (PrepareError, BundleError, NodeError, OSError) as error:
        raise Fault(
            f"preparing failed: {error}",
            "mend that and run bastide prepare again; what is done is not done twice",
        ) from None


def _snapshots(state_dir: Path, say: Callable[[str], None]) -> None:
    """Have criu; a host that cannot has a cloud without snapshots, and is told so."""
    from bastide.prepare.archive import PrepareError
    from bastide.prepare.criu import ensure_criu

    try:
        ensure_criu(state_dir, say)
    except PrepareError as error:
        say(f"snapshots: there will be none: {error}")


def _microvms(state_dir: Path, say: Callable[[str], None]) -> None:
    """Have emulator and guest kernel; a host that cannot has containers, and is told so."""
    from bastide.node.machines.microvm.hardware import try_hardware
    from bastide.prepare.archive import PrepareError
    from bastide.prepare.kernel import ensure_kernel
    from bastide.prepare.qemu import ensure_qemu

    try:
        home, kernel = ensure_qemu(state_dir, say), ensure_kernel(state_dir, say)
    except PrepareError as error:
        say(f"microVMs: there will be none: {error}")
        return
    found = try_hardware(state_dir / "runtime", home, kernel)
    say(f"microVMs: {'at full speed' if found.usable else 'emulated'}: {found.reason}")


class _Steps:
    """Lines of progress with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        typer.echo(f"    {time.monotonic() - self._began:5.1f}s  {text}", err=True)


def missing(settings: Settings) -> list[str]:
    """What `bastide prepare` has still to make before a machine can run."""
    from bastide.domain.image import RECIPES
    from bastide.node.images.packing import read_manifest

    state = settings.state_dir
    lacking = []
    if not (state / "runtime" / "current" / "runc").exists():
        lacking.append("runtime")
    if not (state / "bundle" / "current").exists():
        lacking.append("agent bundle")
    if read_manifest(state / "images", RECIPES[0].id) is None:
        lacking.append(f"image {RECIPES[0].id}")
    return lacking

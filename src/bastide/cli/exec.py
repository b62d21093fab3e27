"""`bastide workspace exec`: run a command inside, as if it ran here."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from bastide.cli.options import WorkspaceName

if TYPE_CHECKING:
    from bastide.client import Runtime

CHUNK = 64 * 1024


def exec_(
    workspace: WorkspaceName,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD [ARGS]...", help="What to run.")],
    *,
    timeout: Annotated[
        float | None, typer.Option(help="End the command after this many seconds.")
    ] = None,
) -> None:
    """Run a command inside a workspace: bastide workspace exec ID -- ls -l.

    Its output comes as it is written, standard input is passed on when it is piped, and the
    exit code is the command's own.
    """
    from bastide.cli.connection import cloud

    if command[0] == "--":
        command = command[1:]
    with cloud() as client:
        code = _run(client.workspaces.runtime(workspace), workspace, command, timeout)
    raise typer.Exit(code)


def _run(runtime: Runtime, workspace: str, command: list[str], timeout: float | None) -> int:
    from bastide.cli.fault import Fault
    from bastide.client import ConnectionBroken, Exited, Output, Started

    outputs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    task: str | None = None
    try:
        with runtime.exec.stream(command, timeout=timeout) as events:
            for event in events:
                match event:
                    case Started(task_id=started):
                        task = started
                        _pass_input(runtime, started)
                    case Output(stream=stream, data=data):
                        outputs[stream].write(data)
                        outputs[stream].flush()
                    case Exited(exit_code=code, error=error):
                        if error:
                            sys.stderr.write(f"error: {error}\n")
                        # As a shell does it: a signal shows as 128 and its number.
                        return code if 0 <= code <= 255 else 128 - code if code < 0 else 255
    except KeyboardInterrupt:
        if task is not None:
            runtime.exec.kill(task)
        raise
    except ConnectionBroken:
        if task is None:
            raise
    raise Fault(
        "the connection was cut off while the command ran: its workspace was stopped or "
        "restarted, or the server was",
        f"bastide workspace get {workspace} tells its state, bastide status that of the server",
    )


def _pass_input(runtime: Runtime, task: str) -> None:
    """Feed standard input to the task from a thread; a terminal's is not passed on."""
    threading.Thread(target=_feed, args=(runtime, task), daemon=True).start()


def _feed(runtime: Runtime, task: str) -> None:
    from bastide.client import BastideError

    # A command that has ended takes no more input, and a closed client sends none.
    with contextlib.suppress(BastideError, RuntimeError, OSError):
        while not _interactive() and (data := os.read(0, CHUNK)):
            _give(runtime, task, data)
        runtime.exec.write(task, b"", eof=True)


def _give(runtime: Runtime, task: str, data: bytes) -> None:
    """All of `data`, however slowly the command reads."""
    from bastide.client import ConflictError

    while data:
        try:
            runtime.exec.write(task, data)
        except ConflictError as error:
            if error.code != "input_stalled":
                raise
            data = data[int(error.details.get("bytes_written", 0)) :]
        else:
            return


def _interactive() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return True

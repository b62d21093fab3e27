"""How far long work is: told on standard error, which leaves results clean."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from bastide.cli.fault import Fault

Tell = Callable[[str], None]


@contextlib.contextmanager
def progress(
    what: str | None = None, *, json: bool = False, left: Fault | None = None
) -> Iterator[Tell]:
    """Tell that work goes on; what is yielded tells one more step.

    Each step is a line with the seconds since the beginning. On a terminal the seconds count on
    beneath it while nothing is told; for programs (`json`) there is not a word. `what` is the
    first step, and with it the end is told, too.

    Raises:
        Fault: `left`, after ^C: it says what becomes of the work.
    """
    try:
        if json:
            yield lambda _: None
            return
        began = time.monotonic()
        with _counting() as line:

            def tell(step: str) -> None:
                line(f"    {time.monotonic() - began:5.2f}s  {step}")

            if what is not None:
                tell(what)
            yield tell
            if what is not None:
                tell("done")
    except KeyboardInterrupt:
        if left is None:
            raise
        raise left from None


@contextlib.contextmanager
def _counting() -> Iterator[Tell]:
    """Seconds that count on, if a person can see them; what is yielded puts a line above them."""
    from bastide.cli.output import note

    if not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (TextColumn("  "), SpinnerColumn(), TextColumn("{task.elapsed:.0f}s"))
    with Progress(*columns, console=console, transient=True) as shown:
        shown.add_task("", total=None)
        yield lambda text: console.print(text, soft_wrap=True)

"""What the command line says when something cannot be done."""

from __future__ import annotations


class Fault(Exception):  # noqa: N818 - it is what is told, not an error of ours
    """One line on what happened, one on what to do, and the exit code."""

    def __init__(
        self, what: str, todo: str | None = None, *, request_id: str | None = None, code: int = 1
    ) -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo
        self.request_id = request_id
        self.code = code

    def lines(self) -> list[str]:
        """What is printed."""
        lines = [f"error: {self.what}"]
        if self.todo:
            lines.append(f"  what to do: {self.todo}")
        if self.request_id:
            lines.append(f"  request id: {self.request_id}")
        return lines


def goes_on(look: str) -> Fault:
    """What is told who stops waiting with ^C for work of the server; `look` shows how far it is."""
    return Fault(
        "you stopped waiting; the server goes on with it", f"{look} tells the end", code=130
    )


def need_root(doing: str) -> None:
    """Go on only as root.

    Raises:
        Fault: this is another user.
    """
    import os

    if os.geteuid() != 0:
        raise Fault(f"{doing} needs root", "run it with sudo")

"""The host ids of one machine: 65,536 of them, shared with no other machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bastide.node.errors import BootFailed, Conflict

SIZE = 65_536
_LAST_ID = 2**32 - 2


@dataclass(frozen=True)
class IdRange:
    """`SIZE` user and group ids of the host, starting at `first`; 0 inside is `first` outside."""

    first: int

    @property
    def mapping(self) -> str:
        """The line of `/proc/PID/uid_map`."""
        return f"0 {self.first} {SIZE}"


def free_range(base: int, taken: Iterable[IdRange]) -> IdRange:
    """The lowest range from `base` on that shares no id with anybody's.

    Those of others may begin anywhere: `base` was another one when they were given.

    Raises:
        Conflict: every id of the host is given away.
    """
    firsts = {ids.first for ids in taken}
    used = {(first - base) // SIZE for first in firsts}
    used |= {(first + SIZE - 1 - base) // SIZE for first in firsts}
    for number, first in enumerate(range(base, _LAST_ID - SIZE, SIZE)):
        if number not in used:
            return IdRange(first)
    raise Conflict("every range of host ids is in use: delete workspaces, or lower id_base")


@contextlib.contextmanager
def user_namespace(ids: IdRange) -> Iterator[int]:
    """A user namespace with `ids`, as a descriptor for id-mapped mounts.

    A process is needed to make one; it is gone again before the block ends. Blocks for a few
    milliseconds: call it in a thread.

    Raises:
        BootFailed: the kernel refuses user namespaces.
    """
    # cat answers only once it runs, and it runs only once unshare has made the namespace
    with subprocess.Popen(
        ["unshare", "--user", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as holder:
        stdin, stdout = holder.stdin, holder.stdout
        if stdin is None or stdout is None:  # pragma: no cover - both were asked for
            raise BootFailed("no pipes to the namespace holder")
        try:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(b".")
            if stdout.read(1) != b".":
                raise BootFailed(
                    "the kernel refuses user namespaces: "
                    "look at sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone"
                )
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{holder.pid}/{name}", "w") as file:  # noqa: PTH123 - one write(2)
                    file.write(ids.mapping)
            descriptor = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            stdin.close()
            holder.wait()
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""A hostile program inside a workspace: it swaps what the runtime API works on, without a rest.

Run in the workspace as `python3 -c RIVAL HOME VICTIM`. In HOME, a directory is exchanged for a
symlink to VICTIM and back, a file for a pipe that nobody writes to, for a link to `/dev/zero` and
for one to itself; directories appear, fill and vanish. Standard library only.
"""
# As fast as can be, hence without pathlib.
# ruff: noqa: PTH103, PTH104, PTH108, PTH113, PTH114, PTH123, PTH211

import contextlib
import ctypes
import os
import shutil
import sys
import threading

RENAME_EXCHANGE = 2
AT_FDCWD = -100
libc = ctypes.CDLL(None, use_errno=True)


def exchange(one: str, other: str) -> None:
    """Swap two names in one step."""
    libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE)


def swap_directory(home: str, victim: str) -> None:
    """`home/d` is a directory, and at the next moment a link to the victim."""
    place, link = f"{home}/d", f"{home}/.link"
    while True:
        with contextlib.suppress(OSError):
            os.makedirs(f"{place}/e/f", exist_ok=True)
            for number in range(8):
                with open(f"{place}/e/f/{number}", "w") as file:
                    file.write("mine\n")
        with contextlib.suppress(OSError):
            os.symlink(victim, link)
        for _ in range(200):
            exchange(place, link)
        with contextlib.suppress(OSError):
            if os.path.islink(place):
                os.unlink(place)


def swap_inner(home: str, victim: str) -> None:
    """The same one level down, where a recursive walk is already under way."""
    while True:
        with contextlib.suppress(OSError):
            os.makedirs(f"{home}/t/e", exist_ok=True)
            os.symlink(victim, f"{home}/t/.link")
        for _ in range(200):
            exchange(f"{home}/t/e", f"{home}/t/.link")


def swap_file(home: str, _: str) -> None:
    """`home/file` is a file, a pipe, a link to an endless device, a link to itself."""
    plain, pipe, zero, loop = (f"{home}/{name}" for name in ("file", ".pipe", ".zero", ".loop"))
    while True:
        with contextlib.suppress(OSError):
            if not os.path.isfile(plain):
                with open(f"{home}/.plain", "w") as file:
                    file.write("needle\n" * 1000)
                os.rename(f"{home}/.plain", plain)
        for make, path in (
            (os.mkfifo, pipe),
            (lambda path: os.symlink("/dev/zero", path), zero),
            (lambda path: os.symlink(path, path), loop),
        ):
            with contextlib.suppress(OSError):
                os.unlink(path)  # a write of the API may have put a plain file there
            with contextlib.suppress(OSError):
                make(path)
        for other in (pipe, zero, loop) * 50:
            exchange(plain, other)


def churn(home: str, _: str) -> None:
    """A tree comes and goes."""
    while True:
        with contextlib.suppress(OSError):
            os.makedirs(f"{home}/churn/" + "/".join("x" * 20), exist_ok=True)
        shutil.rmtree(f"{home}/churn", ignore_errors=True)


def main() -> None:
    """Start them all and never end."""
    home, victim = sys.argv[1:3]
    os.makedirs(home, exist_ok=True)
    print("racing", flush=True)  # noqa: T201
    for work in (swap_directory, swap_inner, swap_file, churn):
        if os.fork() == 0:
            work(home, victim)
    threading.Event().wait()


if __name__ == "__main__":
    main()

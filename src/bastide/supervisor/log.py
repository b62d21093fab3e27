"""The log file of one service: written by the service itself, bounded, followed on screen."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 32 * 1024 * 1024
TAIL_BYTES = 64 * 1024


class Log:
    """One log file and its predecessor (`NAME.log.1`).

    The service holds the file open for appending, so that its lines survive the supervisor. It
    is bounded by copying it away and cutting it to nothing, which an appending writer follows.
    """

    def __init__(self, path: Path, most: int = MOST_BYTES) -> None:
        self.path = path
        self._most = most
        self._seen = 0
        self._writer: subprocess.Popen[bytes] | None = None

    def open(self) -> BinaryIO:
        """The file, to be given to the service as its output."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        return os.fdopen(descriptor, "wb", buffering=0)

    @contextlib.contextmanager
    def output(self, *, appends: bool) -> Iterator[BinaryIO]:
        """What a service that is started here gets as its output: the file, or a pipe to it.

        A service that does not append writes to a `cat` that does, and that ends with it.
        """
        with self.open() as file:
            if appends:
                yield file
                return
            reading, writing = os.pipe()
            with os.fdopen(reading, "rb", 0) as source, os.fdopen(writing, "wb", 0) as pipe:
                self._writer = subprocess.Popen(
                    ("cat",), stdin=source, stdout=file, stderr=file, start_new_session=True
                )
                yield pipe

    def finish(self) -> None:
        """Wait until all that a service wrote before it ended is in the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.wait()

    def trim(self) -> bool:
        """Put a file over the bound aside and begin again; whether it was."""
        if self._size() <= self._most:
            return False
        shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
        os.truncate(self.path, 0)
        return True

    def skip(self) -> None:
        """Leave out of `news` what the file holds now."""
        self._seen = self._size()

    def news(self) -> list[str]:
        """The whole lines written since the last call."""
        size = self._size()
        if size < self._seen:
            self._seen = 0
        if size == self._seen:
            return []
        with self.path.open("rb") as file:
            file.seek(self._seen)
            data = file.read(TAIL_BYTES)
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) == TAIL_BYTES:
            end = len(data)
        self._seen += end
        return data[:end].decode(errors="replace").splitlines()

    def tail(self, lines: int) -> list[str]:
        """The last lines of the file."""
        size = self._size()
        if size == 0:
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace").splitlines()[-lines:]

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

"""The node's word with one QEMU: its machine protocol over a socket that only the node can reach.

QEMU itself may have been taken over by its guest, so what it says is bounded in size and time and
decides nothing but how its own machine is seen.
"""

from __future__ import annotations

import array
import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from bastide.node.errors import BootFailed

MOST_LINE = 256 * 1024
TIMEOUT = 30.0
"""Seconds for an answer; an emulated machine on a busy host takes its time."""

_ANSWERS = {"return", "error"}
Event = Callable[[str, dict[str, Any]], None]


class QmpError(BootFailed):
    """QEMU refused a command, or does not speak as it must."""


class Qmp:
    """One connection, made with `open`. Commands take turns; events come in between.

    `event` is told the name and data of each event, and must not block.
    """

    def __init__(self, connection: socket.socket, event: Event) -> None:
        self._socket = connection
        self._event = event
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, connection: socket.socket, event: Event, *, seconds: float = TIMEOUT
    ) -> Qmp:
        """Agree on the protocol over `connection`, which is closed with this.

        Raises:
            QmpError: nobody answers in time.
        """
        made = cls(connection, event)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(made._greeted)
                await made.run("qmp_capabilities", seconds=seconds)
        except TimeoutError:
            await made.close()
            raise QmpError(f"the emulator does not answer within {seconds:g} s") from None
        except BaseException:
            await made.close()
            raise
        return made

    async def run(
        self,
        command: str,
        *,
        seconds: float = TIMEOUT,
        descriptors: Sequence[int] = (),
        **arguments: object,
    ) -> Any:
        """Run a command (`_` in argument names becomes `-`); its answer.

        `descriptors` go with it (for `getfd`); the caller keeps its own copies.

        Raises:
            QmpError: QEMU refuses, or is gone.
        """
        document: dict[str, object] = {"execute": command}
        if arguments:
            document["arguments"] = {
                name.replace("_", "-"): value for name, value in arguments.items()
            }
        async with self._turn:
            if self._reading.done():
                raise QmpError("the emulator is gone")
            self._answer = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._send(json.dumps(document).encode() + b"\n", descriptors)
                    answer = await self._answer
            except TimeoutError:
                # an answer that comes later would be taken for that of the next command
                await self.close()
                raise QmpError(f"the emulator does not answer {command}") from None
            except OSError as error:
                raise QmpError(f"the emulator is gone: {error.strerror}") from error
            finally:
                self._answer = None
        if "error" in answer:
            reason = answer["error"]
            told = reason.get("desc") if isinstance(reason, dict) else None
            raise QmpError(f"the emulator refuses {command}: {str(told)[:500]}")
        return answer.get("return")

    async def close(self) -> None:
        """Let go of the connection; the emulator goes on."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        self._socket.close()

    async def _send(self, line: bytes, descriptors: Sequence[int]) -> None:
        if descriptors:
            rights = array.array("i", descriptors)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            # a line is far smaller than the socket's buffer, which is empty between commands
            sent = self._socket.sendmsg([line], ancillary)
            line = line[sent:]
        if line:
            await asyncio.get_running_loop().sock_sendall(self._socket, line)

    async def _read(self) -> None:
        loop, data = asyncio.get_running_loop(), bytearray()
        try:
            while True:
                chunk = await loop.sock_recv(self._socket, 65536)
                if not chunk:
                    break
                data += chunk
                while (end := data.find(b"\n")) >= 0:
                    line = bytes(data[:end])
                    del data[: end + 1]
                    self._take(line)
                if len(data) > MOST_LINE:
                    break
        except OSError:
            pass
        finally:
            gone = QmpError("the emulator is gone")
            for waiting in (self._greeted, self._answer):
                if waiting is not None and not waiting.done():
                    waiting.set_exception(gone)
                    waiting.exception()  # somebody may have stopped waiting

    def _take(self, line: bytes) -> None:
        try:
            document = json.loads(line)
        except ValueError:
            return
        if not isinstance(document, dict):
            return
        if "QMP" in document:
            if not self._greeted.done():
                self._greeted.set_result(None)
        elif isinstance(document.get("event"), str):
            data = document.get("data")
            self._event(document["event"], data if isinstance(data, dict) else {})
        elif self._answer is not None and not self._answer.done() and document.keys() & _ANSWERS:
            self._answer.set_result(document)

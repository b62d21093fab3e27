"""The terminals of a workspace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, not_found
from bastide_agent.process import Places
from bastide_agent.shell import default_shell
from bastide_agent.terminals.session import Session

if TYPE_CHECKING:
    from bastide_agent.live import Live

MAX_SESSIONS = 10  # spec runtime 7


class Sessions:
    """At most ten; ids are the smallest free numbers from 1, for they must fit a byte.

    An ended terminal stays until it is deleted or a new one needs its place (oldest first).
    """

    def __init__(self, places: Places, live: Live) -> None:
        self._places = places
        self._live = live
        self._sessions: dict[int, Session] = {}

    def list(self) -> Sequence[Session]:
        """All of them, oldest first."""
        return list(self._sessions.values())

    def find(self, number: int) -> Session | None:
        """The one with this number."""
        return self._sessions.get(number)

    def get(self, name: str) -> Session:
        """The one with this id.

        Raises:
            ApiError: 404.
        """
        number = int(name) if name.isascii() and name.isdigit() and len(name) <= 3 else 0
        session = self._sessions.get(number)
        if session is None or str(number) != name:
            raise not_found(f"there is no terminal {name[:64]!r}")
        return session

    def create(self, command: Sequence[str], size: tuple[int, int], scrollback: int) -> Session:
        """Start one; an empty command is the image's shell.

        Raises:
            ApiError: 400 when the command cannot be run or the image has no shell, 429 when ten
                run, 503 when the workspace has no room for it.
        """
        if len(self._sessions) >= MAX_SESSIONS and self._oldest_ended() is None:
            message = f"{MAX_SESSIONS} terminals are running, the most there may be: close one"
            raise ApiError(429, "terminal_limit", message, {"limit": MAX_SESSIONS})
        env = self._places.env
        shell = default_shell(env.get("SHELL", ""))
        if not command and not shell:
            message = "this image has no shell; say in cmd which program to run"
            raise ApiError(400, "no_shell", message, {"field": "cmd"})
        places = Places(
            {
                "TERM": "xterm-256color",
                "LOGNAME": env.get("USER", "root"),
                **env,
                **({"SHELL": shell} if shell else {}),
            },
            self._places.workdir,
        )
        ended = self._oldest_ended() if len(self._sessions) >= MAX_SESSIONS else None
        used = self._sessions.keys() - {ended}
        number = next(free for free in range(1, MAX_SESSIONS + 1) if free not in used)
        session = Session(
            number, command or [shell], size=size, scrollback=scrollback, places=places,
            changed=self._live.changed,
        )  # fmt: skip
        if ended is not None:
            del self._sessions[ended]
        self._sessions[number] = session
        if self._live.attached:
            session.attach()
        return session

    def _oldest_ended(self) -> int | None:
        ended = (key for key, session in self._sessions.items() if session.exit_code is not None)
        return next(ended, None)

    async def remove(self, session: Session) -> None:
        """End it and all it started, then forget it."""
        await session.close()
        if self._sessions.get(session.number) is session:
            del self._sessions[session.number]

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self.remove(session) for session in self.list()))

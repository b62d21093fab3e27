"""Who holds the locks of operations, and freeing those of processes that are dead."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field

from bastide.store.database import Database
from bastide.store.operations import Operations


@dataclass(frozen=True)
class Owner:
    """This process, as `lock_owner` names it: host, pid, and a random part."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    mark: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def name(self) -> str:
        """The text kept in the row."""
        return f"{self.host}/{self.pid}/{self.mark}"

    def outlived(self, name: str) -> bool:
        """Whether `name` is a process of this host that is gone."""
        host, _, rest = name.partition("/")
        pid, _, mark = rest.partition("/")
        if host != self.host or not pid.isdigit() or mark == self.mark:
            return False
        if int(pid) == self.pid:
            return True
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


async def free_locks(database: Database, owner: Owner) -> int:
    """Free the locks of dead processes of this host at once; how many there were.

    Locks of other hosts run out by themselves. Taking one too early does no harm: who lost a
    lock writes nothing.
    """
    async with database.write() as session:
        operations = Operations(session)
        dead = [row for row in await operations.locked() if owner.outlived(row.lock_owner or "")]
        for row in dead:
            await operations.release(row.id, row.lock_token or "", 0)
    return len(dead)

"""SQLite in the thread of the event loop.

A statement takes some microseconds, the way to another thread and back ten times as long. So only
what may have to wait goes there: a connection that is opened, a write lock that somebody else
holds, and a commit that must reach the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.store.errors import raise_duplicate

_MOST: Final = 8
"""Connections at a time."""
_BUSY_TIMEOUT: Final = 30_000
"""Milliseconds a writer waits for another."""
_WRITING: Final = "bastide_writing"
_LASTING: Final = "bastide_lasting"
_PATIENT: Final = "bastide_patient"
_BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
_COMMITS: Final = {
    True: ("PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=1000"),
    False: ("PRAGMA synchronous=NORMAL", "PRAGMA wal_autocheckpoint=0"),
}
"""One that does not wait for the disk must not have to clear up the log either."""
_MOST_LOGGED: Final = 32
"""Commits that do not wait for the disk, until the log is cleared."""
_CLEAR_LOG: Final = "PRAGMA wal_checkpoint(PASSIVE)"


class _Held(Exception):  # noqa: N818 - reads as what it is
    """Somebody else has the write lock."""


class NearSession(AsyncSession):
    """The session that all of the store knows; what it is asked is done here and now."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(expire_on_commit=False)
        self.sync_session.bind = engine

    async def execute(self, statement: Any, params: Any = None, **more: Any) -> Any:
        """Run a statement."""
        return self.sync_session.execute(statement, params, **more)

    async def scalar(self, statement: Any, params: Any = None, **more: Any) -> Any:
        """The first column of the first row."""
        return self.sync_session.scalar(statement, params, **more)

    async def scalars(self, statement: Any, params: Any = None, **more: Any) -> Any:
        """The first column of each row."""
        return self.sync_session.scalars(statement, params, **more)

    async def get(self, entity: Any, ident: Any, **more: Any) -> Any:
        """One object by its key."""
        return self.sync_session.get(entity, ident, **more)

    async def merge(self, instance: Any, **more: Any) -> Any:
        """Bring an object in, new or in the place of the one there."""
        return self.sync_session.merge(instance, **more)

    async def flush(self, objects: Any = None) -> None:
        """Write what was added and changed."""
        self.sync_session.flush(objects)

    async def run_sync(self, fn: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Call `fn` with the session beneath."""
        return fn(self.sync_session, *args, **more)


class Sqlite:
    """Connections to one file: a write-ahead log, foreign keys, transactions that we begin.

    Full sync, so what was answered survives a power failure; writers may wish for less.
    """

    def __init__(self, url: URL) -> None:
        if url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            poolclass=QueuePool,
            pool_size=_MOST,
            max_overflow=0,
            pool_use_lifo=True,  # the one used last knows what is in the file
            hide_parameters=True,
            connect_args={
                "timeout": _BUSY_TIMEOUT / 1000,
                "isolation_level": None,
                "check_same_thread": False,  # one at a time uses it
            },
        )
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)
        self._engines = {
            lasting: self.engine.execution_options(**{_WRITING: True, _LASTING: lasting})
            for lasting in (True, False)
        }
        # There is one writer at a time. Those of this process take turns here, where the next one
        # is told at once; in the database it would sleep and look again.
        self._turn = asyncio.Lock()
        self._seats = asyncio.Semaphore(_MOST)
        self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix="sqlite")
        self._logged = 0
        self._fresh = True
        """The log may begin anew with the next commit, which then waits for the disk as well."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """See `Connections`."""
        async with self._seats:
            session = NearSession(self.engine)
            try:
                if not self._idle:
                    await self._away(session.sync_session.connection)
                yield session
            finally:
                session.sync_session.close()

    @asynccontextmanager
    async def write(self, *, lasting: bool) -> AsyncIterator[AsyncSession]:
        """See `Connections`."""
        async with self._turn, self._seats:
            session = NearSession(self._engines[lasting])
            try:
                await self._begin(session)
                yield session
                await self._commit(session, lasting=lasting)
            except IntegrityError as error:
                raise_duplicate(error)
            finally:
                session.sync_session.close()
            if not lasting:
                await self._clear_log()

    async def alone(self, key: int, work: Callable[[Connection], None]) -> None:
        """See `Connections`. There is one writer at a time anyway."""
        del key
        engine = self._engines[True].execution_options(**{_PATIENT: True})

        def run() -> None:
            with engine.begin() as connection:
                work(connection)

        async with self._turn, self._seats:
            await self._away(run)

    async def serialise(self, session: AsyncSession, key: int) -> None:
        """See `Connections`. `write` has seen to that already."""

    async def close(self) -> None:
        """See `Connections`."""
        await self._away(self.engine.dispose)
        self._threads.shutdown()

    @property
    def _idle(self) -> bool:
        """Whether a connection is open and free."""
        pool = self.engine.pool
        return isinstance(pool, QueuePool) and pool.checkedin() > 0

    async def _begin(self, session: NearSession) -> None:
        """Take the write lock: here and now, or in a thread when it may have to wait."""
        if self._idle:
            with suppress(_Held):
                session.sync_session.connection()
                return
        options = {_PATIENT: True}
        await self._away(lambda: session.sync_session.connection(execution_options=options))

    async def _commit(self, session: NearSession, *, lasting: bool) -> None:
        """End a transaction, in a thread if it waits for the disk."""
        if lasting or self._fresh:
            await self._away(session.sync_session.commit)
            self._fresh = lasting
        else:
            session.sync_session.commit()

    async def _clear_log(self) -> None:
        """Every so often bring the log into the file, which nobody else does after such commits."""
        self._logged += 1
        if self._logged >= _MOST_LOGGED:
            self._logged = 0
            with suppress(sqlite3.Error):  # what was committed stays so
                await self._away(self._checkpoint)
            self._fresh = True

    def _checkpoint(self) -> None:
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute(_CLEAR_LOG)
        finally:
            connection.close()

    async def _away(self, work: Callable[[], object]) -> None:
        """Do it in a thread; who is cancelled meanwhile waits for its end all the same."""
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            while not done.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait((done,))
            done.exception()  # nobody is left to be told
            raise


def _configure(connection: sqlite3.Connection, record: object) -> None:
    """Once per connection."""
    del record
    for setting in ("journal_mode=WAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: Connection) -> None:
    """A writer takes the write lock before it reads what it decides on.

    Raises:
        _Held: it cannot be had at once, and who asks has no patience.
    """
    options = connection.get_execution_options()
    near: Any = connection.connection.dbapi_connection
    if not options.get(_WRITING):
        near.execute("BEGIN")
        return
    lasting = options[_LASTING]
    pragmas = () if connection.info.get(_LASTING) is lasting else _COMMITS[lasting]
    if options.get(_PATIENT):
        for statement in (*pragmas, _BEGIN_WRITING):
            connection.exec_driver_sql(statement)
    else:
        _begin_at_once(near, pragmas)
    connection.info[_LASTING] = lasting


def _begin_at_once(connection: sqlite3.Connection, pragmas: Iterable[str]) -> None:
    """Take the write lock if nobody has it.

    Raises:
        _Held: somebody has it.
    """
    connection.execute("PRAGMA busy_timeout=0")
    try:
        for pragma in pragmas:
            connection.execute(pragma)
        connection.execute(_BEGIN_WRITING)
    except sqlite3.OperationalError as error:
        raise _Held from error
    finally:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT}")

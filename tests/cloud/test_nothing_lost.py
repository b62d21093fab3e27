"""Nothing lost: whatever happens in whatever order, every byte that was synced is there.

A stateful hypothesis machine over a real workspace. It runs for BASTIDE_TEST_SECONDS (60); its
steps are printed when one fails, with a blob that repeats them. A restore rolls back what was
written since its snapshot, and nothing else; the model knows what that is.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.cloud.cloud import Cloud
from tests.cloud.processes import kill, until_whole

from bastide.client import Bastide, BastideError, ConflictError, NotFoundError

pytestmark = pytest.mark.cloud
SECONDS = float(os.environ.get("BASTIDE_TEST_SECONDS", "60"))
STEPS = 25
MOST_LIVES = 300
LONGEST = 90.0
"""Seconds after which an operation counts as one that hangs."""
_WRITE = """
import os, random, sys
name, seed = sys.argv[1], int(sys.argv[2])
data = random.Random(seed).randbytes(65536)
os.makedirs("/root/kept", exist_ok=True)
with open(f"/root/kept/{name}", "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
directory = os.open("/root/kept", os.O_RDONLY)
os.fsync(directory)
"""
_READ = "cd /root/kept 2> /dev/null && sha256sum * || true"
AFTER = {
    "start": "running",
    "stop": "stopped",
    "restart": "running",
    "pause": "paused",
    "resume": "running",
}
BEFORE = {
    "start": {"running", "stopped"},
    "stop": {"running", "stopped", "paused"},
    "restart": {"running", "stopped", "paused"},
    "pause": {"running", "paused"},
    "resume": {"running", "paused"},
}
NAMES = st.sampled_from("abcdef")
SEEDS = st.integers(0, 2**31)
VERBS = st.sampled_from(sorted(AFTER))
AFTERS = {"resume": "running", "paused": "paused", "stop": "stopped"}
AFTERWARDS = st.sampled_from(sorted(AFTERS))
_UNFINISHED = (
    "SELECT count(*) FROM operations WHERE workspace_id = ? AND state IN ('queued', 'running')"
)
RARELY = st.sampled_from([False, False, True])
"""A process takes seconds to come back, so there is more of everything else between."""
VICTIMS = st.sampled_from([("node",), ("api",), ("edge",), ("node", "api")])


class Life(RuleBasedStateMachine):
    """One workspace. `state` is what the model says, `files` the digest of each synced file.

    `kept` are the files of the last snapshot, None when there is none. `instead` are the files
    there may be in the place of `files`: a restore that a process was killed in may have been
    done or not, and looking tells.

    What is drawn never depends on what the cloud did: rules that do not fit do nothing instead.
    """

    cloud: Cloud
    client: Bastide
    end: float
    told: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.state = "running"
        self.files: dict[str, str] = {}
        self.kept: dict[str, str] | None = None
        self.instead: dict[str, str] | None = None
        self.sizes = {"cpus": 1.0, "memory_mb": 256, "disk_size_mb": 256}
        self.id = ""

    @initialize()
    def begin(self) -> None:
        if not self.going_on:
            return  # the time is over: what is left to try does nothing
        self.count("life")
        made = self.client.workspaces.create("debian-12", **self.sizes)  # type: ignore[arg-type]
        self.id = made.id

    def teardown(self) -> None:
        try:
            if self.id:
                if self.state == "paused":
                    self.does("resume")
                elif self.state == "stopped":
                    self.does("start")
                self.all_is_there()
        finally:
            if self.id:
                self.client.workspaces.delete(self.id)

    @property
    def going_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.end

    @rule(name=NAMES, seed=SEEDS)
    def writes(self, name: str, seed: int) -> None:
        if self.going_on and self.state == "running":
            self.write(name, seed)

    def write(self, name: str, seed: int) -> None:
        """Have one file synced inside."""
        self.count("write")
        if self.instead is not None:
            self.all_is_there()
        self.command(["python3", "-c", _WRITE, name, str(seed)])
        self.files[name] = hashlib.sha256(random.Random(seed).randbytes(65536)).hexdigest()

    @rule(verb=VERBS)
    def power(self, verb: str) -> None:
        if not self.going_on:
            return
        self.count(verb)
        if self.state in BEFORE[verb]:
            self.does(verb)
            if self.state == "running":
                self.all_is_there()
        else:
            with pytest.raises(ConflictError) as refused:
                self.does(verb)
            assert refused.value.details["state"] == self.state

    @rule(
        cpus=st.sampled_from([0.5, 1.0]),
        memory=st.sampled_from([192, 256, 320]),
        more=st.sampled_from([0, 0, 16]),
    )
    def resizes(self, cpus: float, memory: int, more: int) -> None:
        if not self.going_on or self.state == "paused":
            return
        self.count("resize")
        disk = int(self.sizes["disk_size_mb"]) + more
        self.sizes = {"cpus": cpus, "memory_mb": memory, "disk_size_mb": disk}
        done = self.timed(
            lambda: self.client.workspaces.resize(
                self.id, cpus=cpus, memory_mb=memory, disk_size_mb=disk
            )
        )
        assert done.relaunched is (bool(more) and self.state == "running") or not more

    @rule(after=AFTERWARDS, name=NAMES, seed=SEEDS)
    def snapshots(self, after: str, name: str, seed: int) -> None:
        if not self.going_on:
            return
        if self.state == "running":
            self.write(name, seed)
        self.count("snapshot")
        if self.state == "stopped":
            with pytest.raises(ConflictError):
                self.client.workspaces.snapshot(self.id, after=after)
            return
        if self.instead is not None:  # what is kept must be known
            self.seen()
        self.timed(lambda: self.client.workspaces.snapshot(self.id, after=after))
        self.state, self.kept = AFTERS[after], dict(self.files)

    @rule(name=NAMES, seed=SEEDS)
    def restores(self, name: str, seed: int) -> None:
        if not self.going_on:
            return
        if self.kept is None:
            self.count("restore of nothing")
            with pytest.raises(NotFoundError):
                self.client.workspaces.restore(self.id)
            return
        if self.state == "running":
            self.write(name, seed)  # which the restore takes back
        self.count("restore")
        self.timed(lambda: self.client.workspaces.restore(self.id))
        self.state, self.files, self.instead = "running", dict(self.kept), None
        self.all_is_there()

    @rule(after=AFTERWARDS, victims=VICTIMS, wait=st.floats(0, 0.6), rarely=RARELY)
    def loses_amid_snapshot(
        self, after: str, victims: tuple[str, ...], wait: float, *, rarely: bool
    ) -> None:
        if not self.going_on or not rarely or self.state == "stopped":
            return
        self.count("kill amid snapshot")
        if self.instead is not None:
            self.seen()
        before = self.last_snapshot()
        done = self.killing(
            lambda: self.client.workspaces.snapshot(self.id, after=after), victims, wait
        )
        self.state = self.settled({AFTERS[after]} if done else {self.state, AFTERS[after]})
        if self.last_snapshot() != before:
            self.kept = dict(self.files)
        assert self.last_snapshot() != before or not done

    @rule(victims=VICTIMS, wait=st.floats(0, 0.6), rarely=RARELY)
    def loses_amid_restore(self, victims: tuple[str, ...], wait: float, *, rarely: bool) -> None:
        if not self.going_on or not rarely or self.kept is None:
            return
        self.count("kill amid restore")
        if self.instead is not None and self.state != "stopped":
            self.seen()
        elif self.instead is not None:
            return
        done = self.killing(lambda: self.client.workspaces.restore(self.id), victims, wait)
        self.state = self.settled({"running"} if done else {self.state, "running", "stopped"})
        if done:
            self.files, self.instead = dict(self.kept), None
        else:
            self.instead = dict(self.kept)
        if self.state == "running":
            self.all_is_there()

    @rule(victims=VICTIMS, rarely=RARELY)
    def loses(self, victims: tuple[str, ...], *, rarely: bool) -> None:
        if not self.going_on or not rarely:
            return
        self.count("kill " + "+".join(victims))
        until_whole(self.cloud, kill(self.cloud, victims))

    @rule(verb=VERBS, victims=VICTIMS, after=st.floats(0, 0.3), rarely=RARELY)
    def loses_amid(
        self, verb: str, victims: tuple[str, ...], after: float, *, rarely: bool
    ) -> None:
        if not self.going_on or not rarely:
            return
        self.count("kill amid " + verb)
        may = {self.state, AFTER[verb]} if self.state in BEFORE[verb] else {self.state}
        done = self.killing(lambda: getattr(self.client.workspaces, verb)(self.id), victims, after)
        if done and self.state in BEFORE[verb]:
            may = {AFTER[verb]}
        self.state = self.settled(may)

    @invariant()
    def shown_as_it_is(self) -> None:
        if self.id and self.going_on:
            assert self.settled({self.state}) == self.state

    def does(self, verb: str) -> None:
        """One power call that must succeed."""
        self.timed(lambda: getattr(self.client.workspaces, verb)(self.id))
        self.state = AFTER[verb]

    def killing(self, call: Callable[[], object], victims: tuple[str, ...], wait: float) -> bool:
        """Make a call and kill processes amid it; whether it was told to be done.

        Returns once all processes are back and nothing is going on any more.
        """
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(tries, call)
            time.sleep(wait)
            killed = kill(self.cloud, victims)
            done = told.result(timeout=LONGEST * 2)
        until_whole(self.cloud, killed)
        end = time.monotonic() + LONGEST
        while self.unfinished():
            assert time.monotonic() < end, "an operation does not end"
            time.sleep(0.05)
        return done

    def unfinished(self) -> int:
        """Operations of the workspace that have not ended."""
        file = self.cloud.settings.state_dir / "db" / "bastide.sqlite3"
        database = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=LONGEST)
        try:
            found: tuple[int] = database.execute(_UNFINISHED, (self.id,)).fetchone()
        finally:
            database.close()
        return found[0]

    def last_snapshot(self) -> str | None:
        """When the last snapshot was taken."""
        snapshot = self.client.workspaces.info(self.id).snapshot
        return str(snapshot.created_at) if snapshot is not None else None

    def seen(self) -> None:
        """Look which files there are, in a workspace that runs or is paused."""
        was = self.state
        if was == "paused":
            self.does("resume")
        self.all_is_there()
        if was == "paused":
            self.does("pause")

    def settled(self, allowed: set[str]) -> str:
        """The status once nothing is going on; one the model allows."""
        end = time.monotonic() + LONGEST
        while True:
            found = self.client.workspaces.get(self.id)
            if found.status in allowed and (found.status != "running" or found.ready):
                return found.status
            assert time.monotonic() < end, f"{found.status} is none of {allowed}"
            time.sleep(0.05)

    def command(self, argv: list[str]) -> str:
        """What a command prints; one that a change of state cut off is tried again."""
        runtime = self.client.workspaces.runtime(self.id)
        return runtime.exec.run(argv, timeout=60).check().stdout

    def all_is_there(self) -> None:
        """Every synced byte is."""
        lines = self.command(["sh", "-c", _READ]).splitlines()
        found = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
        if self.instead is not None and found == self.instead:
            self.files = self.instead
        self.instead = None
        assert found == self.files

    def timed(self, call: Callable[[], Any]) -> Any:
        """Its answer, in time."""
        began = time.monotonic()
        answer = call()
        assert time.monotonic() - began < LONGEST
        return answer

    def count(self, what: str) -> None:
        """For the summary."""
        self.told[what] = self.told.get(what, 0) + 1


def tries(call: Callable[[], object]) -> bool:
    """A call that may be lost with a process; whether it was told to be done."""
    try:
        call()
    except BastideError:
        return False
    return True


def test_every_synced_byte_is_there(cloud: Cloud, client: Bastide) -> None:
    """Writes, power, snapshots, sizes and kills in random order: nothing is lost, none hangs."""
    Life.cloud, Life.client, Life.told = cloud, client, {}
    Life.end = time.monotonic() + SECONDS
    rules = settings(
        max_examples=MOST_LIVES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Life, settings=rules)
    finally:
        width = max(map(len, Life.told), default=0)
        lines = [f"{what:{width}}  {count}" for what, count in sorted(Life.told.items())]
        sys.stdout.write("\n".join(["", *lines, ""]))

"""Nothing lost: whatever happens in whatever order, every byte that was synced is there.

A stateful hypothesis machine over a real workspace. It runs for BASTIDE_TEST_SECONDS (60); its
steps are printed when one fails, and always the seed that draws them again (--hypothesis-seed).
Files are written between the steps, and a journal during them (tests/cloud/journal.py). A restore
rolls back what was written since its snapshot, and nothing else; the model knows what that is.
"""

from __future__ import annotations

import os
import random
import sys
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test
from tests.cloud.cloud import Cloud
from tests.cloud.life import AFTER, BEFORE, Life
from tests.cloud.processes import kill, until_whole
from tests.cloud.shown import MEANWHILE

from bastide.client import Bastide, ConflictError, NotFoundError

pytestmark = pytest.mark.cloud
SECONDS = float(os.environ.get("BASTIDE_TEST_SECONDS", "60"))
STEPS = 25
LIVES = 9
"""In one go, with a seed of its own. From 10 on hypothesis would begin with the simplest lives it
can think of, which do the first of everything again and again."""
AFTERS = {"resume": "running", "paused": "paused", "stop": "stopped"}
NAMES = st.sampled_from("abcdef")
SEEDS = st.integers(0, 2**31)
VERBS = st.sampled_from(["resume", "restart", "stop", "start", "pause"])
AFTERWARDS = st.sampled_from(["resume", "paused", "stop"])
RARELY = st.sampled_from([False] * 5 + [True])
"""A process takes seconds to come back, so there is more of everything else between."""
VICTIMS = st.sampled_from([("node",), ("api",), ("edge",), ("node", "api")])
CPUS = st.sampled_from([0.5, 1.0])
MEMORY = st.sampled_from([192, 256, 320])
MORE = st.sampled_from([0, 0, 16])


class AnyLife(Life):
    """A life in which anything happens.

    What is drawn never depends on what the cloud did: rules that do not fit do nothing instead.
    """

    @initialize()
    def begin(self) -> None:
        if self.going_on:  # else the time is over, and what is left to try does nothing
            self.create()

    @rule(name=NAMES, seed=SEEDS)
    def writes(self, name: str, seed: int) -> None:
        if self.going_on and self.state == "running":
            self.write(name, seed)

    @rule(verb=VERBS)
    def power(self, verb: str) -> None:
        if not self.going_on:
            return
        self.count(verb)
        if self.state in BEFORE[verb]:
            self.does(verb)
        else:
            with pytest.raises(ConflictError) as refused:
                self.does(verb)
            assert refused.value.details["state"] == self.state

    @rule(cpus=CPUS, memory=MEMORY, more=MORE)
    def resizes(self, cpus: float, memory: int, more: int) -> None:
        if not self.going_on or self.state == "paused":
            return
        self.count("resize")
        self.sizes = self.other_sizes(cpus, memory, more)
        done = self.timed(
            lambda: self.client.workspaces.resize(self.id, **self.sizes), {self.state}
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
        kept = self.known()
        self.timed(
            lambda: self.client.workspaces.snapshot(self.id, after=after),
            {self.state, AFTERS[after]},
        )
        self.state, self.kept = AFTERS[after], kept

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
        self.journal.be_deaf()
        self.timed(
            lambda: self.client.workspaces.restore(self.id),
            {self.state, "running", *MEANWHILE["restore"]},
        )
        self.state = "running"
        self.goes_back(self.kept)

    @rule(after=AFTERWARDS, victims=VICTIMS, wait=st.floats(0, 0.6), rarely=RARELY)
    def loses_amid_snapshot(
        self, after: str, victims: tuple[str, ...], wait: float, *, rarely: bool
    ) -> None:
        if not self.going_on or not rarely or self.state == "stopped":
            return
        self.count("kill amid snapshot")
        kept = self.known()
        before = self.last_snapshot()
        with self.showing({self.state, AFTERS[after]}):
            done = self.killing(
                lambda: self.client.workspaces.snapshot(self.id, after=after), victims, wait
            )
        self.state = self.settled({AFTERS[after]} if done else {self.state, AFTERS[after]})
        if self.last_snapshot() != before:
            self.kept = kept
        assert self.last_snapshot() != before or not done

    @rule(victims=VICTIMS, wait=st.floats(0, 0.6), rarely=RARELY)
    def loses_amid_restore(self, victims: tuple[str, ...], wait: float, *, rarely: bool) -> None:
        if not self.going_on or not rarely or self.kept is None:
            return
        self.count("kill amid restore")
        if self.instead is not None and self.state == "stopped":
            return
        self.known()
        self.journal.be_deaf()
        may = {self.state, "running", "stopped"}
        with self.showing(may | MEANWHILE["restore"]):
            done = self.killing(lambda: self.client.workspaces.restore(self.id), victims, wait)
        self.state = self.settled({"running"} if done else may)
        if done:
            self.goes_back(self.kept)
        else:
            self.instead = self.kept

    @rule(victims=VICTIMS, rarely=RARELY)
    def loses(self, victims: tuple[str, ...], *, rarely: bool) -> None:
        if not self.going_on or not rarely:
            return
        self.count("kill " + "+".join(victims))
        with self.showing({self.state}):
            until_whole(self.cloud, kill(self.cloud, victims))

    @rule(verb=VERBS, victims=VICTIMS, after=st.floats(0, 0.3), rarely=RARELY)
    def loses_amid(
        self, verb: str, victims: tuple[str, ...], after: float, *, rarely: bool
    ) -> None:
        if not self.going_on or not rarely:
            return
        self.count("kill amid " + verb)
        fits = self.state in BEFORE[verb]
        may = {self.state, AFTER[verb]} if fits else {self.state}
        with self.showing(may | MEANWHILE.get(verb, set()) if fits else may):
            done = self.killing(
                lambda: getattr(self.client.workspaces, verb)(self.id), victims, after
            )
        self.state = self.settled({AFTER[verb]} if done and fits else may)

    @rule(cpus=CPUS, memory=MEMORY, more=MORE, victims=VICTIMS, after=st.floats(0, 0.3),
          rarely=RARELY)  # fmt: skip
    def loses_amid_resize(
        self,
        cpus: float,
        memory: int,
        more: int,
        victims: tuple[str, ...],
        after: float,
        *,
        rarely: bool,
    ) -> None:
        if not self.going_on or not rarely or self.state == "paused":
            return
        self.count("kill amid resize")
        wanted = self.other_sizes(cpus, memory, more)
        with self.showing({self.state}):
            done = self.killing(
                lambda: self.client.workspaces.resize(self.id, **wanted), victims, after
            )
        found = self.client.workspaces.resources(self.id).model_dump(include=set(wanted))
        assert found == wanted or (not done and found == self.sizes)
        self.sizes = found

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not self.id or not self.going_on:
            return
        assert self.settled({self.state}) == self.state
        if self.state == "running":
            self.all_is_there()
            self.journal.go_on()


def test_every_synced_byte_is_there(
    cloud: Cloud, client: Bastide, pytestconfig: pytest.Config
) -> None:
    """Writes, power, snapshots, sizes and kills in random order: nothing is lost, none hangs."""
    given = pytestconfig.getoption("--hypothesis-seed")
    drawn = int(given) if given is not None else random.SystemRandom().randrange(2**32)
    AnyLife.cloud, AnyLife.client, AnyLife.totals = cloud, client, {}
    AnyLife.end = time.monotonic() + SECONDS
    rules = settings(
        max_examples=LIVES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        while time.monotonic() < AnyLife.end:
            AnyLife.totals["seed"] = drawn
            run_state_machine_as_test(seed(drawn)(AnyLife), settings=rules)
            drawn += 1
    finally:
        width = max(map(len, AnyLife.totals), default=0)
        lines = [f"{what:{width}}  {count}" for what, count in sorted(AnyLife.totals.items())]
        sys.stdout.write("\n".join(["", *lines, ""]))

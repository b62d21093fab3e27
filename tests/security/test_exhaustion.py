"""A workspace that takes all it can get: bounded, survived, told truthfully (threat 20)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.inside import Inside
from tests.cloud.tasks import started

from bastide.client import ApiError, Bastide, BastideError, RateLimitedError

pytestmark = pytest.mark.cloud

DEADLINE = 60.0
BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.5)
"""
FLOOD = "yes | head -c 600M; echo > /root/said; yes"
AGENT_LIMIT_MB = 96
AGENT = "pid=$(pgrep -o -f agent/main.pyc -P 1)"


def boot(client: Bastide, inside: Inside) -> str:
    """What changes with every boot of the machine: when its process 1 began."""
    return inside.sh("cut -d' ' -f22 /proc/1/stat").check().stdout


def until(holds: Callable[[], bool]) -> None:
    """Wait for what tells nobody, with a deadline; refusals on the way are no answer yet."""
    end = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(BastideError):
            if holds():
                return
        assert time.monotonic() < end, "not within a minute"
        time.sleep(0.05)


def agent_memory_mb(inside: Inside) -> float:
    """Resident MiB of the agent at its most."""
    line = inside.sh(f"{AGENT}; grep VmHWM /proc/$pid/status").check().stdout
    return int(line.split()[1]) / 1024


def test_a_fork_bomb_is_bounded_and_can_be_ended(
    client: Bastide, make_inside: Callable[..., Inside], neighbour: Inside
) -> None:
    """It ends at the limit, the agent answers, a neighbour works on; killed, all is well again."""
    bombed = make_inside(memory_mb=1024)
    before = boot(client, bombed)
    with bombed.runtime.exec.stream(["python3", "-c", BOMB]) as events:
        task = started(events)
        until(lambda: refused(bombed))
        assert neighbour.sh("echo well").stdout == "well\n"
        bombed.runtime.exec.kill(task)
    until(lambda: int(bombed.sh("ls -d /proc/[0-9]* | wc -l").check().stdout) < 20)
    assert boot(client, bombed) == before


def refused(inside: Inside) -> bool:
    """Whether the workspace has no room for another process, and says so."""
    try:
        inside.sh("true")
    except RateLimitedError:
        return True
    return False


def test_a_bomb_that_outlives_its_task_ends_with_a_restart(
    client: Bastide, make_inside: Callable[..., Inside]
) -> None:
    """Processes nobody holds any more fill the workspace: a restart frees it."""
    full = make_inside(memory_mb=512)
    full.runtime.exec.run(["python3", "-c", f"import os\nos.fork() and os._exit(0)\n{BOMB}"])
    until(lambda: refused(full))
    client.workspaces.restart(full.id)
    assert full.sh("echo well").stdout == "well\n"


def test_a_memory_hog_is_killed_alone(client: Bastide, inside: Inside, neighbour: Inside) -> None:
    """The kernel ends the hog, not the agent; the same boot goes on."""
    before = boot(client, inside)
    assert inside.run("hog").exit_code == 137
    assert inside.sh("echo well").stdout == "well\n"
    assert boot(client, inside) == before
    assert neighbour.sh("echo well").stdout == "well\n"


def test_memory_held_by_files_in_memory_is_bounded(client: Bastide, inside: Inside) -> None:
    """/run, /dev/shm and /dev are small, and what is in them counts as the workspace's memory."""
    for path, most in (("/run/fill", 32), ("/dev/shm/fill", 128), ("/dev/fill", 1)):
        done = inside.call("fill", path=path, most_mb=1024)
        assert done["error"] == "ENOSPC"
        assert done["written_mb"] <= most
        inside.sh(f"rm {path}").check()
    ends = inside.call("fill_names", directory="/dev/names", most=10_000)
    assert ends["error"] == "ENOSPC"
    inside.sh("rm -r /dev/names").check()


def test_a_full_disk_is_the_workspaces_own_trouble(
    cloud: Cloud, client: Bastide, inside: Inside
) -> None:
    """ENOSPC at the quota; the agent answers, the host's file stays below it; freed, it works."""
    before = boot(client, inside)
    done = inside.call("fill", path="/root/fill", most_mb=1024)
    assert done["error"] == "ENOSPC"
    assert 100 < done["written_mb"] < 256
    assert inside.sh("echo well").stdout == "well\n"
    disk = next(
        path
        for place in ("pool/disks", "disks")
        for path in (cloud.settings.state_dir / place).glob(f"{inside.id}*")
    )
    assert disk.stat().st_blocks * 512 <= 257 * 2**20
    inside.sh("rm /root/fill; echo kept > /root/kept; sync").check()
    assert inside.sh("cat /root/kept").stdout == "kept\n"
    assert boot(client, inside) == before


def test_used_up_inodes_are_the_workspaces_own_trouble(client: Bastide, inside: Inside) -> None:
    """ENOSPC after so many files; the agent answers; freed, it works, and it restarts full."""
    done = inside.call("fill_names", directory="/root/names", most=2_000_000)
    assert done["error"] == "ENOSPC"
    assert inside.sh("echo well").stdout == "well\n"
    client.workspaces.restart(inside.id)
    assert inside.sh("ls /root/names | wc -l").stdout == f"{done['made']}\n"
    inside.sh("rm -r /root/names && touch /root/well").check()


def test_output_without_end_costs_nobody_memory(
    cloud: Cloud, client: Bastide, inside: Inside
) -> None:
    """Hundreds of MiB of output, kept or not: the agent keeps the newest, the host nothing."""
    inside.runtime.exec.run("yes | head -c 300M", timeout=120)
    kept = inside.runtime.exec.run("yes | head -c 300M >&2; echo end", timeout=120, keep_logs=True)
    assert kept.stdout.endswith("end\n")
    assert len(kept.stderr) < 16 * 2**20
    inside.runtime.exec.kill(kept.id)
    assert agent_memory_mb(inside) < AGENT_LIMIT_MB
    assert host_bytes(cloud, inside.id) < 2**20


def test_a_flooding_main_command_costs_nobody_memory(
    cloud: Cloud, client: Bastide, make_inside: Callable[..., Inside]
) -> None:
    """What the main command prints is bounded in the agent and written nowhere."""
    noisy = make_inside(memory_mb=128, cmd=["sh", "-c", FLOOD])
    until(lambda: noisy.sh("test -e /root/said").exit_code == 0)
    assert agent_memory_mb(noisy) < AGENT_LIMIT_MB
    assert host_bytes(cloud, noisy.id) < 2**20


def host_bytes(cloud: Cloud, workspace: str) -> int:
    """What the host's files about one workspace take, without its disk."""
    settings = cloud.settings
    places = (
        settings.state_dir / "machines" / workspace,
        settings.run_dir / "machines" / workspace,
    )
    skipped = {"disk", "lower", "merged", "rootfs"}
    found = 0
    for place in places:
        for path in place.iterdir():
            if path.name not in skipped and path.is_file() and not path.is_symlink():
                found += path.stat().st_blocks * 512
    return found


def test_thousands_of_idle_connections_do_not_shut_others_out(inside: Inside) -> None:
    """Connections that say nothing, from inside, leave the agent answering the gateway."""
    script = (
        "import socket,time\nheld=[]\n"
        "for n in range(3000):\n"
        " try:\n  s=socket.create_connection(('127.0.0.1',9990 if n%2 else 9989),2)\n"
        "  s.send(b'GET /')\n  held.append(s)\n"
        " except OSError: break\n"
        "print(len(held),flush=True)\ntime.sleep(600)\n"
    )
    with inside.runtime.exec.stream(["python3", "-c", script]) as events:
        task = started(events)
        next(events)
        assert inside.sh("echo well").stdout == "well\n"
        inside.runtime.exec.kill(task)
    assert inside.sh("echo well").stdout == "well\n"


def test_process_one_cannot_be_killed_from_inside(client: Bastide, inside: Inside) -> None:
    """SIGKILL and SIGSTOP to process 1 do nothing."""
    before = boot(client, inside)
    inside.sh("kill -9 1; kill -STOP 1")
    assert boot(client, inside) == before


@pytest.mark.parametrize("death", [f"{AGENT}; kill -9 $pid", "kill -TERM 1"])
def test_a_machine_that_ends_itself_is_started_again(
    client: Bastide, inside: Inside, death: str
) -> None:
    """Kill the agent, or ask process 1 to end: the restart policy brings the machine back."""
    before = boot(client, inside)
    with contextlib.suppress(ApiError, BastideError):
        inside.sh(death)
    until(lambda: boot(client, inside) != before)
    assert client.workspaces.get(inside.id).ready


def test_a_machine_that_ended_is_told_to_be_stopped(
    client: Bastide, make_inside: Callable[..., Inside]
) -> None:
    """Without a restart policy it is shown as stopped, and starts when asked to."""
    mortal = make_inside(memory_mb=128, config={"restart_policy": "no"})
    with contextlib.suppress(ApiError, BastideError):
        mortal.sh(f"{AGENT}; kill -9 $pid")
    until(lambda: client.workspaces.get(mortal.id).status == "stopped")
    info = client.workspaces.get(mortal.id).info
    assert info is not None
    assert not info.is_running
    client.workspaces.start(mortal.id)
    assert mortal.sh("echo well").stdout == "well\n"


def test_a_frozen_agent_does_not_hold_its_workspace(
    client: Bastide, make_inside: Callable[..., Inside]
) -> None:
    """SIGSTOP to the agent: stop, start and delete work all the same."""
    frozen = make_inside(memory_mb=128)
    with frozen.runtime.exec.stream(["sh", "-c", f"{AGENT}; kill -STOP $pid"]) as events:
        started(events)
    client.workspaces.restart(frozen.id)
    assert frozen.sh("echo well").stdout == "well\n"

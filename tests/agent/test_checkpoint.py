"""What the agent does around a snapshot of its machine."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import Agent, start_agent
from tests.agent.wire import Wire, new_terminal

RENEWED = {
    "boot_id": "boot-2",
    "control": {"token": "dd" * 32},
    "runtime": {"enabled": True, "token": "ee" * 32},
}


def test_a_resting_terminal_goes_on(agent: Agent) -> None:
    """Without its own end of the terminal the agent still serves it, and takes it up again."""
    with agent.client() as http, agent.control() as control, Wire(agent) as live:
        number = new_terminal(http)
        live.run(number, "echo before")
        assert control.post("/control/rest").json() == {"resting": True}
        assert control.post("/control/rest").status_code == 200
        live.run(number, "echo meanwhile")
        assert control.post("/control/wake").json() == {"resting": False}
        assert control.post("/control/wake").status_code == 200
        live.run(number, "echo after")


def test_an_ending_machine_tells_whoever_is_connected(agent: Agent) -> None:
    """Streams are cut before the machine is cut off, the caller's own connection stays."""
    with agent.client() as http, agent.control() as control:
        with http.stream("POST", "/exec/stream", json={"cmd": ["sleep", "100"]}) as stream:
            lines = stream.iter_lines()
            assert next(lines)
            assert control.post("/control/rest", json={"ending": True}).json() == {"resting": True}
            with pytest.raises(httpx.TransportError):
                list(lines)
        assert control.post("/control/wake").json() == {"resting": False}


def test_a_restored_agent_is_of_a_new_boot(tmp_path: Path) -> None:
    """Renewing changes identity and tokens and cuts every older connection; tasks go on."""
    agent = start_agent(tmp_path)
    try:
        with agent.client() as http, agent.control() as control:
            with http.stream("POST", "/exec/stream", json={"cmd": ["sleep", "100"]}) as stream:
                lines = stream.iter_lines()
                assert next(lines)
                answer = control.post("/control/renew", json=RENEWED)
                assert answer.json() == {"boot_id": "boot-2", "running": True}
                with pytest.raises(httpx.TransportError):
                    list(lines)
            assert control.get("/control/health").status_code == 401
        with agent.client("dd" * 32, agent.control_port) as control:
            assert control.get("/control/health").json()["boot_id"] == "boot-2"
        with agent.client("ee" * 32) as http:
            tasks = http.get("/exec").json()["tasks"]
            assert [task["status"] for task in tasks] == ["running"]
    finally:
        agent.stop()


def test_a_wrong_renewal_changes_nothing(agent: Agent) -> None:
    """A document that is none is refused, and the old token still holds."""
    with agent.control() as control:
        for wrong in ({}, {"control": {"token": "short"}}, {"control": {}, "runtime": 1}):
            assert control.post("/control/renew", json=wrong).status_code == 400
        assert control.get("/control/health").json()["status"] == "ok"


def test_what_a_kernel_of_its_own_is_told_is_checked(agent: Agent) -> None:
    """A time or seed that is none is refused; a seed is taken, and may be repeated."""
    with agent.control() as control:
        for wrong in ({"clock": -1}, {"clock": "noon"}, {"seed": "zz"}, {"seed": "00" * 600}):
            assert control.post("/control/wake", json=wrong).status_code == 400
        for _ in range(2):
            assert control.post("/control/wake", json={"seed": "00ff" * 16}).status_code == 200

"""A hostile program swaps directories for links while the API lists, reads, uploads, deletes.

`BASTIDE_TEST_RACE_SECONDS` says how long it is tried (default 20).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.door import Door, gateway

from bastide.client import Bastide

pytestmark = pytest.mark.cloud

SECONDS = float(os.environ.get("BASTIDE_TEST_RACE_SECONDS", "20"))
RIVAL = (Path(__file__).parent / "rival.py").read_text()
HOME, VICTIM, STABLE = "/root/race", "/root/victim", "/root/stable"
DEADLINE = 60.0  # seconds for one answer; beyond it the agent counts as hanging


@pytest.fixture
def door(cloud: Cloud, client: Bastide) -> Iterator[Door]:
    """A workspace whose processes are all hostile."""
    made = client.workspaces.create("debian-12", memory_mb=512, disk_size_mb=512)
    yield gateway(cloud, made.id)
    client.workspaces.delete(made.id)


def archive() -> bytes:
    """Files, links and directories with the names that are being swapped."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in ("d/escaped", "d/e/escaped", "t/e/escaped", "t/e/f/escaped", "file", "d/e/f/1"):
            info = tarfile.TarInfo(name)
            info.size = 1000
            tar.addfile(info, io.BytesIO(b"x" * 1000))
        link = tarfile.TarInfo("t/e/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "d/e/escaped"
        tar.addfile(link)
    return out.getvalue()


def works(http: httpx.Client) -> list[Callable[[], httpx.Response]]:
    """Every request that walks, reads, writes or deletes."""
    packed = archive()
    everything: dict[str, str | bool] = {"path": HOME, "nested": True, "use_gitignore": False}
    rich = everything | {"include_hash": True, "include_content": True}
    gzip = {"Content-Type": "application/gzip"}
    return [
        lambda: http.get("/files", params=rich),
        lambda: http.get("/files/stream", params=rich),
        lambda: http.get("/files/search", params={"q": "secret", "path": HOME, "timeout": 2}),
        lambda: http.get("/files/search/files", params={"q": "secret", "path": HOME}),
        lambda: http.post("/files/transfer/download", json={"paths": [HOME]}),
        lambda: http.post(
            "/files/transfer/upload", params={"dest": HOME}, content=packed, headers=gzip
        ),
        lambda: http.post("/files/delete", json={"path": f"{HOME}/d"}),
        lambda: http.post("/files/delete", json={"path": f"{HOME}/t"}),
        lambda: http.post("/files/delete", json={"path": f"{HOME}/churn"}),
        lambda: http.get("/files/read", params={"path": f"{HOME}/file"}),
        lambda: http.get("/files/stat", params={"path": f"{HOME}/file"}),
        lambda: http.post("/files/write", json={"path": f"{HOME}/file", "content": "needle\n"}),
    ]


def seen_inside(answer: httpx.Response) -> str:
    """What an answer shows of the tree."""
    if answer.request.url.path.startswith("/files/search/files"):
        return str(answer.json()["files"])
    if answer.request.url.path == "/files/search":  # ripgrep walks by names: it may be led astray
        return ""
    if answer.headers.get("content-type") != "application/gzip":
        return answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        return "\n".join(name for name in tar.getnames() if name != "race/.bastide-skipped")


def run(http: httpx.Client, *command: str) -> str:
    """The output of a command."""
    told = http.post("/exec", json={"cmd": list(command), "exec_mode": "direct"}).json()
    assert told["exit_code"] == 0, told
    return str(told["stdout"])


def rival(http: httpx.Client) -> str:
    """Let the hostile program run; its task."""
    body = {"cmd": ["python3", "-I", "-c", RIVAL, HOME, VICTIM]}
    with http.stream("POST", "/exec/stream", json=body) as answer:
        lines = answer.iter_lines()
        while not (line := next(lines)).startswith("data: "):
            pass
        task = json.loads(line[6:])["task_id"]
        assert any("stdout" in line for line in lines)  # it says that it races
    return str(task)


def test_races(door: Door, record_property: Callable[[str, object], None]) -> None:
    """No hang, no crash, no 500; nothing of the victim is shown, written to or deleted."""
    victim = ["find", VICTIM, "-printf", "%p %y %s %m %T@\\n"]
    with door.http(DEADLINE) as http:
        run(http, "mkdir", "-p", f"{VICTIM}/e/f", f"{VICTIM}/secret")
        run(
            http,
            "sh",
            "-c",
            f"for n in secret e/secret e/f/1 e/f/secret; do echo secret > {VICTIM}/$n.txt; done",
        )
        before = run(http, *victim)
        task = rival(http)
        end = time.monotonic() + SECONDS
        counts: Counter[str] = Counter()

        def client(number: int) -> Counter[str]:
            seen: Counter[str] = Counter()
            with door.http(DEADLINE) as own:
                mine = works(own)
                while time.monotonic() < end:
                    number += 1
                    answer = mine[number % len(mine)]()
                    where = f"{answer.request.method} {answer.request.url.path}"
                    assert answer.status_code not in (500, 502), (where, answer.text)
                    # ripgrep may stand before a pipe until its time is over
                    assert answer.status_code != 504 or "/search" in where, (where, answer.text)
                    if answer.status_code == 200:
                        assert "secret" not in seen_inside(answer), where
                    seen[f"{where} {answer.status_code}"] += 1
            return seen

        with ThreadPoolExecutor(6) as pool:
            for found in pool.map(client, range(0, 12, 2)):
                counts += found
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get(f"/exec/{task}").json()["status"] == "running", "the agent was started anew"
        http.delete(f"/exec/{task}")
        assert run(http, *victim) == before, "something outside was touched"
    record_property("answers", dict(sorted(counts.items())))
    for what, number in sorted(counts.items()):
        print(f"{number:7} {what}")  # noqa: T201
    assert all(any(key.startswith(w) for key in counts) for w in ("GET /files ", "POST /files/t"))

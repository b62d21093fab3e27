"""Random input: no request gets a 500 or ends the agent, and its memory comes back.

`BASTIDE_TEST_REQUESTS` says how many requests of our own making are sent (default 20,000; beside
them schemathesis sends what the OpenAPI document inspires it to).
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.agent.conftest import DEADLINE
from tests.agent.hostile import Hostile, Shot
from tests.agent.isolated import RUNTIME_PORT, RUNTIME_TOKEN, Isolated

from bastide_agent.openapi.document import read_document

pytestmark = pytest.mark.host

REQUESTS = int(os.environ.get("BASTIDE_TEST_REQUESTS", "20000"))
EXAMPLES = 25  # schemathesis' for each operation and mode
CLIENTS = 3
BASE = f"http://127.0.0.1:{RUNTIME_PORT}"
HEADERS = {"Authorization": f"Bearer {RUNTIME_TOKEN}"}
# Answers that are no fault of the agent: told in the document, but not by every operation.
ANYWHERE = {405, 408, 431, 501}
schemathesis.serializer.alias("application/gzip", "application/octet-stream")
HARMLESS = (["true"], ["false"], ["echo", "hello"], "echo one | cat", ["no-such-program"])


@pytest.fixture(scope="module")
def isolated(isolate: Callable[[], Isolated]) -> Isolated:
    """An agent that can harm nothing, not even with a wrong path: see `isolated.py`."""
    return isolate()


class Answers:
    """Reads answers from a connection to the agent, which it makes when there is none."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._data = b""

    def fire(self, shot: Shot) -> int:
        """Send and read the answer; its status, 0 when there is none."""
        sock = self._sock or socket.create_connection(("127.0.0.1", RUNTIME_PORT), DEADLINE)
        self._sock = sock
        keeps = False
        try:
            sock.sendall(shot.data)
            if shot.then == "cut":
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(65536):
                    self._data += data
                return int(self._data[9:12]) if self._data.startswith(b"HTTP/1.1 ") else 0
            status, keeps = self._answer(head_only=shot.data.startswith(b"HEAD"))
            keeps = keeps and shot.then == "keep"
        except ConnectionError:
            return 0
        else:
            return status
        finally:
            if not keeps:
                self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self._data = b""

    def _more(self) -> None:
        assert self._sock is not None
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionResetError("the agent closed the connection")
        self._data += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            self._more()
        found, _, self._data = self._data.partition(mark)
        return found

    def _exactly(self, size: int) -> None:
        while len(self._data) < size:
            self._more()
        self._data = self._data[size:]

    def _answer(self, *, head_only: bool) -> tuple[int, bool]:
        head = self._until(b"\r\n\r\n").lower()
        status = int(head[9:12])
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        keeps = fields.get(b"connection") != b"close"
        if head_only or status in (101, 204):
            return status, keeps and status != 101
        if b"content-length" in fields:
            self._exactly(int(fields[b"content-length"]))
        elif fields.get(b"transfer-encoding") == b"chunked":
            while size := int(self._until(b"\r\n"), 16):
                self._exactly(size + 2)
            self._until(b"\r\n")
        else:
            keeps = False
        return status, keeps


def bombard(agent: Isolated, seed: int, count: int) -> Counter[int]:
    """Send random requests over a few connections at once; how often each status came."""

    def client(number: int) -> Counter[int]:
        def run() -> Counter[int]:
            hostile, answers = Hostile(seed * 1000 + number), Answers()
            seen: Counter[int] = Counter()
            for _ in range(count // CLIENTS):
                shot = hostile.shot()
                try:
                    status = answers.fire(shot)
                except TimeoutError:
                    pytest.fail(f"no answer within {DEADLINE} s to {shot.data[:500]!r}")
                assert status != 500, f"a 500 to {shot.data[:2000]!r}"
                seen[status] += 1
            answers.close()
            return seen

        return agent.inside(run)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS)), Counter[int]())


def clean(agent: Isolated) -> None:
    """Forget tasks, terminals and watchers, so that memory can be compared."""

    def run() -> None:
        with httpx.Client(base_url=BASE, headers=HEADERS, timeout=DEADLINE) as http:
            assert http.delete("/exec").status_code == 200
            for kind in ("terminals", "watchers"):
                for item in http.get(f"/{kind}").json()[kind]:
                    assert http.delete(f"/{kind}/{item['id']}").status_code == 200
            assert http.get("/health").json() == {"status": "ok"}

    agent.inside(run)


def inspired(agent: Isolated, examples: int) -> Counter[int]:
    """Let schemathesis try every operation, with data that fits the document and that does not.

    Left out of its checks are only those that ask an API to refuse what its document does not
    allow: this one is lenient on purpose (unknown fields, booleans and numbers as text), as the
    published API's clients need.
    """
    schema = schemathesis.openapi.from_dict(read_document())
    seen: Counter[int] = Counter()
    session = requests.Session()

    def attempt(operation: Any, mode: GenerationMode) -> None:
        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=examples, deadline=None, derandomize=True, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def run(case: Any) -> None:
            if isinstance(case.body, dict) and case.body.get("cmd"):
                case.body["cmd"] = HARMLESS[len(str(case.body["cmd"])) % len(HARMLESS)]
                if not case.path.startswith("/exec"):
                    case.body["cmd"] = ["cat"]
            response = case.call(
                base_url=BASE, headers=HEADERS, session=session, timeout=DEADLINE,
                allow_redirects=False,
            )  # fmt: skip
            seen[response.status_code] += 1
            assert response.status_code != 500, response.text
            if response.status_code in ANYWHERE or case.path.startswith("/proxy"):
                return
            case.validate_response(
                response,
                checks=[
                    *([not_a_server_error] if response.status_code < 501 else []),
                    status_code_conformance,
                    content_type_conformance,
                    response_headers_conformance,
                    response_schema_conformance,
                ],
            )

        run()

    def run() -> None:
        for result in schema.get_all_operations():
            operation: Any = result.ok()  # type: ignore[union-attr]
            modes = [GenerationMode.POSITIVE]
            if operation.body or len(operation.query) or len(operation.path_parameters):
                modes.append(GenerationMode.NEGATIVE)
            for mode in modes:
                attempt(operation, mode)

    try:
        agent.inside(run)
    finally:
        session.close()
    return seen


def settled(measure: Callable[[], int], at_most: float) -> int:
    """What is measured once it is small enough, or when the deadline is over."""
    end = time.monotonic() + DEADLINE
    while (value := measure()) > at_most and time.monotonic() < end:
        time.sleep(0.05)
    return value


def test_random_requests(
    isolated: Isolated, record_property: Callable[[str, object], None]
) -> None:
    """At least 20,000 requests: no 500, the agent lives, its memory returns to within 10 %."""
    bombard(isolated, seed=1, count=max(600, REQUESTS // 4))  # modules loaded, pools grown
    inspired(isolated, 8)
    clean(isolated)
    began = isolated.memory_kib()
    seen = bombard(isolated, seed=2, count=REQUESTS)
    seen += inspired(isolated, EXAMPLES)
    clean(isolated)
    ended = settled(isolated.memory_kib, began * 1.1)
    record_property("statuses", dict(sorted(seen.items())))
    record_property("memory_kib", (began, ended))
    print(f"\n{seen.total()} requests, statuses {dict(sorted(seen.items()))}")  # noqa: T201
    print(f"memory of the agent: {began} KiB before, {ended} KiB after")  # noqa: T201
    assert isolated.alive()
    assert seen.total() >= REQUESTS
    assert seen[500] == 0
    assert seen[200] > seen.total() / 20
    assert ended <= began * 1.1
    assert isolated.exists("/bin/busybox")  # nothing protected was deleted
    assert isolated.exists("/etc")

"""What the edge lets through, what it answers itself, and what a workspace gets to see."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.host.edge.stage import ONE, RAW_ONE, RAW_TWO, TWO, Stage, body_of, header, until

from bastide.edge.maps import GatewayEntry

pytestmark = pytest.mark.host

STATES = {
    "open": (200, None),
    "closed": (403, "forbidden"),
    "disabled": (403, "disabled"),
    "paused": (409, "vm_paused"),
    "down": (503, "VM_UNAVAILABLE"),
    "absent": (404, "not_found"),
}


@pytest.mark.parametrize("state", STATES)
async def test_states(stage: Stage, client: httpx.AsyncClient, state: Any) -> None:
    """Each state has its status and code, in the envelope, readable across origins."""
    if state == "absent":
        await stage.edge.withdraw(ONE)
    else:
        address = None if state == "down" else "127.0.0.11"
        await stage.edge.publish(ONE, address, 1, state, RAW_ONE)
    status, code = STATES[state]
    headers = {**stage.bearer(), "X-Request-ID": "mine-1"}
    answer = await client.post("/exec", headers=headers, json={"cmd": ["true"]})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"] == "mine-1"
    if code is None:
        assert stage.one.seen
        return
    assert answer.json()["code"] == answer.json()["error"] == code
    assert answer.json()["success"] is False
    assert answer.json()["request_id"] == "mine-1"
    assert len(answer.json()["message"]) > 20
    assert not stage.one.seen
    # the other workspace is not touched by it
    assert (await client.get("/", headers=stage.bearer(TWO))).json()["server"] == "two"


async def test_credentials_are_swapped(stage: Stage, client: httpx.AsyncClient) -> None:
    """The workspace gets its raw token once and nothing of the JWT; the client none of it."""
    token = stage.token()
    answer = await client.get(
        f"/files?path=/a%20b&token={token}&x=1", headers={"Authorization": f"Bearer {token}"}
    )
    (seen,) = stage.one.seen
    assert header(seen, "authorization") == [f"Bearer {RAW_ONE}"]
    assert seen["target"] == "/files?path=/a%20b&x=1"
    assert token not in json.dumps(seen)
    assert "authorization" not in answer.headers


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("token={t}", ""),
        ("token={t}&a=1&b=%26x", "?a=1&b=%26x"),
        ("a=1&token={t}", "?a=1"),
        ("a=1&token={t}&b=2", "?a=1&b=2"),
        ("token={t}&token=second&c=", "?c="),
        ("mytoken=1&token={t}&tokens=2", "?mytoken=1&tokens=2"),
        ("x_oblien_target=3000&token={t}", "?x_oblien_target=3000"),
    ],
)
async def test_token_in_query(
    stage: Stage, client: httpx.AsyncClient, query: str, kept: str
) -> None:
    """`?token=` opens /proxy and is cut out; every other parameter stays as it was."""
    answer = await client.get("/proxy/3000/x?" + query.format(t=stage.token()))
    assert answer.status_code == 200
    (seen,) = stage.one.seen
    assert seen["target"] == "/proxy/3000/x" + kept
    assert header(seen, "authorization") == [f"Bearer {RAW_ONE}"]


async def test_where_the_query_may_hold_the_token(stage: Stage, client: httpx.AsyncClient) -> None:
    """`?token=` is good for /ws, /proxy and /desktop, with or without a target, and no other."""
    query = f"?token={stage.token()}"
    good = ["/proxy", "/proxy/a/b", "/desktop", "/desktop/x", "/runtimes/local/proxy/80/"]
    for path in good:
        assert (await client.get(path + query)).status_code == 200, path
    bad = [
        "/",
        "/files",
        "/exec",
        "/proxyx",
        "/wsx",
        "/x/ws",
        "/runtimes/a/b/proxy",
        "/PROXY",
        "//ws",
    ]
    for path in bad:
        assert (await client.get(path + query)).status_code == 401, path
    assert len(stage.one.seen) == len(good)


async def test_identity_headers_are_cut(stage: Stage, client: httpx.AsyncClient) -> None:
    """Nothing a client sends passes for what the edge says; control-plane secrets stay out."""
    sent = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-Proto": "https",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Bastide-User": "root",
        "X-Client-Secret": "sk_secret",
        "X-Request-ID": 'bad"id',
        "X-Other": "stays",
    }
    await client.get("/health", headers=sent | stage.bearer())
    (seen,) = stage.one.seen
    assert header(seen, "x-forwarded-for") == ["127.0.0.1"]
    assert header(seen, "x-forwarded-proto") == ["http"]
    for name in ("x-forwarded-host", "x-real-ip", "forwarded", "x-bastide-user", "x-client-secret"):
        assert header(seen, name) == []
    assert header(seen, "x-other") == ["stays"]
    assert len(header(seen, "x-request-id")[0]) == 36


async def test_preflight(stage: Stage, client: httpx.AsyncClient) -> None:
    """A preflight is answered without a token, for any origin, and asks for no credentials."""
    answer = await client.options(
        "/files/transfer/upload?dest=/app",
        headers={
            "Origin": "https://dashboard.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-custom_1",
        },
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    allowed = answer.headers["access-control-allow-headers"].lower()
    for name in ("authorization", "content-type", "x-oblien-proxy-target", "x-custom_1"):
        assert name in allowed
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert method in answer.headers["access-control-allow-methods"]
    assert int(answer.headers["access-control-max-age"]) > 0
    assert not stage.one.seen
    # a plain OPTIONS is a request like any other
    assert (await client.options("/proxy/80/")).status_code == 401
    assert (await client.options("/proxy/80/", headers=stage.bearer())).status_code == 200


async def test_cors_of_an_app(client: httpx.AsyncClient, stage: Stage) -> None:
    """An app's own CORS header is kept and not doubled; other answers get ours."""
    answer = await client.get("/proxy/3000/", headers=stage.bearer())
    assert answer.headers.get_list("access-control-allow-origin") == ["https://app.example"]
    answer = await client.get("/health", headers=stage.bearer())
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]


async def test_browsers_carry_no_cookies(client: httpx.AsyncClient, stage: Stage) -> None:
    """Workspaces share one origin, so cookies neither enter nor leave through a browser."""
    cookie = {"Cookie": "session=of-another"}
    browser = {"Sec-Fetch-Site": "same-origin"}
    answer = await client.get("/proxy/3000/", headers=stage.bearer() | cookie | browser)
    assert "set-cookie" not in answer.headers
    assert header(stage.one.seen[-1], "cookie") == []
    answer = await client.get("/proxy/3000/", headers=stage.bearer() | cookie)
    assert "set-cookie" in answer.headers
    assert header(stage.one.seen[-1], "cookie") == ["session=of-another"]


async def test_workspace_gone_silent(stage: Stage, client: httpx.AsyncClient) -> None:
    """An open workspace that refuses connections is 503 VM_UNAVAILABLE, a broken answer 502."""
    answer = await client.get("/broken", headers=stage.bearer())
    assert answer.status_code == 502
    assert answer.json()["code"] == "bad_gateway"
    await stage.one.stop()
    answer = await client.get("/health", headers=stage.bearer())
    assert answer.status_code == 503
    assert answer.json()["code"] == "VM_UNAVAILABLE"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["retry-after"] == "1"


async def test_head_has_no_body(client: httpx.AsyncClient, stage: Stage) -> None:
    """HEAD gets heads only, from the edge and through it, on one connection."""
    assert (await client.head("/health")).status_code == 401
    answer = await client.head("/health", headers=stage.bearer())
    assert answer.status_code == 200
    assert answer.content == b""
    assert (await client.get("/health", headers=stage.bearer())).json()["method"] == "GET"


async def test_workspaces_never_mix(stage: Stage, client: httpx.AsyncClient) -> None:
    """Requests for two workspaces in turns on kept connections reach each its own."""

    async def turns(start: int) -> None:
        async with httpx.AsyncClient(
            base_url=stage.gateway,
            limits=httpx.Limits(max_connections=1),
            timeout=60,
            trust_env=False,
        ) as one_connection:
            for number in range(start, start + 200):
                workspace, name, raw = ((ONE, "one", RAW_ONE), (TWO, "two", RAW_TWO))[number % 2]
                answer = await one_connection.get(f"/{number}", headers=heads[workspace])
                document = answer.json()
                assert document["server"] == name
                assert header(document, "authorization") == [f"Bearer {raw}"]

    heads = {workspace: stage.bearer(workspace) for workspace in (ONE, TWO)}
    await asyncio.gather(*(turns(start) for start in range(8)))
    # connections were kept, or this proves nothing
    assert stage.one.connections["all"] < 400
    assert len(stage.one.seen) == 800


async def test_an_address_given_away(stage: Stage, client: httpx.AsyncClient) -> None:
    """When an entry's address changes, the very next request goes to the new one."""
    assert (await client.get("/", headers=stage.bearer())).json()["server"] == "one"
    await stage.edge.publish(ONE, "127.0.0.12", 1, "open", RAW_ONE)
    for _ in range(4):
        assert (await client.get("/", headers=stage.bearer())).json()["server"] == "two"


async def test_addresses_outside_the_subnet(stage: Stage, client: httpx.AsyncClient) -> None:
    """Even an entry that got into HAProxy's map leads only into the subnet."""
    for address in ("169.254.169.254", "127.0.1.1", "-", "", "localhost", "0.0.0.0"):
        await stage.runtime.put(ONE, f"open:1:{address}:{RAW_ONE}")
        answer = await client.get("/", headers=stage.bearer())
        assert answer.status_code == 503, address
        assert answer.json()["code"] == "VM_UNAVAILABLE"


async def test_early_answer_to_an_upload(stage: Stage, client: httpx.AsyncClient) -> None:
    """A client that writes a file of ordinary size with a dead token can read the 401."""
    for _ in range(10):
        answer = await client.post(
            "/files/write", headers=stage.bearer(ONE, 0), content=b"x" * 100_000
        )
        assert answer.status_code == 401


SMUGGLES = {
    "content-length and transfer-encoding": (
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    ),
    "two content-lengths": "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "list of content-lengths": "Content-Length: 5, 6\r\n\r\nhello!",
    "signed content-length": "Content-Length: +5\r\n\r\nhello",
    "negative content-length": "Content-Length: -5\r\n\r\nhello",
    "unknown transfer-encoding": "Transfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "chunked is not last": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "space before the colon": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "bare CR in a value": "X-A: b\rTransfer-Encoding: chunked\r\n\r\n",
    "NUL in a value": "X-A: b\0c\r\n\r\n",
    "underscore in a name": "Transfer_Encoding: chunked\r\n\r\n",
    "folded line": "X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n",
    "bad chunk size": "Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLES)
async def test_smuggling(stage: Stage, name: str) -> None:
    """Ambiguous framing is refused, or reaches the workspace as exactly one plain request."""
    head = (
        f"POST /files HTTP/1.1\r\nHost: g\r\nConnection: close\r\n"
        f"Authorization: Bearer {stage.token()}\r\n"
    )
    answer = await stage.raw((head + SMUGGLES[name]).encode())
    status = int(answer.split(b" ", 2)[1])
    targets = [seen["target"] for seen in stage.one.seen]
    assert targets in ([], ["/files"])
    for seen in stage.one.seen:
        lengths, codings = header(seen, "content-length"), header(seen, "transfer-encoding")
        assert len(lengths) + len(codings) <= 1
        assert codings in ([], ["chunked"])
    assert status in {200, 400, 403, 501, 502}
    if status == 403:  # what is no HTTP at all (400) HAProxy answers in its own words
        assert body_of(answer)["code"] == "forbidden"


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT 127.0.0.12:22 HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET files HTTP/1.1",
        "PRI * HTTP/2.0",
    ],
)
async def test_odd_request_lines(stage: Stage, line: str) -> None:
    """Request lines that name no path of a workspace are refused."""
    request = (
        f"{line}\r\nHost: g\r\nConnection: close\r\nAuthorization: Bearer {stage.token()}\r\n\r\n"
    )
    answer = await stage.raw(request.encode())
    assert answer.split(b" ")[1] == b"400", answer
    assert not stage.one.seen


async def test_absolute_form(stage: Stage) -> None:
    """An absolute target is brought to its path; its authority leads nowhere."""
    request = (
        f"GET http://127.0.0.12:1/files?a=1&token=x HTTP/1.1\r\nHost: 127.0.0.12:1\r\n"
        f"Connection: close\r\nAuthorization: Bearer {stage.token()}\r\n\r\n"
    )
    await stage.raw(request.encode())
    (seen,) = stage.one.seen
    assert seen["target"] == "/files?a=1"


async def test_log_has_no_secrets(stage: Stage, client: httpx.AsyncClient) -> None:
    """The log names request, workspace and path, never a query, a token or the key."""
    token = stage.token()
    await client.get(f"/proxy/1/x?token={token}&password=hunter2", headers={"X-Request-ID": "r-1"})
    await client.get('/files/"quoted"\\?q=1', headers=stage.bearer() | {"Cookie": "secret=1"})
    await stage.raw(
        f"GET /bad HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX Y: 1\r\n\r\n".encode()
    )

    async def written() -> bool:
        return stage.log.read_text().count('"edge"') >= 3

    await until(written)
    text = stage.log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    mine = next(line for line in lines if line["request_id"] == "r-1")
    assert mine["workspace"] == ONE
    assert mine["path"] == "/proxy/1/x"
    assert mine["status"] == 200
    for secret in (token, "hunter2", RAW_ONE, stage.key, "secret=1", "q=1"):
        assert secret not in text


async def test_sync_replaces_all(stage: Stage, client: httpx.AsyncClient) -> None:
    """`sync` leaves what it is given and nothing else, also in the running HAProxy."""
    await stage.edge.sync([GatewayEntry(TWO, "127.0.0.12", 1, "open", RAW_TWO)])
    assert list(await stage.runtime.entries()) == [TWO]
    assert (await client.get("/", headers=stage.bearer())).status_code == 404
    assert (await client.get("/", headers=stage.bearer(TWO))).status_code == 200

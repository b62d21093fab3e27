"""Requests of a client that means no good: random, malformed, and nearly right."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from dataclasses import dataclass
from urllib.parse import quote

from tests.agent.isolated import RUNTIME_TOKEN

AUTH = f"Authorization: Bearer {RUNTIME_TOKEN}\r\n"
PATHS = (
    "/", "//", "/.", "/..", "/tmp", "/tmp/", "/tmp/a", "/tmp/a/b", "/tmp/./a/../b", "/root",
    "/root/x",
    "/proc", "/proc/self", "/proc/self/fd", "/proc/1/root", "/proc/self/mem", "/proc/kmsg", "/sys",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/pts/ptmx", "/.bastide", "/.bastide/agent/main.pyc",
    "/etc", "/etc/passwd", "/etc/passwd/x", "/nothing", "/tmp/fifo", "/tmp/loop",
    "/tmp/" + "n" * 255,
    "/tmp/" + "n" * 256, "/" + "d/" * 2000, "relative", "", "\0", "/a\0b", "/tmp/\udcff",
    "/tmp/ü", "~",
    "/tmp/%s%n", "/tmp/\r\nX: y", "C:\\x", "/tmp/*", "/tmp/-rf",
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**400, 1.5, 1e308, "", "0", "true",
    "x", "\0",
    "\ud800", "ü" * 300, "x" * 5000, [], [[]], ["x"], [None], ["\0"], {}, {"a": {}}, "NaN",
    "../..", "0777",
    "-1", "99999999999999999999", "[", "*", "a,b,,c", "(?P<x", "{", "1e3", " ", "\u202e",
)  # fmt: skip
COMMANDS: tuple[object, ...] = (
    ["true"], ["false"], ["echo", "x"], "echo a | cat", ["cat"], ["/bin/sh", "-c",
    "echo $0; exit 3"],
    ["no-such-program"], ["/etc/passwd"], ["/tmp"], "", [], [""], ["\0"], "exit 7", ["echo", "|",
    "cat"],
    ["echo", "x" * 100000], "echo '", ["-c"],
)  # fmt: skip
PARAMETERS = {
    "/files": ("path", "nested", "flatten", "light", "include_hash", "include_content", "max_depth",
               "path_filter", "include_ext", "ignore_patterns", "max_content_budget",
               "use_gitignore"),
    "/files/stream": ("path", "max_depth", "ignore_patterns"),
    "/files/read": ("path", "start_line", "end_line", "with_line_numbers"),
    "/files/stat": ("path",),
    "/files/search": ("q", "path", "regex", "whole_word", "context_lines", "max_results",
                      "file_types", "ignore_patterns", "include_hidden"),
    "/files/search/files": ("q", "path", "max_results", "ignore_patterns"),
    "/exec/stream": ("task_id", "since"),
    "/terminals/1/scrollback": ("bytes",),
    "/health": ("token",), "/runtime": (), "/runtimes": (), "/exec": (), "/terminals": (),
    "/watchers": (), "/watchers/1": (), "/exec/1": (), "/terminals/1": (), "/ws": (),
    "/desktop/status": (), "/openapi.json": (),
}  # fmt: skip
BODIES = {
    ("POST", "/files/write"): ("path", "content", "create_dirs", "append", "mode"),
    ("PUT", "/files/write"): ("path", "content", "mode"),
    ("POST", "/files/mkdir"): ("path", "mode"),
    ("POST", "/files/delete"): ("path",),
    ("DELETE", "/files/delete"): ("path",),
    ("POST", "/files/transfer/download"): ("paths", "exclude_patterns"),
    ("POST", "/exec"): ("cmd", "exec_mode", "timeout_seconds", "ttl_seconds", "keep_logs",
        "stream"),
    ("POST", "/exec/stream"): ("cmd", "exec_mode", "ttl_seconds", "keep_logs"),
    ("POST", "/exec/1/input"): ("x",),
    ("POST", "/terminals"): ("cmd", "cols", "rows", "scrollback_size"),
    ("PATCH", "/terminals/1/scrollback"): ("scrollback_size",),
    ("POST", "/watchers"): ("path", "excludes"),
    ("DELETE", "/exec/2"): (), ("DELETE", "/terminals/2"): (), ("DELETE", "/watchers/2"): (),
    ("POST", "/files/search/init"): (), ("POST", "/nothing"): ("x",), ("PATCH", "/health"): ("x",),
}  # fmt: skip
PREFIXES = ("", "", "", "", "/runtimes/local", "/runtimes/default", "/runtimes/mac", "/runtimes")
PROXIED = ("/proxy", "/proxy/9", "/proxy/9990/health", "/proxy/9989/x", "/proxy/x", "/proxy/99999",
           "/proxy/127.0.0.1:9990/health", "/proxy/[::1]:9", "/proxy/0/",
           "/proxy/9990/proxy/9990/a")  # fmt: skip


@dataclass
class Shot:
    """Bytes to send.

    `then`: `keep` the connection after the answer, end it after the `answer`, or `cut` our side
    as soon as they are sent.
    """

    data: bytes
    then: str


class Hostile:
    """An endless supply, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def shot(self) -> Shot:
        """The next request."""
        kind = self._random.random()
        if kind < 0.35:
            return Shot(self._query(), "keep")
        if kind < 0.72:
            return Shot(self._body(), "keep")
        if kind < 0.80:
            return Shot(self._upload(), "answer")
        if kind < 0.85:
            return Shot(self._proxied(), "answer")
        if kind < 0.90:
            return Shot(self._frames(), "cut")
        return Shot(self._malformed(), "cut")

    def _value(self) -> object:
        pick = self._random
        if pick.random() < 0.3:
            return "".join(chr(pick.choice((pick.randrange(1, 128), pick.randrange(1, 0xD7FF))))
                           for _ in range(pick.randrange(40)))  # fmt: skip
        return pick.choice(VALUES)

    def _path(self) -> str:
        return self._random.choice(PATHS)

    def _for(self, name: str) -> object:
        if name == "path" and self._random.random() < 0.8:
            return self._path()
        if name == "paths" and self._random.random() < 0.8:
            return [self._path() for _ in range(self._random.randrange(4))]
        if name == "cmd":
            return self._random.choice(COMMANDS)
        if name == "q" and self._random.random() < 0.7:
            return self._random.choice(("root", "-rf", "--help", "a.*b", "(", "\\", "x" * 1001))
        if name == "timeout_seconds":
            return self._random.choice((None, 0, 1, 5, -1, "x", 10**10))
        return self._value()

    def _head(self, method: str, target: str, extra: str = "", *, auth: str = AUTH) -> bytes:
        line = f"{method} {target} HTTP/1.1\r\nHost: a\r\n{auth}{extra}\r\n"
        return line.encode("latin-1", "replace")

    def _query(self) -> bytes:
        pick = self._random
        path, names = pick.choice(list(PARAMETERS.items()))
        given = [
            f"{name}={quote(str(self._for(name))[:6000].encode('utf-8', 'surrogatepass'), safe='')}"
            for name in names
            if pick.random() < 0.5 or name in ("path", "q")
        ]
        method = pick.choice(("GET",) * 12 + ("HEAD", "OPTIONS", "PUT", "TRACE", "BREW"))
        target = pick.choice(PREFIXES) + path + ("?" + "&".join(given) if given else "")
        return self._head(method, target)

    def _body(self) -> bytes:
        pick = self._random
        (method, path), names = pick.choice(list(BODIES.items()))
        document: object = {name: self._for(name) for name in names if pick.random() < 0.9}
        if pick.random() < 0.08:
            document = self._value()
        if isinstance(document, dict) and "exec" in path and document.get("cmd") == ["cat"]:
            document.pop("stream", None)  # would wait for input for ever
            path = "/exec" if path == "/exec/stream" else path
        body = json.dumps(document).encode()
        if pick.random() < 0.08:
            body = self._mutated(body)
        extra = "Content-Type: application/json\r\n"
        if pick.random() < 0.15:
            cut = pick.randrange(len(body) + 1)
            parts = [part for part in (body[:cut], body[cut:]) if part]
            chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            return self._head(method, path, extra + "Transfer-Encoding: chunked\r\n") + chunked
        return self._head(method, path, f"{extra}Content-Length: {len(body)}\r\n") + body

    def _mutated(self, data: bytes) -> bytes:
        pick = self._random
        out = bytearray(data)
        for _ in range(pick.randrange(1, 6)):
            place = pick.randrange(len(out) + 1)
            action = pick.randrange(4)
            if action == 0:
                out[place:place] = pick.randbytes(pick.randrange(1, 20))
            elif action == 1:
                del out[place : place + pick.randrange(1, 20)]
            elif action == 2 and place < len(out):
                out[place] ^= 1 << pick.randrange(8)
            else:
                out[place:place] = out[: pick.randrange(50)]
        return bytes(out)

    def _upload(self) -> bytes:
        pick = self._random
        raw = io.BytesIO()
        kind = pick.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        with tarfile.open(fileobj=raw, mode="w", format=kind) as archive:
            for _ in range(pick.randrange(4)):
                info = tarfile.TarInfo(str(self._path()).replace("\0", "")[:200] or "x")
                info.type = pick.choice((b"0", b"0", b"1", b"2", b"3", b"5", b"6", b"S", b"Q"))
                info.linkname = pick.choice(("/etc/passwd", "../..", "x", "/tmp"))
                info.mode, info.mtime = pick.choice((0o644, 0o7777)), pick.choice((0, -5, 2**40))
                info.uid = pick.choice((0, 1000, 2**31))
                data = pick.randbytes(pick.randrange(2000)) if info.isreg() else b""
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        data = raw.getvalue()[: pick.choice((10**6, 10**6, 700))]
        if pick.random() < 0.6:
            head = bytearray(data)
            for _ in range(pick.randrange(1, 8)):
                head[pick.randrange(len(head))] = pick.choice((0, 0x37, 0x80, 0xFF, 0x78, 0x67))
            if pick.random() < 0.8:  # a checksum that fits, so that more than it is tried
                head[148:156] = b"        "
                head[148:156] = b"%06o\0 " % (sum(head[:512]) % 0o1000000)
            data = bytes(head)
        if pick.random() < 0.7:
            data = gzip.compress(data, 1)
            data = self._mutated(data) if pick.random() < 0.4 else data
        dest = quote(
            pick.choice(("/tmp/up", "/tmp/up", "/", "/proc", "/etc/passwd", "x", "/tmp/\0"))
        )
        owner = pick.choice(("", "&preserve_owner=true", "&preserve_owner=maybe"))
        length = f"Content-Length: {len(data)}\r\nConnection: close\r\n"
        return self._head("POST", f"/files/transfer/upload?dest={dest}{owner}", length) + data

    def _proxied(self) -> bytes:
        pick = self._random
        extra = "Connection: close\r\n"
        if pick.random() < 0.4:
            target = pick.choice(
                ("9990", "9", "localhost:9990", "evil:80", "0x7f.1:80", "\t", "[::]:1")
            )
            extra += f"X-Oblien-Proxy-Target: {target}\r\n"
        if pick.random() < 0.2:
            extra = "Connection: upgrade\r\nUpgrade: x\r\n"
        method = pick.choice(("GET", "POST", "DELETE", "OPTIONS", "HEAD"))
        return self._head(method, pick.choice(PROXIED), extra)

    def _frames(self) -> bytes:
        """A handshake and frames, most of them wrong."""
        pick = self._random
        head = self._head("GET", "/ws", (
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: {pick.choice((13, 13, 13, 8))}\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        ))  # fmt: skip
        texts = (
            b'{"channel":"terminal","type":"resize","id":"1","cols":80,"rows":24}', b"{}", b"[",
            b"\xff",
            b'{"type":"resize","id":[],"cols":-1,"rows":1e9}', b'{"type":{"a":' * 2000,
            b"\x01ls\n", b"\xff" * 300,
        )  # fmt: skip
        frames = b""
        for _ in range(pick.randrange(6)):
            payload = pick.choice(texts)
            mask = pick.randbytes(4)
            masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
            first = pick.choice((0x81, 0x82, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A, 0xF1, 0x83))
            size = len(payload)
            length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
            frames += bytes((first,)) + length + mask + masked
        return head + (self._mutated(frames) if pick.random() < 0.3 else frames)

    def _malformed(self) -> bytes:
        pick = self._random
        if pick.random() < 0.2:
            return pick.randbytes(pick.randrange(1, 400))
        if pick.random() < 0.2:
            auth = pick.choice(("", "Authorization: Bearer x\r\n", "Authorization: \xff\r\n",
                                "Authorization: Basic " + "A" * 40000 + "\r\n"))  # fmt: skip
            return self._head("GET", pick.choice(("/health", "/" + "x" * 40000, "*", "http://")),
                              "Connection: close\r\n", auth=auth)  # fmt: skip
        return self._mutated(pick.choice((self._query, self._body, self._proxied))())

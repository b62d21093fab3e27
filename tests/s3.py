"""A real S3 server on loopback, as a process of its own."""

from __future__ import annotations

import http.client
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.ports import free_port

from bastide.depot.s3 import Bucket

DEADLINE = 60.0


@dataclass
class S3Server:
    """A moto server with one bucket. It keeps its objects in memory."""

    directory: Path
    bucket: str = "archives"
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        self.port = free_port()
        with (self.directory / "s3.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + DEADLINE
        while not self._listens():
            assert self.process.poll() is None, (self.directory / "s3.log").read_text()
            assert time.monotonic() < end, "the S3 server does not listen"
            time.sleep(0.05)
        assert self.ask("PUT", f"/{self.bucket}")[0] == 200
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def place(self, prefix: str = "") -> Bucket:
        """How a depot reaches it."""
        return Bucket(
            name=self.bucket,
            prefix=prefix or secrets.token_hex(4),
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id="key",
            secret_access_key="secret",
        )

    def ask(self, method: str, path: str) -> tuple[int, bytes]:
        """One request past the depot."""
        credential = "key/20260101/us-east-1/s3/aws4_request"
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, "
            "SignedHeaders=host, Signature=x"
        }
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            link.request(method, path, headers=headers)
            answer = link.getresponse()
            return answer.status, answer.read()
        finally:
            link.close()

    def uploads(self) -> bytes:
        """The uploads that were begun and neither completed nor aborted."""
        return self.ask("GET", f"/{self.bucket}?uploads")[1]

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

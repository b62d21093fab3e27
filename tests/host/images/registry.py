"""A real registry (Debian's docker-registry) on loopback, for the time of a test."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.ports import free_address

USER, PASSWORD = "builder", "correct horse"


@dataclass
class Registry:
    """One registry: its directory, its address, and its process while it runs."""

    directory: Path
    address: str
    certificate: Path | None = None
    login: bool = False
    tokens: dict[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        """Its URL."""
        return f"{'https' if self.certificate else 'http'}://{self.address}"

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """What a client must trust."""
        return (
            ssl.create_default_context(cafile=str(self.certificate)) if self.certificate else True
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        http: dict[str, object] = {"addr": self.address, "secret": "test"}
        if self.certificate is not None:
            key = self.certificate.with_suffix(".key")
            http["tls"] = {"certificate": str(self.certificate), "key": str(key)}
        content: dict[str, object] = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}},
            "http": http,
        }
        if self.login:
            hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
            (self.directory / "htpasswd").write_text(f"{USER}:{hashed}\n")
            file = str(self.directory / "htpasswd")
            content["auth"] = {"htpasswd": {"realm": "test", "path": file}}
        if self.tokens is not None:
            content["auth"] = {"token": self.tokens}
        config = self.directory / "config.yml"
        config.write_text(json.dumps(content))  # which is YAML, too
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", config], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.base}/v2/", verify=self.verify).status_code in {200, 401}
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def fetched(self, blob: str) -> int:
        """How often a blob was asked for."""
        lines = (self.directory / "log").read_text().splitlines()
        return sum("GET /v2/" in line and f"blobs/{blob} " in line for line in lines)


@contextmanager
def serving(
    directory: Path,
    *,
    tls: bool = False,
    login: bool = False,
    tokens: dict[str, str] | None = None,
) -> Iterator[Registry]:
    """A registry that runs."""
    directory.mkdir()
    certificate = make_certificate(directory) if tls else None
    registry = Registry(directory, free_address(), certificate, login, tokens)
    registry.start()
    try:
        yield registry
    finally:
        registry.kill()


def make_certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry of the tests")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    place = directory / "registry.pem"
    place.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    place.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return place

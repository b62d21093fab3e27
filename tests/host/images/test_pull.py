"""Images from a real registry: what is in them, how often it is fetched, and when it fails."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from tests.host.images.conftest import Bench, MakeBench
from tests.host.images.front import served
from tests.host.images.made import Image, digest, entry, layer, small
from tests.host.images.registry import PASSWORD, USER, Registry, make_certificate, serving
from tests.host.images.tokens import token_service
from tests.host.node.waiting import until

from bastide.domain.machine import ImageOrigin, MachineSpec, RegistryAuth, Resources
from bastide.node.errors import (
    ImageDenied,
    ImageNotFound,
    ImageUnavailable,
    Invalid,
    RegistryUnavailable,
)

pytestmark = pytest.mark.host

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
SPEC = MachineSpec(
    id="ws_00000001", image="x", resources=Resources(cpus=1, memory_mb=128, disk_mb=64)
)


async def test_an_image_is_pulled_by_tag_and_by_digest(
    bench: Bench, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lead to the same image, which is there afterwards; progress is told."""
    monkeypatch.setattr("bastide.node.images.work.MOST_OFTEN", 0)
    made = small(Cmd=["serve"], Env=["A=1", "PATH=/x"], WorkingDir="/srv", User="www:data",
                 ExposedPorts={"80/tcp": {}})  # fmt: skip
    key = made.push(registry.base, "team/app", "v1")
    found = await bench.pull(f"{registry.address}/team/app:v1")
    assert (found.ready, found.origin, found.source) == (True, ImageOrigin.PULL, key)
    assert found.exposed_ports == ("80/tcp",)
    assert (bench.root(found) / "etc/greeting").read_text() == "hello\n"
    assert {"packing", "unpacking layer 1 of 1"} & set(bench.said)
    name = f"{registry.address}/team/app@{key}"
    assert (await bench.pull(name)).digest == found.digest
    assert bench.images.digest(name) == found.digest
    assert registry.fetched(next(iter(made.blobs))) <= 1
    assert bench.left() == set()
    furnished = bench.images.furnish(
        SPEC.model_copy(update={"env": {"A": "2"}}), found.digest or ""
    )
    assert furnished.env == {"A": "2", "PATH": "/x"}
    assert (furnished.cmd, furnished.workdir, furnished.user) == (("serve",), "/srv", "www:data")
    resting = SPEC.model_copy(update={"cmd": ()})  # for the sake of the files alone
    assert bench.images.furnish(resting, found.digest or "").cmd == ()


async def test_only_an_image_with_ports_runs_its_own_command(
    bench: Bench, registry: Registry
) -> None:
    """A system image idles; a command that was given wins over the image's."""
    small("shell\n", Cmd=["bash"]).push(registry.base, "team/shell", "1")
    found = await bench.pull(f"{registry.address}/team/shell:1")
    assert found.command == ("bash",)
    assert bench.images.furnish(SPEC, found.digest or "").cmd is None
    given = SPEC.model_copy(update={"cmd": ("own",)})
    assert bench.images.furnish(given, found.digest or "").cmd == ("own",)


def names(directory: Path) -> set[str]:
    """What is in a directory."""
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("pressed", ["", "gzip", "zstd"])
async def test_layers_of_every_kind(bench: Bench, registry: Registry, pressed: str) -> None:
    """Whiteouts, opaque directories, links, modes, owners, attributes and times arrive."""
    lower = layer(
        [
            entry("etc/"), entry("usr/keep/"), entry("usr/gone/"),
            entry("usr/keep/old", b"old"), entry("usr/gone/a", b"a"), entry("usr/gone/b", b"b"),
            entry("usr/file", b"1"), entry("usr/dir/"), entry("usr/dir/x", b"x"),
            entry("bin", "usr/bin"), entry("usr/bin/"),
            entry("usr/bin/su", b"#!", mode=0o4755),
            entry("usr/bin/ping", b"#!", pax_headers={
                "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
                "SCHILY.xattr.user.note": "grüße", "SCHILY.xattr.trusted.overlay.opaque": "y",
            }),
            entry("srv/", uid=33, gid=34, mode=0o2750), entry("srv/big", b"z", uid=1000080000),
            entry("pipe", type=tarfile.FIFOTYPE, mode=0o600),
            entry("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0),
        ]
    )  # fmt: skip
    upper = layer(
        [
            entry("usr/keep/.wh..wh..opq", b""), entry("usr/keep/new", b"new"),
            entry("usr/gone/.wh.a", b""), entry("usr/dir", b"now a file"),
            entry("usr/.wh.file", b""), entry("usr/hard", type=tarfile.LNKTYPE,
                                              linkname="usr/bin/su"),
            entry("bin/tool", b"through the link", mode=0o755), entry("ünï/cödé", b"u"),
        ]
    )  # fmt: skip
    Image([lower, upper], pressed=pressed).push(registry.base, f"kinds/{pressed or 'none'}", "1")
    found = await bench.pull(f"{registry.address}/kinds/{pressed or 'none'}:1")
    root = bench.root(found)
    assert names(root / "usr/keep") == {"new"}
    assert names(root / "usr/gone") == {"b"}
    assert not (root / "usr/file").exists()
    assert (root / "usr/dir").read_text() == "now a file"
    assert (root / "usr/bin/tool").read_text() == "through the link"
    assert (root / "bin").readlink() == Path("usr/bin")
    su, hard = (root / "usr/bin/su").stat(), (root / "usr/hard").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_ino, su.st_nlink) == (0o4755, hard.st_ino, 2)
    assert os.getxattr(root / "usr/bin/ping", "security.capability") == CAPABILITY
    assert os.getxattr(root / "usr/bin/ping", "user.note").decode() == "grüße"
    assert "trusted.overlay.opaque" not in os.listxattr(root / "usr/bin/ping")
    srv = (root / "srv").stat()
    assert (srv.st_uid, srv.st_gid, stat.S_IMODE(srv.st_mode)) == (33, 34, 0o2750)
    assert (root / "srv/big").stat().st_uid == 65534
    assert (root / "usr/bin/su").stat().st_mtime == 1_000_000_000
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert not (root / "disk").exists()
    assert (root / "ünï/cödé").read_text() == "u"
    assert found.skipped == 2
    for name in ("dev", "proc", "sys", "run", "etc", ".bastide", "tmp"):
        assert (root / name).is_dir()


async def test_one_layer_is_fetched_once_for_all(bench: Bench, registry: Registry) -> None:
    """Pulls at the same time share the work; another image shares the layer."""
    base = layer([entry("base", os.urandom(300_000))])
    first, second = Image([base]), Image([base, layer([entry("more", b"more")])])
    first.push(registry.base, "shared/one", "1")
    second.push(registry.base, "shared/two", "1")
    names = [f"{registry.address}/shared/one:1"] * 5 + [f"{registry.address}/shared/two:1"] * 2
    found = await asyncio.gather(*(bench.pull(name) for name in names))
    assert len({one.digest for one in found}) == 2
    for blob in second.blobs:
        assert registry.fetched(blob) == 1
    assert len(list(bench.images.directory.glob("*.erofs"))) == 2


async def test_a_tag_is_looked_up_each_time(tmp_path: Path, make_bench: MakeBench) -> None:
    """A moved tag is noticed; while the registry is away the last copy serves, as is told."""
    with serving(tmp_path / "moving") as own:
        bench = make_bench(insecure_registries=(own.address,))
        name = f"{own.address}/app:latest"
        small("one").push(own.base, "app", "latest")
        old = await bench.pull(name)
        small("two").push(own.base, "app", "latest")
        new = await bench.pull(f"{own.address}/app")
        assert new.digest != old.digest
        assert bench.images.digest(name) == new.digest
        own.kill()
        again = await bench.pull(name)
        assert again.digest == new.digest
        assert any("is used" in line for line in bench.said)
        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            await bench.pull(f"{own.address}/other:1")


async def test_a_registry_with_tls_and_a_login(tmp_path: Path, make_bench: MakeBench) -> None:
    """Certificates are checked; credentials open it; what they opened is closed to others."""
    with serving(tmp_path / "closed", tls=True, login=True) as closed:
        small("secret").push(
            closed.base, "team/private", "1", auth=(USER, PASSWORD), verify=closed.verify
        )
        named = {"registries": (closed.address,), "insecure_registries": ()}
        name = f"{closed.address}/team/private:1"
        stranger = make_bench(**named)
        with pytest.raises(RegistryUnavailable, match="certificate"):
            await stranger.pull(name)
        bench = make_bench(**named, ca_file=closed.certificate)
        with pytest.raises(ImageDenied, match="image_auth"):
            await bench.pull(name)
        with pytest.raises(ImageDenied, match="these credentials") as told:
            await bench.pull(name, RegistryAuth(username=USER, password="no horse"))
        assert "no horse" not in str(told.value)
        mine = RegistryAuth(username=USER, password=PASSWORD)
        found = await bench.pull(name, mine)
        assert (bench.root(found) / "etc/greeting").read_text() == "secret"
        with pytest.raises(ImageDenied):  # though it is here
            await bench.pull(name)
        with pytest.raises(ImageNotFound, match="team/other"):
            await bench.pull(f"{closed.address}/team/other:1", mine)
        closed.kill()
        with pytest.raises(RegistryUnavailable):
            await bench.pull(name)
        closed.start()
        bench.workshop.logins.keep(closed.address, mine)
        file = tmp_path / bench.settings.state_dir / "registries.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert (await bench.pull(name)).digest == found.digest
        assert PASSWORD not in "".join(bench.said)


async def test_a_registry_that_sends_one_for_a_token(tmp_path: Path, make_bench: MakeBench) -> None:
    """As public registries do: with credentials or without, for each repository anew."""
    certificate = make_certificate(tmp_path)
    with (
        token_service(certificate, (USER, PASSWORD)) as tokens,
        serving(tmp_path / "tokens", tokens=tokens.registry) as registry,
    ):
        for name in ("open/app", "team/app"):
            scope = {"scope": [f"repository:{name}:pull,push"]}
            basic = httpx.BasicAuth(USER, PASSWORD)
            header = next(basic.sync_auth_flow(httpx.Request("GET", "http://x"))).headers
            token = tokens.answer(scope, header["Authorization"])
            bearer = {"Authorization": f"Bearer {token}"}
            small(name).push(registry.base, name, "1", headers=bearer)
        bench = make_bench(insecure_registries=(registry.address, tokens.address))
        tokens.asked.clear()
        found = await bench.pull(f"{registry.address}/open/app:1")
        assert (bench.root(found) / "etc/greeting").read_text() == "open/app"
        assert set(tokens.asked) == {("repository:open/app:pull", None)}
        with pytest.raises(ImageDenied, match="image_auth"):
            await bench.pull(f"{registry.address}/team/app:1")
        wrong, right = (RegistryAuth(username=USER, password=text) for text in ("no", PASSWORD))
        with pytest.raises(ImageDenied, match="these credentials"):
            await bench.pull(f"{registry.address}/team/app:1", wrong)
        assert (await bench.pull(f"{registry.address}/team/app:1", right)).ready
        # the place of the login is a stranger's choice, too
        elsewhere = make_bench(insecure_registries=(registry.address,))
        with pytest.raises(ImageDenied, match="without TLS"):
            await elsewhere.pull(f"{registry.address}/open/app:1")


@contextmanager
def elsewhere(target: str, seen: list[tuple[str, str | None]]) -> Iterator[str]:
    """A registry's front that sends everybody to `target` for layers, as those with a CDN do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            if self.headers.get("Authorization") is None:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="front"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if "/blobs/" in self.path:
                self.send_response(307)
                self.send_header("Location", f"http://{target}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            accept = {"Accept": self.headers.get("Accept", "")}
            answer = httpx.get(f"http://{target}{self.path}", headers=accept, timeout=60)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    with served(Handler) as address:
        yield address


async def test_layers_that_are_elsewhere(registry: Registry, make_bench: MakeBench) -> None:
    """A redirect is followed without the credentials, and only to where one may go."""
    small("far").push(registry.base, "far/app", "1")
    seen: list[tuple[str, str | None]] = []
    auth = RegistryAuth(username=USER, password=PASSWORD)
    with elsewhere(registry.address, seen) as front:
        closed = make_bench(insecure_registries=(front,))
        with pytest.raises(ImageDenied, match="without TLS"):
            await closed.pull(f"{front}/far/app:1", auth)
        bench = make_bench(insecure_registries=(front, registry.address))
        found = await bench.pull(f"{front}/far/app:1", auth)
    assert (bench.root(found) / "etc/greeting").read_text() == "far"
    assert any(header for _, header in seen)
    log = (registry.directory / "log").read_text()
    assert "blobs" in log
    assert "Basic" not in log


async def test_what_does_not_exist_is_told(bench: Bench, registry: Registry) -> None:
    """An unknown image, a wrong reference, and registries that may not be asked."""
    with pytest.raises(ImageNotFound, match="no such image"):
        await bench.pull(f"{registry.address}/team/nothing:1")
    with pytest.raises(Invalid, match="no image"):
        await bench.pull(f"{registry.address}/Upper/Case")
    with pytest.raises(ImageDenied, match=r"images\.registries"):
        await bench.pull("registry.example/team/app:1")
    with pytest.raises(ImageUnavailable, match="not on this host"):
        bench.images.digest(f"{registry.address}/team/nothing:1")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:22", "169.254.169.254", "[::1]"])
async def test_no_registry_is_inside_the_server(make_bench: MakeBench, host: str) -> None:
    """Addresses that only the server reaches are refused before anything is sent there."""
    bench = make_bench(registries=("*",), insecure_registries=())
    with pytest.raises((ImageDenied, Invalid)):
        await bench.pull(f"{host}/team/app:1")


class Relay:
    """A way to a registry that is cut for good after `most` bytes of answers."""

    def __init__(self, target: str, most: int) -> None:
        host, port = target.split(":")
        self._target = (host, int(port))
        self._left = most
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def cut(self) -> bool:
        """Whether it is over."""
        return self._left < 0

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._server.accept()
                if self.cut:
                    taken.close()
                    continue
                onward = socket.create_connection(self._target)
                for args in ((taken, onward, False), (onward, taken, True)):
                    threading.Thread(target=self._pump, args=args, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(65536):
                self._left -= len(data) if counted else 0
                if self.cut:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


async def test_a_registry_that_goes_away_in_the_middle(
    registry: Registry, make_bench: MakeBench
) -> None:
    """Everybody who waits is told, nothing is half-made, and the next try goes on from there."""
    big = os.urandom(6_000_000)
    made = Image([layer([entry("big", big)])], pressed="")
    made.push(registry.base, "team/big", "1")
    relay = Relay(registry.address, 3_000_000)
    bench = make_bench(insecure_registries=(relay.address, registry.address))
    outcomes = await asyncio.gather(
        *(bench.pull(f"{relay.address}/team/big:1") for _ in range(3)), return_exceptions=True
    )
    relay.close()
    assert relay.cut
    for outcome in outcomes:
        assert isinstance(outcome, RegistryUnavailable), outcome
    made_here = names(bench.images.directory)
    assert not any(name.endswith((".erofs", ".json")) for name in made_here)
    part = next(name for name in bench.left() if name.endswith(".part"))
    have = (bench.workshop.blobs.directory / part).stat().st_size
    assert 0 < have < 3_000_000
    found = await bench.pull(f"{registry.address}/team/big:1")
    assert (bench.root(found) / "big").read_bytes() == big
    blob = digest(made.layers[0])
    assert part.removesuffix(".part") == blob[7:]
    assert bench.left() == set()


async def test_a_pull_nobody_waits_for_ends(registry: Registry, make_bench: MakeBench) -> None:
    """The work ends with the last who waits for it, and can be begun anew."""
    bench = make_bench()
    small("left alone").push(registry.base, "team/left", "1")
    name = f"{registry.address}/team/left:1"
    pull = asyncio.ensure_future(bench.pull(name))
    await until(lambda: bench.workshop.busy)
    pull.cancel()
    await asyncio.gather(pull, return_exceptions=True)
    await until(lambda: not bench.workshop.busy and not bench.left())
    assert (await bench.pull(name)).ready

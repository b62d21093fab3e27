"""A creation that fails for real leaves its record with the error and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.cloud.batch import Batch, codes
from tests.cloud.cloud import Cloud
from tests.host.leaks import traces

from bastide.client import ApiError, Bastide

pytestmark = pytest.mark.cloud

BUSYBOX = Path("/bin/busybox")
Breakage = Callable[[Cloud, Path], AbstractContextManager[None]]


@contextmanager
def swapped(link: Path, target: Path) -> Iterator[None]:
    """A link that leads elsewhere for a while."""
    former = link.readlink()
    draft = link.with_name(f".{link.name}")
    try:
        draft.symlink_to(target)
        draft.replace(link)
        yield
    finally:
        draft.unlink(missing_ok=True)
        draft.symlink_to(former)
        draft.replace(link)


@contextmanager
def process_one(cloud: Cloud, place: Path, script: str) -> Iterator[None]:
    """Machines boot a shell script in place of the agent."""
    programs = place / "test" / "bin"
    programs.mkdir(parents=True)
    shutil.copy2(BUSYBOX, programs / "busybox")
    (programs / "tini").write_text(f"#!/.bastide/bin/busybox sh\n{script}\n")
    (programs / "tini").chmod(0o755)
    (place / "current").symlink_to("test")
    with swapped(cloud.settings.state_dir / "bundle", place):
        yield


@contextmanager
def no_room(cloud: Cloud, place: Path) -> Iterator[None]:
    """The host has 16 MiB left for disks."""
    disks = cloud.disks
    disks.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", disks], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", disks], check=True)


@contextmanager
def broken_runtime(cloud: Cloud, place: Path) -> Iterator[None]:
    """The container runtime of the host does not work."""
    runtime = cloud.settings.state_dir / "runtime"
    shutil.copytree(runtime.resolve(), place / "runtime", symlinks=True)
    for program in (place / "runtime").rglob("runc"):
        if program.is_file():
            program.write_text("#!/bin/sh\necho 'the runtime is broken' >&2\nexit 70\n")
            program.chmod(0o755)
    with swapped(runtime, place / "runtime"):
        yield


BREAKAGES: dict[str, tuple[Breakage, str]] = {
    "process 1 ends": (lambda cloud, place: process_one(cloud, place, "exit 3"), "ended"),
    "process 1 says no": (
        lambda cloud, place: process_one(cloud, place, "echo '\x1b[31mno such luck'; exit 1"),
        "no such luck",
    ),
    "process 1 floods": (
        lambda cloud, place: process_one(cloud, place, "/.bastide/bin/busybox yes"),
        "without becoming ready",
    ),
    "no room for disks": (no_room, "free"),
    "no working runtime": (broken_runtime, ""),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_creation_that_fails(cloud: Cloud, client: Bastide, name: str) -> None:
    """It says why, holds nothing on the host, can be retried to success, and be deleted."""
    if not (cloud.settings.state_dir / "bundle").is_symlink():
        pytest.skip("only a cloud of the tests' own is broken on purpose")
    breakage, said = BREAKAGES[name]
    place = cloud.settings.state_dir.parent / f"broken-{list(BREAKAGES).index(name)}"
    place.mkdir(mode=0o711)
    before = traces(cloud.settings)
    batch = Batch(client, 2)
    try:
        with breakage(cloud, place):
            batch.create(accepted=1)
            settled = batch.settled()
            for found in settled.values():
                assert found.state == "failed"
                assert found.status == "error"
                assert found.provisioning is not None
                assert found.provisioning.error is not None
                message = found.provisioning.error.message
                assert said in message
                assert "\x1b" not in message
                assert "Traceback" not in message
            with pytest.raises(ApiError) as refused:
                client.workspaces.start(batch.ids[0])
            assert refused.value.status == 409
            left = {kind: now - before[kind] for kind, now in traces(cloud.settings).items()}
            assert not any(left.values()), left
            deleted = batch.ids.pop()
            client.workspaces.delete(deleted)
        batch.retry(batch.ids[0])
        assert {found.state for found in batch.settled().values()} == {"ready"}
        assert codes(batch.exec("true")) == {0}
    finally:
        batch.delete()
        shutil.rmtree(place)
    left = {kind: now - before[kind] for kind, now in traces(cloud.settings).items()}
    assert not any(left.values()), left


@pytest.mark.parametrize(
    "image", ["no-such-image", "example.com/debian:12", "../../etc", "http://x/"]
)
def test_an_unknown_image_is_refused_at_once(client: Bastide, image: str) -> None:
    """4xx with the field's name, and no record."""
    before = {one.id for one in client.workspaces.list()}
    with pytest.raises(ApiError) as refused:
        client.workspaces.create(image)
    assert 400 <= refused.value.status < 500
    assert {one.id for one in client.workspaces.list()} <= before

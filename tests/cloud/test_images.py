"""Workspaces of images from a real registry, and the images of the server itself."""

from __future__ import annotations

import json
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.cloud import RUNNING, Cloud
from tests.cloud.processes import kill, until_whole
from tests.cloud.test_vendor_client import run_session
from tests.host.images.made import Image, entry, layer
from tests.host.images.registry import PASSWORD, USER, Registry

from bastide.client import Bastide, ProvisioningFailed, Runtime

pytestmark = [
    pytest.mark.cloud,
    pytest.mark.skipif(
        os.environ.get(RUNNING) == "1", reason="the running cloud may ask no registry of tests"
    ),
]

BUSYBOX = Path("/bin/busybox").read_bytes()
SERVE = "echo $(id -u):$(id -g) $(pwd) $HOME $GREETING > /srv/seen; exec httpd -f -p 8080 -h /srv"


def system(*more: tuple[tarfile.TarInfo, bytes], **config: object) -> Image:
    """A tiny system with a user named web, and what comes on top."""
    lower = layer(
        [
            entry("bin/"), entry("etc/"), entry("tmp/", mode=0o1777), entry("root/", mode=0o700),
            entry("bin/busybox", BUSYBOX, mode=0o755),
            *(entry(f"bin/{name}", "busybox") for name in
              ("sh", "id", "cat", "echo", "pwd", "httpd", "sleep", "ls", "env")),
            entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n"),
            entry("etc/group", b"root:x:0:\nweb:x:102:\n"), entry("old/"), entry("old/file", b"x"),
        ]
    )  # fmt: skip
    upper = [entry("old/.wh.file", b""), entry("srv/", uid=101, gid=102, mode=0o755), *more]
    return Image([lower, layer(upper)], dict(config))


@pytest.fixture(scope="module")
def registry(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The one registry the cloud may ask."""
    directory = tmp_path_factory.mktemp("registry")
    running = Registry(directory, cloud.settings.images.insecure_registries[0], login=True)
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def auth() -> dict[str, str]:
    """What opens it."""
    return {"username": USER, "password": PASSWORD}


def push(registry: Registry, auth: dict[str, str], image: Image, name: str) -> str:
    """Push an image; its reference."""
    repository, _, tag = name.partition(":")
    image.push(registry.base, repository, tag, auth=(auth["username"], auth["password"]))
    return f"{registry.address}/{name}"


def said(runtime: Runtime) -> str:
    """What the main command has written, once it has; it begins when the workspace is ready."""
    deadline = time.monotonic() + 60
    while True:
        done = runtime.exec.run(["cat", "/srv/seen"])
        if done.exit_code == 0 and done.stdout.endswith("\n"):
            return done.stdout
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)


def log_in(cloud: Cloud, registry: Registry, auth: dict[str, str]) -> None:
    """Give the server itself the credentials."""
    cloud.run(
        "image", "login", registry.address, "-u", auth["username"], "--password-stdin",
        text=auth["password"] + "\n",
    )  # fmt: skip


def until_removed(cloud: Cloud, image: str) -> None:
    """Remove an image once the last workspace of it is gone, which takes a moment."""
    deadline = time.monotonic() + 60
    while True:
        done = cloud.run("image", "remove", image, "--yes", check=False)
        if done.returncode == 0:
            assert done.stdout.startswith(f"removed: {image}")
            return
        assert "is used by" in done.stderr, done.stderr
        assert time.monotonic() < deadline, done.stderr


def test_a_service_image_runs_as_it_says(
    cloud: Cloud, client: Bastide, registry: Registry, auth: dict[str, str]
) -> None:
    """Command, user, directory and environment are those of the image; the files, too."""
    image = system(
        Entrypoint=["sh", "-c"], Cmd=[SERVE], User="web", WorkingDir="/srv",
        Env=["GREETING=from the image", "PATH=/bin"], ExposedPorts={"8080/tcp": {}},
    )  # fmt: skip
    reference = push(registry, auth, image, "team/web:1")
    made = client.workspaces.create(
        reference, image_auth=auth, memory_mb=128, disk_size_mb=128, config={"restart_policy": "no"}
    )
    try:
        assert made.image == reference
        runtime = client.workspaces.runtime(made.id)
        seen = said(runtime)
        assert seen == "101:102 /srv /home/web from the image\n"
        assert runtime.exec.run(["sh", "-c", "id -u; pwd; ls /old"]).check().stdout == "0\n/srv\n"
        told = cloud.run("workspace", "get", made.id, "--json").stdout
        assert auth["password"] not in told
        everywhere = cloud.run("image", "list", "--all", "--json").stdout
        mine = next(one for one in json.loads(everywhere) if reference in one["names"])
        assert (mine["used"], mine["exposed_ports"]) == (True, ["8080/tcp"])
        assert reference not in cloud.run("image", "list", "--json").stdout
        refused = cloud.run("image", "remove", reference, "--yes", check=False)
        assert refused.returncode == 1
        assert "is used by" in refused.stderr
        # A start asks nobody: the registry may be gone.
        client.workspaces.stop(made.id)
        registry.kill()
        client.workspaces.start(made.id)
        assert said(runtime) == seen
    finally:
        if registry.process is None:
            registry.start()
        client.workspaces.delete(made.id)
    until_removed(cloud, reference)


def test_an_image_is_fetched_before_anybody_waits_for_it(
    cloud: Cloud, registry: Registry, auth: dict[str, str]
) -> None:
    """`image pull` tells how far it is and what it has; a refusal ends it with the reason."""
    motto = entry("etc/motto", b"fetched before\n")
    reference = push(registry, auth, system(motto), "team/early:1")
    refused = cloud.run("image", "pull", reference, check=False)
    assert refused.returncode == 1
    assert registry.address in refused.stderr
    as_user = ("-u", auth["username"], "--password-stdin")
    password = auth["password"] + "\n"
    try:
        pulled = cloud.run("image", "pull", reference, *as_user, text=password)
        assert pulled.stdout == f"{reference}\n"
        assert f"asking {registry.address}" in pulled.stderr
        again = cloud.run("image", "pull", reference, *as_user, "--json", text=password)
        assert (json.loads(again.stdout)["ready"], again.stderr) == (True, "")
    finally:
        until_removed(cloud, reference)


def test_a_workspace_that_cannot_have_its_image_says_why(
    cloud: Cloud, client: Bastide, registry: Registry, auth: dict[str, str]
) -> None:
    """The error names the cause; with the server logged in, the same creation succeeds."""
    reference = push(registry, auth, system(), "team/idle:1")
    with pytest.raises(ProvisioningFailed, match="image_auth"):
        client.workspaces.create(reference, name="closed")
    failed = next(one for one in client.workspaces.list() if one.name == "closed")
    try:
        assert failed.provisioning is not None
        assert failed.provisioning.error is not None
        assert failed.provisioning.error.code == "image_denied"
        log_in(cloud, registry, auth)
        path = f"/workspace/{failed.id}/provisioning/retry"
        assert client.workspaces._api._http.post(path).is_success
        ready = client.workspaces.wait_ready(failed.id)
        assert ready.image == reference
        assert client.workspaces.runtime(failed.id).exec.run(["id", "-u"]).check().stdout == "0\n"
    finally:
        cloud.run("image", "logout", registry.address)
        client.workspaces.delete(failed.id)
    until_removed(cloud, reference)
    assert cloud.run("image", "gc").stdout.startswith("removed: ")


def test_a_creation_outlives_the_node_and_the_api(
    cloud: Cloud, client: Bastide, registry: Registry, auth: dict[str, str]
) -> None:
    """Both are killed while the registry keeps them waiting; then it answers, and all is well."""
    reference = push(registry, auth, system(), "team/patient:1")
    registry.kill()
    host, port = registry.address.split(":")
    with socket.create_server((host, int(port))) as silent:  # takes calls and says nothing
        made = client.workspaces.create(
            reference, image_auth=auth, memory_mb=128, disk_size_mb=64, wait=False
        )
        silent.settimeout(60)
        silent.accept()[0].close()  # the node has asked once, and will ask again
        asked, _ = silent.accept()
        until_whole(cloud, kill(cloud, ["node", "api"]))
        asked.close()
    registry.start()
    try:
        assert client.workspaces.wait_ready(made.id, timeout=120).ready
    finally:
        client.workspaces.delete(made.id)
    until_removed(cloud, reference)


def test_the_vendor_client_and_images(
    cloud: Cloud, registry: Registry, auth: dict[str, str]
) -> None:
    """Its users search the catalogue, and make workspaces of references."""
    motto = entry("etc/motto", b"from the registry\n")
    reference = push(registry, auth, system(motto), "team/motto:1")
    log_in(cloud, registry, auth)
    try:
        run_session(cloud, "images.mjs", OBLIEN_TEST_IMAGE=reference)
    finally:
        cloud.run("image", "logout", registry.address)
    until_removed(cloud, reference)


def test_an_imported_image_is_in_the_catalogue(
    cloud: Cloud, client: Bastide, tmp_path: Path
) -> None:
    """An archive becomes an image by its own name, for every client."""
    archive = tmp_path / "mine.tar"
    name = f"mine-{os.getpid()}"
    archive.write_bytes(system(entry("etc/motto", b"mine")).archive)
    assert cloud.run("image", "import", str(archive), "--name", name).stdout == f"{name}\n"
    try:
        deadline = time.monotonic() + 60
        while [one.id for one in client.images.list(search=name)] != [name]:
            assert time.monotonic() < deadline, "it is not in the catalogue"
            time.sleep(0.1)
        made = client.workspaces.create(name, memory_mb=128, disk_size_mb=64)
        runtime = client.workspaces.runtime(made.id)
        assert runtime.exec.run(["cat", "/etc/motto"]).check().stdout == "mine"
        client.workspaces.delete(made.id)
    finally:
        until_removed(cloud, name)

"""SSH: what the API tells, and that machine, firewall and bastion hear of every change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bcrypt
import pytest
from tests.api.workspaces.cloud import Cloud

from bastide.domain.ssh import password_proof
from bastide.gateway.keys import password_key


@pytest.fixture
def public_key(tmp_path: Path) -> str:
    """A fresh public key, as OpenSSH writes it."""
    path = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f", str(path)],
        check=True,
    )
    return path.with_suffix(".pub").read_text()


async def test_enable_tells_everyone(cloud: Cloud) -> None:
    """Enable starts the server, opens the firewall and the bastion, and shows a password once."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/ssh"
    status = await cloud.call("GET", path)
    assert (status["ssh_enabled"], status["ssh_id"], status["connection"]) == (False, None, None)
    machine = cloud.engine.machines[found["id"]]
    before = machine.policy
    assert not before.ssh
    enabled = await cloud.call("POST", f"{path}/enable")
    ssh_id, password = enabled["ssh_id"], enabled["ssh_password"]
    bastion = cloud.services.settings.listen.ssh
    connection = dict(enabled["connection"])
    assert connection.pop("bastion_host_key") is None
    assert connection == {
        "user": "root",
        "host": ssh_id,
        "bastion": bastion,
        "command": f"ssh root@{ssh_id} -J root@{bastion}",
        "scp_upload": f"scp -J root@{bastion} file.txt root@{ssh_id}:/path/",
        "scp_download": f"scp -J root@{bastion} root@{ssh_id}:/path/file.txt .",
    }
    assert machine.policy.ssh
    told = cloud.agent.ssh[found["id"]]
    assert told.enabled
    assert told.password_hash is not None
    assert told.host_key is not None
    assert bcrypt.checkpw(password.encode(), told.password_hash.encode())
    door = cloud.world.bastion.doors[found["id"]]
    assert (door.ssh_id, str(door.address)) == (ssh_id, machine.status.address)
    assert door.password == password_proof(password, password_key(cloud.services.settings))
    status = await cloud.call("GET", path)
    assert "ssh_password" not in status
    assert password not in str(status)
    assert told.host_key not in str(status)
    assert status["host_key"]["fingerprint"].startswith("SHA256:")
    assert (status["ssh_password_changed"], status["ssh_key_set"]) == (False, False)
    details = await cloud.call("GET", f"/workspace/{found['id']}/details")
    assert details["ssh"] == {name: value for name, value in status.items() if name != "success"}


async def test_disable_closes_everything_and_keeps_the_rest(cloud: Cloud) -> None:
    """Disabled: no door, no port, no server; enabled again: same name and host key."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/ssh"
    first = await cloud.call("POST", f"{path}/enable")
    disabled = await cloud.call("POST", f"{path}/disable")
    assert (disabled["ssh_enabled"], disabled["connection"]) == (False, None)
    assert not cloud.engine.machines[found["id"]].policy.ssh
    assert not cloud.agent.ssh[found["id"]].enabled
    assert found["id"] not in cloud.world.bastion.doors
    again = await cloud.call("POST", f"{path}/enable")
    assert again["ssh_id"] == first["ssh_id"]
    assert again["host_key"] == first["host_key"]
    assert again["ssh_password"] != first["ssh_password"]


async def test_the_owners_password_stays(cloud: Cloud) -> None:
    """A password the owner chose is kept by enable, and never shown."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/ssh"
    changed = await cloud.call("POST", f"{path}/password", {"password": "correct horse"})
    assert changed["ssh_password_changed"]
    enabled = await cloud.call("POST", f"{path}/enable")
    assert "ssh_password" not in enabled
    kept = cloud.agent.ssh[found["id"]].password_hash
    assert kept is not None
    assert bcrypt.checkpw(b"correct horse", kept.encode())


async def test_keys_are_listed_and_removable(cloud: Cloud, public_key: str) -> None:
    """Keys add up, the same one once; a removed one opens neither machine nor bastion."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/ssh"
    await cloud.call("POST", f"{path}/enable")
    added = await cloud.call("POST", f"{path}/key", {"public_key": public_key, "user": "root"})
    assert added["ssh_key_set"]
    again = await cloud.call("POST", f"{path}/keys", {"public_key": public_key}, status=201)
    assert again["key"] == added["key"]
    (listed,) = (await cloud.call("GET", f"{path}/keys"))["keys"]
    assert listed["comment"] == "me@home"
    assert cloud.agent.ssh[found["id"]].keys == (public_key.strip(),)
    assert cloud.world.bastion.doors[found["id"]].keys == (listed["fingerprint"],)
    gone = await cloud.call("DELETE", f"{path}/keys/{listed['fingerprint']}")
    assert gone["keys"] == []
    assert cloud.agent.ssh[found["id"]].keys == ()
    assert cloud.world.bastion.doors[found["id"]].keys == ()
    await cloud.call("DELETE", f"{path}/keys/{listed['fingerprint']}", status=404)


async def test_at_creation(cloud: Cloud) -> None:
    """`config.ssh_access` boots with the server on and nobody let in yet; enable then lets in."""
    found = await cloud.create(config={"ssh_access": True})
    assert found["config"]["ssh_access"] is True
    booted = cloud.engine.machines[found["id"]].spec
    assert booted.ssh.enabled
    assert booted.network.ssh
    assert (booted.ssh.password_hash, booted.ssh.keys) == (None, ())
    assert (await cloud.call("POST", f"/workspace/{found['id']}/ssh/enable"))["ssh_password"]
    body = {"config": {"ssh_access": False}}
    refused = await cloud.call("PUT", f"/workspace/{found['id']}", body, status=422)
    assert refused["details"]["field"] == "config.ssh_access"


async def test_a_restart_keeps_host_key_and_access(cloud: Cloud, public_key: str) -> None:
    """The next boot is told the same; a deleted workspace has no door and no key left."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/ssh"
    await cloud.call("POST", f"{path}/enable")
    await cloud.call("POST", f"{path}/key", {"public_key": public_key})
    told = cloud.agent.ssh[found["id"]]
    await cloud.call("POST", f"/workspace/{found['id']}/stop")
    assert cloud.world.bastion.doors[found["id"]].address is None
    await cloud.call("POST", f"/workspace/{found['id']}/start")
    assert cloud.engine.machines[found["id"]].spec.ssh == told
    assert cloud.world.bastion.doors[found["id"]].address is not None
    await cloud.call("DELETE", f"/workspace/{found['id']}")
    await cloud.gone(found["id"])
    assert found["id"] not in cloud.world.bastion.doors


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("password", {"password": "short"}, "password"),
        ("password", {"password": "x" * 80}, "password"),
        ("password", {"password": "with\nnew line"}, "password"),
        ("password", {"password": "good enough", "user": "admin"}, "user"),
        ("key", {"public_key": "ssh-ed25519 AAAA"}, "public_key"),
        ("key", {"public_key": "command=x ssh-ed25519 AAAA"}, "public_key"),
        ("key", {"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "public_key"),
        ("key", {}, "public_key"),
    ],
)
async def test_wrong_fields_are_named(
    cloud: Cloud, endpoint: str, body: dict[str, str], field: str
) -> None:
    """What cannot be used is refused in words, and changes nothing."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/ssh"
    refused = await cloud.call("POST", f"{path}/{endpoint}", body, status=422)
    assert refused["details"]["field"] == field
    assert (await cloud.call("GET", path))["ssh_id"] is None


async def test_what_the_machine_missed_is_made_up_for(cloud: Cloud) -> None:
    """A silent agent is 503; what was asked is stored, marked, and put in force later."""
    found = await cloud.create()
    cloud.agent.down = True
    path = f"/workspace/{found['id']}/ssh"
    assert (await cloud.call("POST", f"{path}/enable", status=503))["code"] == "VM_UNAVAILABLE"
    assert (await cloud.call("GET", path))["ssh_enabled"]
    cloud.agent.down = False
    await cloud.call("POST", f"/workspace/{found['id']}/runtime-api-access/reconnect")
    assert cloud.agent.ssh[found["id"]].enabled

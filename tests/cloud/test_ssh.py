"""SSH into workspaces of a running cloud, by OpenSSH's own clients."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cloud import images
from tests.cloud.cloud import Cloud
from tests.cloud.openssh import DEADLINE, Me, Way, asking, run
from tests.cloud.sessions import (
    agent_of,
    ask,
    end,
    line,
    read_until,
    resize,
)
from tests.ports import free_port

from bastide.client import Bastide, NotFoundError, SshStatus, Workspace

pytestmark = pytest.mark.cloud

ALL = ("debian-12", images.ALPINE_LIKE, images.SINGLE)


@dataclass(frozen=True)
class Place:
    """A workspace with SSH enabled, its owner's way in, and its one-time password."""

    id: str
    status: SshStatus
    way: Way
    password: str


@pytest.fixture(scope="module")
def clouds_client(cloud: Cloud) -> Iterator[Bastide]:
    with cloud.client() as found:
        yield found


@pytest.fixture(scope="module")
def me(tmp_path_factory: pytest.TempPathFactory) -> Me:
    return Me.at(tmp_path_factory.mktemp("me"))


@pytest.fixture(scope="module")
def places(cloud: Cloud, clouds_client: Bastide, me: Me) -> Iterator[dict[str, Place]]:
    """One workspace of each image, all open to the same key."""
    made: dict[str, Place] = {}
    try:
        for image in ALL:
            if image != "debian-12":
                images.ensure(image, cloud.settings.state_dir)
            workspace = clouds_client.workspaces.create(
                image, memory_mb=256, disk_size_mb=128, env={"GREETING": 'he said "hi" \\o/ # $1'}
            )
            made[image] = place(clouds_client, workspace, me)
        yield made
    finally:
        for each in made.values():
            clouds_client.workspaces.delete(each.id)


@pytest.fixture
def debian(places: dict[str, Place]) -> Place:
    return places["debian-12"]


@pytest.fixture
def fresh(make_workspace: Callable[..., Workspace], client: Bastide, me: Me) -> Callable[[], Place]:
    """Makes places that a test may spoil."""
    return lambda: place(client, make_workspace(memory_mb=128, disk_size_mb=64), me)


def place(client: Bastide, workspace: Workspace, me: Me) -> Place:
    status = client.workspaces.ssh.enable(workspace.id)
    assert status.ssh_password
    client.workspaces.ssh.add_key(workspace.id, me.public)
    return Place(workspace.id, status, Way.of(me, status), status.ssh_password)


@pytest.mark.parametrize("image", ["debian-12", images.ALPINE_LIKE])
def test_a_shell_as_people_know_it(places: dict[str, Place], image: str) -> None:
    """The printed command: environment, exit codes, streams apart, standard input to its end."""
    way = places[image].way
    done = way.ssh('echo "$GREETING"; echo problem >&2; cat; exit 7', text="typed\n")
    assert (done.code, done.out) == (7, 'he said "hi" \\o/ # $1\ntyped\n')
    assert "problem" in done.err
    assert way.ssh("kill -9 $$").code == 255
    assert way.ssh("id -u; pwd").out.split() == ["0", "/root"]
    script = "set -e\nmkdir -p /root/.server\necho ready > /root/.server/a\ncat /root/.server/a\n"
    assert way.ssh("sh", "-s", text=script).out == "ready\n"


def test_an_image_without_a_shell(places: dict[str, Place]) -> None:
    """A program can be started, a login is told why there is none, sftp and rsync work."""
    way = places[images.SINGLE].way
    assert way.ssh("/busybox", "echo", "'two words'").out == "two words\n"
    refused = way.ssh()
    assert refused.code == 127
    assert "no shell" in refused.err
    assert way.ssh("/absent").code == 127
    assert "no shell" in way.ssh("echo a | cat").err


@pytest.mark.parametrize("image", ALL)
def test_files_both_ways(places: dict[str, Place], tmp_path: Path, image: str) -> None:
    """Scp as it is now and as it was, sftp and rsync carry files there and back, in any image."""
    way, data = places[image].way, os.urandom(300_000)
    room = "" if image == images.SINGLE else "/root"  # that image has no such directory
    source, back = tmp_path / "a b.bin", tmp_path / "back.bin"
    source.write_bytes(data)
    for options in ((), ("-O",)):
        there = f"{way.target}:{room}/scp{len(options)}"
        sent = run([*way.argv("scp", "-q", *options), str(source), there])
        assert sent.code == 0, sent.err
        got = run([*way.argv("scp", "-q", *options), there, str(back)])
        assert got.code == 0, got.err
        assert back.read_bytes() == data
        back.unlink()
    batch = f'put "{source}" {room}/a\nrename {room}/a {room}/b\nget {room}/b "{back}"\n'
    done = run([*way.argv("sftp", "-b", "-"), way.target], text=batch)
    assert done.code == 0, done.err
    assert back.read_bytes() == data
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(data)
    (tree / "link").symlink_to("sub/file")
    for origin, target in ((f"{tree}/", f"{way.target}:{room}/tree/"),
                           (f"{way.target}:{room}/tree/", f"{tmp_path}/again/")):  # fmt: skip
        done = run(["rsync", "-a", "-e", way.shell_word, origin, target])
        assert done.code == 0, done.err
    assert (tmp_path / "again/sub/file").read_bytes() == data
    assert (tmp_path / "again/link").is_symlink()


def test_passwords(places: dict[str, Place], me: Me, tmp_path: Path, client: Bastide) -> None:
    """The one-time password opens bastion and workspace; a changed one replaces it."""
    for image in ("debian-12", images.ALPINE_LIKE):
        one = places[image]
        options = ("-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1")
        argv = [*one.way.argv("ssh", *options), one.way.target, "echo in"]
        assert run(jump_too(argv, me), environment=asking(one.password, tmp_path)).out == "in\n"
    one = places["debian-12"]
    client.workspaces.ssh.set_password(one.id, "my own password")
    argv = [*one.way.argv("ssh", "-o", "PubkeyAuthentication=no"), one.way.target, "echo in"]
    asked = asking("my own password", tmp_path)
    assert run(jump_too(argv, me), environment=asked).out == "in\n"
    # sshpass types one password into one ssh: the workspace's, behind a jump by key.
    by_key = ["-o", f"ProxyCommand={jump_command(one.way)}", "-o", "PubkeyAuthentication=no"]
    typed = ["sshpass", "-p", "my own password", "ssh", "-F", str(me.config), *by_key]
    assert run([*typed, one.way.target, "echo typed"]).out == "typed\n"


def jump_too(argv: list[str], me: Me) -> list[str]:
    """Without any key, also for the jump, which has only the settings of the file."""
    config = me.home / ".ssh" / "no_key"
    config.write_text(me.config.read_text() + "  PubkeyAuthentication no\n")
    return [str(config) if word == str(me.config) else word for word in argv]


def jump_command(way: Way) -> str:
    host, _, port = way.jump.rpartition(":")
    return f"ssh -F {way.me.config} -o BatchMode=yes -p {port} -W [%h]:%p {host}"


def test_forwarding(debian: Place) -> None:
    """-L, -R and -D carry connections, from here and from inside."""
    serve = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True)\n"
        "while True: c, _ = s.accept(); c.sendall(b'inside ' + c.recv(99)); c.close()"
    )
    server = debian.way.start(command=("python3", "-c", f'"{serve}"'))
    here = socket.create_server(("127.0.0.1", 0))
    try:
        port = int(line(server))
        local, proxy = free_port(), free_port()
        options = (
            *("-o", "ExitOnForwardFailure=yes"), "-L", f"{local}:localhost:{port}",
            "-R", f"7777:127.0.0.1:{here.getsockname()[1]}", "-D", str(proxy),
        )  # fmt: skip
        tunnel = debian.way.start(*options, command=("echo up; cat",))
        try:
            assert line(tunnel) == "up"
            assert ask(local, b"by -L") == b"inside by -L"
            assert ask(proxy, b"by -D", socks_to=port) == b"inside by -D"
            code = (
                "import socket; c = socket.create_connection(('127.0.0.1', 7777));"
                "c.sendall(b'by -R')"
            )
            assert debian.way.ssh("python3", "-c", f'"{code}"').code == 0
            here.settimeout(DEADLINE)
            guest, _ = here.accept()
            with guest:
                assert guest.recv(99) == b"by -R"
        finally:
            end(tunnel)
    finally:
        here.close()
        end(server)


def test_agent_forwarding(debian: Place, me: Me) -> None:
    """-A lends the caller's agent to the workspace."""
    with agent_of(me) as environment:
        argv = debian.way.argv("ssh", "-A", "-o", "BatchMode=yes")
        code = "import os; print(os.path.exists(os.environ['SSH_AUTH_SOCK']))"
        done = run(
            [*argv, debian.way.target, "python3", "-c", f'"{code}"'], environment=environment
        )
        assert done.out == "True\n", done.err
        # A workspace reaches the agent: it lists the key.
        listing = (
            "import os, socket; s = socket.socket(socket.AF_UNIX);"
            "s.connect(os.environ['SSH_AUTH_SOCK']); s.sendall(bytes((0, 0, 0, 1, 11)));"
            "print(s.recv(4096).hex())"
        )
        done = run(
            [*argv, debian.way.target, "python3", "-c", f'"{listing}"'], environment=environment
        )
        answer = bytes.fromhex(done.out.strip())
        assert answer[4] == 12
        assert int.from_bytes(answer[5:9], "big") == 1


def test_a_terminal(debian: Place) -> None:
    """A login shell on a terminal of the client's size, which follows it."""
    master, slave = pty.openpty()
    resize(slave, 40, 100)
    shell = subprocess.Popen(
        [*debian.way.argv("ssh", "-tt"), debian.way.target],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    try:
        os.write(master, b"stty size; tty; echo $0\n")
        said = read_until(master, b"/dev/pts/", b"-bash")
        assert b"40 100" in said
        resize(slave, 50, 132)
        shell.send_signal(signal.SIGWINCH)
        # The new size is on its way: ask until it is there.
        os.write(master, b"until stty size | grep -q 132; do sleep 0.05; done; stty size\n")
        read_until(master, b"50 132")
        os.write(master, b"exit 3\n")
        assert shell.wait(DEADLINE) == 3
    finally:
        shell.kill()
        shell.wait(DEADLINE)
        os.close(master)
        os.close(slave)


def test_the_bastion_forwards_to_what_was_proven_and_no_more(
    places: dict[str, Place], fresh: Callable[[], Place], tmp_path: Path, client: Bastide
) -> None:
    """No shell, no command, no file, no listener, no other host, port or workspace."""
    debian, other = places["debian-12"], fresh()
    stranger = Me.at(tmp_path / "stranger")
    client.workspaces.ssh.add_key(other.id, stranger.public)
    host, _, port = debian.way.jump.rpartition(":")
    bastion = ["ssh", "-F", str(stranger.config), "-o", "BatchMode=yes", "-p", port]
    for command in ((), ("id",), ("-s", "sftp")):
        done = run([*bastion, host, *command])
        assert done.code == 255
        assert "no shell" in done.err
    assert run([*bastion, "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:x:1", host]).code == 255
    address = client.workspaces.get(debian.id)
    network = f"{debian.status.ssh_id}"
    targets = (
        f"{network}:22", f"{other.status.ssh_id}:9990", f"{other.status.ssh_id}:9989",
        "127.0.0.1:22", "localhost:22", "[::1]:22", "169.254.169.254:80",
        cloud_api(debian), "zzzzzz:22",
    )  # fmt: skip
    assert address.id == debian.id
    for target in targets:
        done = run([*bastion, "-W", target, host])
        assert done.code == 255, target
        assert "administratively prohibited" in done.err, (target, done.err)
    assert run([*bastion, "-W", f"{other.status.ssh_id}:22", host]).out.startswith("SSH-2.0-")
    # The credential of one workspace does not open another, at the bastion or behind it.
    way = Way(stranger, debian.way.target, debian.way.jump)
    assert way.ssh("id").code == 255
    inside = ["-o", f"ProxyCommand={jump_command(debian.way)}", "-o", "BatchMode=yes"]
    refused = run(["ssh", "-F", str(stranger.config), *inside, debian.way.target, "id"])
    assert refused.code == 255
    assert "Permission denied" in refused.err
    # As nobody, nothing at all.
    nobody = Way(Me.at(tmp_path / "nobody"), debian.way.target, debian.way.jump)
    refused = nobody.ssh("id")
    assert refused.code == 255
    assert "Permission denied" in refused.err


def cloud_api(one: Place) -> str:
    """The bastion's own address: a service of the host."""
    return one.way.jump.partition("@")[2]


def test_only_the_bastion_reaches_the_port(
    debian: Place, client: Bastide, fresh: Callable[[], Place]
) -> None:
    """Other users of the host, root among them, and other workspaces do not reach port 22."""
    address = client.workspaces.network.get(debian.id).ip
    assert address is not None
    with pytest.raises(OSError):  # noqa: PT011 - refused or dropped, both are right
        socket.create_connection((address, 22), timeout=2)
    other = fresh()
    code = (
        "import socket; s = socket.socket(); s.settimeout(2);"
        f"print(s.connect_ex(('{address}', 22)) != 0)"
    )
    assert other.way.ssh("python3", "-c", f'"{code}"').out == "True\n"


def test_disabling_closes_sessions(fresh: Callable[[], Place], client: Bastide) -> None:
    """Disabled: running sessions end, new ones are refused; enabled again, the key opens."""
    one = fresh()
    session = one.way.start(command=("echo up; sleep 600",))
    assert line(session) == "up"
    client.workspaces.ssh.disable(one.id)
    assert session.wait(DEADLINE) == 255
    end(session)
    assert one.way.ssh("id").code == 255
    client.workspaces.ssh.enable(one.id)
    assert one.way.ssh("echo again").out == "again\n"


def test_a_removed_key_opens_nothing(fresh: Callable[[], Place], client: Bastide) -> None:
    """Removing the key ends what it opened and lets it in no more."""
    one = fresh()
    session = one.way.start(command=("echo up; sleep 600",))
    assert line(session) == "up"
    (key,) = client.workspaces.ssh.keys(one.id)
    assert client.workspaces.ssh.remove_key(one.id, key.fingerprint) == []
    assert session.wait(DEADLINE) == 255
    end(session)
    assert one.way.ssh("id").code == 255
    with pytest.raises(NotFoundError):
        client.workspaces.ssh.remove_key(one.id, key.fingerprint)


def test_a_restart_keeps_the_host_key(fresh: Callable[[], Place], client: Bastide, me: Me) -> None:
    """Strict checking passes after a restart, and status shows the fingerprint people saw."""
    one = fresh()
    strict = ("-o", "StrictHostKeyChecking=yes")
    assert one.way.ssh("echo one").out == "one\n"
    seen = next(k for k in me.known_hosts().splitlines() if k.startswith(f"{one.status.ssh_id} "))
    told = client.workspaces.ssh.status(one.id).host_key
    assert told is not None
    assert seen.partition(" ")[2] == told.public_key
    client.workspaces.stop(one.id)
    stopped = one.way.ssh("echo two", options=strict)
    assert "does not run" in stopped.err
    client.workspaces.start(one.id)
    assert one.way.ssh("echo two", options=strict).out == "two\n"
    assert client.workspaces.ssh.status(one.id).host_key == told


def test_guessing_is_slow_and_logged(
    debian: Place, tmp_path: Path, cloud: Cloud, client: Bastide
) -> None:
    """Each wrong password takes longer, then none are heard, while keys still open."""
    guesser = Me.at(tmp_path / "guesser")
    _, _, port = debian.way.jump.rpartition(":")
    config = guesser.home / ".ssh" / "guess"
    config.write_text(
        f'Host *\n  UserKnownHostsFile "{guesser.home}/known"\n  StrictHostKeyChecking no\n'
        "  PubkeyAuthentication no\n  NumberOfPasswordPrompts 1\n"
    )
    wrong = asking("wrong-guess-1234", tmp_path)
    argv = ["ssh", "-F", str(config), "-p", port, "root@127.0.0.2", "-N"]
    bound = [*argv[:1], "-b", "127.0.0.2", *argv[1:-2], "root@127.0.0.1", "-N"]
    log = cloud.settings.state_dir / "log" / "bastion.log"
    guesses = [
        subprocess.Popen(bound, env={**os.environ, **wrong}, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        for _ in range(12)
    ]  # fmt: skip
    for guess in guesses:
        _, said = guess.communicate(timeout=DEADLINE)
        assert guess.returncode == 255
        assert b"Permission denied" in said
    entries = [json.loads(row) for row in log.read_text().splitlines() if '"127.0.0.2"' in row]
    delays = [row["delay"] for row in entries if row["event"] == "bastion.refused"]
    # A password for `root` is a guess at every workspace: four are heard, the others are not.
    assert len(delays) == 4
    assert delays == sorted(delays)
    assert delays[-1] == 8.0
    deaf = run(bound, environment=wrong)
    assert "Permission denied (publickey)" in deaf.err
    assert "wrong-guess" not in log.read_text()
    assert debian.way.ssh("echo in").out == "in\n"


def test_the_command_line(cloud: Cloud, fresh: Callable[[], Place], tmp_path: Path) -> None:
    """`bastide ssh` makes a key once, trusts what the API tells, and ends as the command does."""
    one = fresh()
    environment = {**os.environ, **cloud.server, **cloud.environment, "HOME": str(tmp_path)}
    bastide = str(Path(os.sys.executable).with_name("bastide"))  # type: ignore[attr-defined]

    def bastide_ssh(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [bastide, "ssh", one.id, *words], input=text, env=environment,
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip

    done = bastide_ssh("--", "sh", "-c", "cat; exit 5", text="typed")
    assert (done.returncode, done.stdout) == (5, "typed"), done.stderr
    key = tmp_path / ".ssh" / "bastide_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600
    made = key.read_bytes()
    assert bastide_ssh("--", "echo", "two words").stdout == "two words\n"
    assert key.read_bytes() == made
    listed = cloud.json("workspace", "ssh", "keys", one.id)
    assert [row["comment"] for row in listed][-1] == "bastide"
    known = tmp_path / ".ssh" / "bastide_known_hosts"
    known.write_text(known.read_text().replace("ssh-ed25519 AAAA", "ssh-ed25519 BBBB"))
    assert bastide_ssh("--", "true").returncode == 0
    cloud.run("workspace", "ssh", "password", one.id, text="from a pipe\n")
    shown = cloud.json("workspace", "ssh", "status", one.id)
    assert shown["ssh_password_changed"]
    cloud.run("workspace", "ssh", "disable", one.id)
    assert not cloud.json("workspace", "ssh", "status", one.id)["ssh_enabled"]

"""Names, keys and passwords of SSH."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.instant import now
from bastide.domain.ssh import (
    SSH_ID,
    HostKey,
    check_password,
    hash_password,
    new_password,
    new_ssh_id,
    password_proof,
    read_public_key,
)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_of_openssh_are_taken(tmp_path: Path, kind: str) -> None:
    """What ssh-keygen makes is taken, with the fingerprint ssh-keygen shows."""
    path = tmp_path / "key"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "me at home", "-f", str(path)]
    subprocess.run(argv, check=True)
    text = path.with_suffix(".pub").read_text()
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(path)], check=True, capture_output=True, text=True
    ).stdout
    key = read_public_key(text, now())
    assert key.fingerprint == shown.split()[1]
    assert key.comment == "me at home"
    assert key.line == text.strip()


def test_security_keys_are_taken() -> None:
    """Keys that live in hardware are taken by their shape, and refused when cut off."""
    kind = b"sk-ssh-ed25519@openssh.com"
    parts = (kind, b"\x01" * 32, b"ssh:")
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    text = f"{kind.decode()} {base64.b64encode(blob).decode()}"
    assert read_public_key(text, now()).type == kind.decode()
    with pytest.raises(ValueError, match="damaged"):
        read_public_key(f"{kind.decode()} {base64.b64encode(blob[:-2]).decode()}", now())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "type of the key"),
        ("ssh-dss AAAA", "type of the key"),
        ('command="x" ssh-ed25519 AAAA', "type of the key"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("ssh-ed25519 !!!", "base64"),
        ("ssh-ed25519 AAAA\nssh-ed25519 BBBB", "one line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "private key"),
    ],
)
def test_what_is_no_key_is_refused_in_words(text: str, words: str) -> None:
    """The message says what to send."""
    with pytest.raises(ValueError, match=words):
        read_public_key(text, now())


@given(st.text(max_size=200))
def test_no_text_is_more_than_refused(text: str) -> None:
    """Whatever is pasted, the answer is a key or a sentence; a key is one printable line."""
    try:
        key = read_public_key(text, now())
    except ValueError:
        return
    assert key.line.isprintable()


def test_host_keys_are_openssh_s(tmp_path: Path) -> None:
    """OpenSSH reads the private half and agrees on the public one."""
    made = HostKey.make()
    path = tmp_path / "host"
    path.write_text(made.private)
    path.chmod(0o600)
    argv = ["ssh-keygen", "-y", "-f", str(path)]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert shown.split()[:2] == made.public.split()
    assert made.private not in repr(made)


def test_passwords() -> None:
    """One-time passwords differ and pass the check; what is kept gives none away."""
    password = new_password()
    assert check_password(password) != check_password(new_password())
    kept = hash_password(password, "key", chosen=False)
    assert bcrypt.checkpw(password.encode(), kept.hash.encode())
    assert kept.proof == password_proof(password, "key") != password_proof(password, "other")
    assert password not in repr(kept)
    assert kept.hash not in repr(kept)


@pytest.mark.parametrize("password", ["", "seven77", "x" * 73, "ä" * 37, "tab\tinside"])
def test_unusable_passwords(password: str) -> None:
    """Too short, too long for bcrypt, or not to be typed."""
    with pytest.raises(ValueError, match="must"):
        check_password(password)


def test_names() -> None:
    """Short, distinct, and never to be taken for an address."""
    names = {new_ssh_id() for _ in range(200)}
    assert len(names) == 200
    assert all(re.fullmatch(SSH_ID, name) and not name.isdigit() for name in names)

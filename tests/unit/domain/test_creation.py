"""The body of POST /workspace."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bastide.domain.config import LATER, Config
from bastide.domain.creation import CreateWorkspace
from bastide.domain.restart import RestartPolicy

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({*CreateWorkspace.model_fields, *Config.model_fields, "vcpus", "ram_mb", "disk_mb"})


@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON)
    | st.fixed_dictionaries({"config": st.dictionaries(st.sampled_from(FIELDS), JSON)})
)
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    """No JSON makes the model fail in another way than by naming a field."""
    named: list[tuple[int | str, ...]] = []
    try:
        CreateWorkspace.model_validate(body)
    except ValidationError as error:
        named = [item["loc"] for item in error.errors()]
    assert all(named)


@pytest.mark.parametrize(
    "env",
    [{"A": "1", "B": "x=y"}, ["A=1", "B=x=y"], [{"key": "A", "value": 1}, "B=x=y"]],
)
def test_environment_in_every_form(env: object) -> None:
    """Object, lines and pairs mean the same."""
    assert Config.model_validate({"env": env}).env == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("cmd", "argv"),
    [
        ("npm start | tee log", ("/bin/sh", "-c", "npm start | tee log")),
        (["node", "server.js"], ("node", "server.js")),
        ([], None),
        (None, None),
    ],
)
def test_command_in_every_form(cmd: object, argv: tuple[str, ...] | None) -> None:
    """A list is an argv, a string a line for the shell, nothing is no command."""
    assert Config.model_validate({"cmd": cmd}).cmd == argv


def test_older_clients_fields_are_moved() -> None:
    """Top-level and older names count; `config` wins over them."""
    body = CreateWorkspace.model_validate(
        {"vcpus": 2, "ram_mb": 1024, "disk_mb": 2048, "region": "eu", "config": {"cpus": 4}}
    )
    assert body.config is not None
    assert (body.config.cpus, body.config.memory_mb, body.config.disk_mb) == (4, 1024, 2048)


def test_never_is_an_older_word_for_no() -> None:
    """The Swift client's word is understood."""
    assert Config.model_validate({"restart_policy": "never"}).restart_policy is RestartPolicy.NO


@pytest.mark.parametrize("field", sorted(set(LATER) & set(Config.model_fields)))
def test_features_to_come_are_refused_unless_off(field: str) -> None:
    """A known key is never dropped silently: it is refused with a sentence, or means "off"."""
    with pytest.raises(ValidationError) as raised:
        Config.model_validate({field: {"some": "thing"}})
    assert raised.value.errors()[0]["loc"] == (field,)
    assert "available" in raised.value.errors()[0]["msg"]
    Config.model_validate({field: None})


@pytest.mark.parametrize(
    "config",
    [
        {"disk_size_mb": 100, "writable_size_mb": 200},
        {"network_config": {"public_access": True, "public_ingress": False}},
        {"network_config": {"allow_internet": True}, "allow_internet": False},
        {"env": {"1A": "x"}},
        {"env": {"A": "\x00"}},
        {"env": ["A"]},
        {"cmd": [""]},
        {"cmd": ["a", 1]},
        {"cpus": True},
        {"cpus": 0.1},
        {"cpus": float("nan")},
        {"memory_mb": 100.5},
        {"memory_mb": "512"},
        {"network_config": {"ingress_ports": [0]}},
        {"network_config": {"ingress_ports": list(range(1, 52))}},
    ],
)
def test_wrong_values_are_refused(config: dict[str, Any]) -> None:
    """Contradictions, bounds, types and hostile text."""
    with pytest.raises(ValidationError):
        Config.model_validate(config)

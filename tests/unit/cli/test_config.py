"""`bastide config` and the example of all settings."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bastide.cli.config import example_text
from bastide.settings import Settings, SettingsError, read_settings

EXAMPLE = Path(__file__).parents[3] / "bastide.toml.example"


def test_the_example_is_what_the_settings_say() -> None:
    """The file in the repository is up to date; `bastide config example` writes it."""
    assert EXAMPLE.read_text() == example_text()


def test_the_example_is_valid_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every line uncommented it is read, names every setting, and gives the defaults."""
    lines = [
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in example_text().splitlines()
    ]
    text = "\n".join(lines)
    assert set(tomllib.loads(text)) == set(Settings.model_fields)
    path = tmp_path / "bastide.toml"
    monkeypatch.setenv("BASTIDE_CONFIG", str(tmp_path / "absent"))
    defaults = read_settings()
    path.write_text(text)
    monkeypatch.setenv("BASTIDE_CONFIG", str(path))
    assert read_settings() == defaults


def test_no_two_listen_at_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address for two of the listeners stops the start; the error names the three."""
    monkeypatch.setenv("BASTIDE_LISTEN__GATEWAY", "127.0.0.1:7080")
    with pytest.raises(SettingsError, match=r"listen: .*127\.0\.0\.1:7080 and 127\.0\.0\.1:7022"):
        read_settings()

"""Where the server is and which key is used."""

from __future__ import annotations

import pytest

from bastide.client import Bastide, ConfigurationError
from bastide.client._config import Config
from bastide.client._session import loopback

ENV = {
    "BASTIDE_API_URL": "http://a/",
    "BASTIDE_GATEWAY_URL": "http://g",
    "BASTIDE_CLIENT_ID": "id",
    "BASTIDE_CLIENT_SECRET": "secret",
}


def of(environ: dict[str, str], **given: str | None) -> Config:
    names = ("api_url", "gateway_url", "client_id", "client_secret", "token")
    return Config.of(**{name: given.get(name) for name in names}, environ=environ)


def test_the_environment_completes_what_is_given() -> None:
    """Arguments win over the environment, and slashes at the end are cut."""
    config = of(ENV, api_url="http://other/")
    assert (config.api_url, config.gateway_url) == ("http://other", "http://g")
    assert config.headers == {"X-Client-ID": "id", "X-Client-Secret": "secret"}


def test_a_token_is_used_as_bearer() -> None:
    """A token from the environment is used, but a key given in code wins over it."""
    env = {**ENV, "BASTIDE_TOKEN": "t"}
    assert of(env).headers == {"Authorization": "Bearer t"}
    assert of(env, client_id="x", client_secret="y").headers["X-Client-ID"] == "x"


@pytest.mark.parametrize("missing", sorted(ENV))
def test_what_is_missing_is_named(missing: str) -> None:
    """Without an address or key the error names the variable and the command that sets it."""
    env = {name: value for name, value in ENV.items() if name != missing}
    with pytest.raises(ConfigurationError, match=missing) as caught:
        of(env)
    assert "bastide env" in str(caught.value)


def test_from_env_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` uses the variables `bastide env` prints."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    Bastide.from_env().close()


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:7080", True),
        ("http://127.1.2.3", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1", False),
        ("https://api.example", False),
    ],
)
def test_a_proxy_is_not_used_for_this_host(url: str, own: bool) -> None:  # noqa: FBT001
    """Proxy variables of the environment count for other hosts only."""
    assert loopback(url) is own


def test_secrets_are_not_shown() -> None:
    """The configuration prints without secret and token."""
    assert "secret" not in repr(of(ENV)).replace("client_secret", "")

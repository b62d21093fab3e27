"""Where the server is and which key is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from bastide.client._errors import ConfigurationError

HINT = 'eval "$(bastide env)" sets it on the server; elsewhere pass it or export it'


@dataclass(frozen=True)
class Config:
    """Addresses without a trailing slash, and the key or token of the control plane."""

    api_url: str
    gateway_url: str
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        *,
        api_url: str | None,
        gateway_url: str | None,
        client_id: str | None,
        client_secret: str | None,
        token: str | None,
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """What is given, completed from BASTIDE_API_URL and its like.

        Raises:
            ConfigurationError: something needed is in neither place.
        """
        env = os.environ if environ is None else environ
        token = token or (None if client_id else env.get("BASTIDE_TOKEN"))
        client_id = client_id or env.get("BASTIDE_CLIENT_ID")
        client_secret = client_secret or env.get("BASTIDE_CLIENT_SECRET")
        if token is None and not (client_id and client_secret):
            raise ConfigurationError(
                f"no key: BASTIDE_CLIENT_ID and BASTIDE_CLIENT_SECRET are not set; {HINT}"
            )
        return cls(
            _needed(api_url, env, "BASTIDE_API_URL"),
            _needed(gateway_url, env, "BASTIDE_GATEWAY_URL"),
            client_id,
            client_secret,
            token,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a call to the control plane."""
        if self.token is not None:
            return {"Authorization": f"Bearer {self.token}"}
        return {
            "X-Client-ID": self.client_id or "",
            "X-Client-Secret": self.client_secret or "",
        }


def _needed(given: str | None, env: Mapping[str, str], name: str) -> str:
    value = given or env.get(name)
    if not value:
        raise ConfigurationError(f"{name} is not set; {HINT}")
    return value.rstrip("/")

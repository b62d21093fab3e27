"""The settings of the server this command runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bastide.cli.fault import Fault

if TYPE_CHECKING:
    from bastide.services.first_credentials import FirstCredentials
    from bastide.settings import Settings


def server_settings() -> Settings:
    """The settings.

    Raises:
        Fault: they are wrong; each offending key is named.
    """
    from bastide.settings import SettingsError, config_path, settings

    try:
        return settings()
    except SettingsError as error:
        raise Fault(str(error), f"mend {config_path()} or the variables") from None


def first_credentials() -> FirstCredentials:
    """The first admin key of this server.

    Raises:
        Fault: there is none yet, or this user may not read it.
    """
    from bastide.services.first_credentials import FirstCredentials

    path = server_settings().credentials_file
    try:
        found = FirstCredentials.read(path)
    except PermissionError:
        raise Fault(
            f"only root may read {path}", "sudo bastide env, or set BASTIDE_* variables"
        ) from None
    if found is None:
        raise Fault(
            f"there is no key in {path}",
            "start the cloud once with: bastide up --detach (the first start makes a key)",
        )
    return found

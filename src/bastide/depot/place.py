"""The depot that the settings name."""

from __future__ import annotations

from bastide.depot.contract import Depot
from bastide.depot.directory import DirectoryDepot
from bastide.depot.s3 import Bucket, S3Depot
from bastide.settings import Settings


def depot_of(settings: Settings) -> Depot:
    """A bucket when `archives.url` names one, else `state_dir/archives`."""
    chosen = settings.archives
    if not chosen.url:
        return DirectoryDepot(settings.archives_dir)
    bucket, _, prefix = chosen.url.removeprefix("s3://").partition("/")
    return S3Depot(
        Bucket(
            name=bucket,
            prefix=prefix.strip("/"),
            endpoint=chosen.endpoint,
            region=chosen.region,
            access_key_id=chosen.access_key_id,
            secret_access_key=chosen.secret_access_key.get_secret_value(),
        )
    )

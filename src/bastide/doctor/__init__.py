"""Whether a host can run the cloud: every requirement, checked on the host itself."""

from __future__ import annotations

from collections.abc import Iterator

from bastide.doctor import kernel, network, programs, storage
from bastide.doctor.finding import Finding, Level, fail, ok, warn
from bastide.settings import Settings

__all__ = ["Finding", "Level", "examine", "fail", "ok", "warn"]


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order a person would mend them."""
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    yield kernel.root()
    yield kernel.version()
    yield kernel.namespaces()
    yield kernel.seccomp()
    yield kernel.file_watches()
    yield kernel.filesystems()
    yield kernel.idmapped_mounts()
    yield kernel.loop_devices()
    yield kernel.cgroups()
    yield kernel.memory()
    yield kernel.clock()
    yield programs.python()
    yield programs.debian()
    yield programs.runtime(settings)
    yield programs.microvms(settings)
    yield programs.prepared(settings)
    yield programs.users(settings)
    yield storage.space(settings)
    yield storage.images(settings)
    yield storage.reflinks(settings)
    yield storage.snapshots(settings)
    yield network.firewall()
    yield network.forwarding()
    yield network.subnet(settings)
    yield from network.ports(settings)

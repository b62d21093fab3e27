"""What the node answers when it cannot do what it was asked. One code per cause."""

# ruff: noqa: N818 - these read as states, which they are

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from bastide.domain.image import INTERRUPTED
from bastide.domain.machine import MEMORY_IN_USE


class NodeError(Exception):
    """An operation that was refused or failed; the text says what to do about it.

    `code` and `status` are those of the node's socket (docs/architecture.md).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class NotFound(NodeError):
    """No machine of that id is known here."""

    code = "not_found"
    status = 404


class Conflict(NodeError):
    """The machine is in a state that does not allow this."""

    code = "conflict"
    status = 409


class MemoryInUse(NodeError):
    """The machine uses more memory than it would be left with."""

    code = MEMORY_IN_USE
    status = 409


class NoSnapshot(NodeError):
    """The machine has no snapshot to go back to."""

    code = "no_snapshot"
    status = 409


class Invalid(NodeError):
    """The document asks for something that cannot be."""

    code = "validation_error"
    status = 422


class ImageUnavailable(NodeError):
    """The image is unknown, not built yet, or refused."""

    code = "image_unavailable"
    status = 503


class ImageNotFound(NodeError):
    """The registry has no such image."""

    code = "image_not_found"
    status = 422


class ImageDenied(NodeError):
    """The registry does not give the image to these credentials, or the settings forbid it."""

    code = "image_denied"
    status = 422


class ImageRefused(NodeError):
    """The image is broken, hostile, too large or for another kind of machine."""

    code = "image_refused"
    status = 422


class ImageInUse(NodeError):
    """A machine or a snapshot needs the image."""

    code = "image_in_use"
    status = 409


class RegistryUnavailable(NodeError):
    """The registry cannot be reached or breaks off; the same may succeed later."""

    code = "registry_unavailable"
    status = 503


class Interrupted(NodeError):
    """The node ends, or the work was given up; the same may be asked again."""

    code = INTERRUPTED
    status = 503


class NoSpace(NodeError):
    """The host has no room for it."""

    code = "no_space"
    status = 503


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """Say what there is no room for when the kernel finds none.

    Raises:
        NoSpace: in the place of `ENOSPC`, `EDQUOT` and `EFBIG`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise NoSpace(
                f"the host has no room for {what}: delete workspaces or add storage"
            ) from error
        raise


class NotReady(NodeError):
    """The node lacks something it needs (runtime, bundle)."""

    code = "not_ready"
    status = 503


class BootFailed(NodeError):
    """The machine did not come up; `details` may hold the last lines it printed."""

    code = "boot_failed"
    status = 503


class Unsupported(NodeError):
    """This node cannot do that; nothing was changed."""

    code = "unsupported"
    status = 501

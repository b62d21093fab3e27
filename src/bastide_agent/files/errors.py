"""What the kernel refuses, as answers (spec runtime 4: 400, 403, 404, 413)."""

from __future__ import annotations

import errno

from bastide_agent.http.errors import ApiError, invalid

_KINDS = {
    403: (errno.EACCES, errno.EPERM, errno.EROFS),
    404: (errno.ENOENT,),
    400: (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.EISDIR),
    409: (errno.ENOTEMPTY, errno.EBUSY, errno.EEXIST, errno.ETXTBSY),
    507: (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
}
_STATUS = {number: status for status, numbers in _KINDS.items() for number in numbers}
_CODES = {
    403: "forbidden",
    404: "not_found",
    400: "validation_error",
    409: "conflict",
    507: "insufficient_storage",
    503: "io_error",
}


def file_error(error: OSError, path: str) -> ApiError:
    """The answer for an error of the file system; 503 `io_error` for what is nobody's fault."""
    status = _STATUS.get(error.errno or 0, 503)
    shown = path.encode("utf-8", "replace").decode()[:512]
    text = f"{shown}: {(error.strerror or 'error').lower()}"
    text += "; delete something first" if status == 507 else ""
    return ApiError(status, _CODES[status], text, {"field": "path"} if status == 400 else None)


def is_directory(path: str) -> ApiError:
    """A 400 for a directory where a file is needed."""
    return invalid("path", f"{path[:512]} is a directory")


def not_regular(path: str) -> ApiError:
    """A 400 for a pipe, socket or device."""
    return invalid("path", f"{path[:512]} is a pipe, socket or device, not a regular file")

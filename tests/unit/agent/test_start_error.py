"""A process that does not start is told by its reason, never as a 500."""

from __future__ import annotations

import errno

import pytest

from bastide_agent.exec.tasks import start_error
from bastide_agent.process import SpawnError


@pytest.mark.parametrize(
    ("number", "status", "code", "words"),
    [
        (errno.EAGAIN, 429, "too_many_processes", "too many processes"),
        (errno.ENOMEM, 503, "out_of_resources", "out of memory"),
        (errno.EMFILE, 503, "out_of_resources", "too many open files"),
        (errno.ENOENT, 400, "exec_failed", "no such program"),
        (errno.EACCES, 400, "exec_failed", "may not be executed"),
        (errno.ENOEXEC, 400, "exec_failed", "neither a program nor a script"),
        (errno.E2BIG, 400, "exec_failed", "too long"),
        (errno.EISDIR, 400, "exec_failed", "directory"),
    ],
)
def test_start_error(number: int, status: int, code: str, words: str) -> None:
    """Status, code and words for each reason of the kernel."""
    error = start_error(SpawnError("prog", number))
    assert (error.status, error.code) == (status, code)
    assert "failed to start process 'prog'" in error.message
    assert words in error.message

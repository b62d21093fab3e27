"""The file-system identity of a thread of the node."""

from __future__ import annotations

import threading

import pytest

from bastide.node import kernel

pytestmark = pytest.mark.host


@pytest.mark.parametrize("identity", [1000, 2**31 - 1, 2**31, 4_000_000_000])
def test_any_id_can_be_taken(identity: int) -> None:
    """Ids above 2**31 are taken like any other, and only by the thread that asked."""
    seen: list[str] = []

    def take() -> None:
        kernel.become(identity, identity)
        with open("/proc/thread-self/status") as status:  # noqa: PTH123  (of this very thread)
            seen.extend(line.split()[4] for line in status if line.startswith(("Uid:", "Gid:")))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert seen == [str(identity)] * 2
    with open("/proc/thread-self/status") as status:  # noqa: PTH123
        assert "Uid:\t0\t0\t0\t0\n" in status.read()

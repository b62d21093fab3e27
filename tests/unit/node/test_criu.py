"""What is read of CRIU's words."""

from __future__ import annotations

from pathlib import Path

from bastide.node.machines import criu


def test_the_last_error_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Lines that always come and those that only repeat are left out; a known cause has advice."""
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.05) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self\n"
        "(00.10) Error (criu/fsnotify.c:284): fsnotify: \tCan't dump that handle\n"
        "(00.11) Error (criu/cr-dump.c:1545): Dump files (pid: 1) failed with -1\n"
        "(00.12) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"
    )
    told, advice = criu._reason(tmp_path, "dump")
    assert told == "fsnotify: \tCan't dump that handle"
    assert advice.startswith("a program watches")
    assert criu._reason(tmp_path, "none") == ("runc gave no reason", "")
    log.write_bytes(b"\xff" * 10)
    assert criu._reason(tmp_path, "dump") == ("runc gave no reason", "")
    (tmp_path / "runc.log").write_text('time="now" level=error msg="no such place \\"/x\\""\n')
    assert criu._reason(tmp_path, "dump") == ('no such place "/x"', "")

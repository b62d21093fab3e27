"""Log files of services."""

from __future__ import annotations

from pathlib import Path

from bastide.supervisor.log import Log


def test_a_writer_goes_on_after_trimming(tmp_path: Path) -> None:
    """A file over the bound is put aside, and the service that holds it writes into the new one."""
    log = Log(tmp_path / "api.log", most=100)
    with log.open() as writer:
        writer.write(b"x" * 101)
        assert log.trim()
        writer.write(b"after\n")
    assert log.path.read_bytes() == b"after\n"
    assert (tmp_path / "api.log.1").stat().st_size == 101
    assert not log.trim()


def test_news_are_whole_lines_once(tmp_path: Path) -> None:
    """Each line is told once, and half a line only when its end has come."""
    log = Log(tmp_path / "api.log")
    assert log.news() == []
    with log.open() as writer:
        writer.write(b"old\n")
        log.skip()
        writer.write(b"one\ntw")
        assert log.news() == ["one"]
        writer.write(b"o\n")
        assert log.news() == ["two"]
        assert log.news() == []


def test_tail_is_bounded(tmp_path: Path) -> None:
    """The tail gives the last lines and nothing for an absent file."""
    log = Log(tmp_path / "api.log")
    assert log.tail(3) == []
    log.path.write_text("".join(f"{number}\n" for number in range(50_000)))
    assert log.tail(2) == ["49998", "49999"]

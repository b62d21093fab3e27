"""PAX records: what they change in the member that follows."""

from __future__ import annotations

from bastide_agent.transfer.tarball import FILE, LATEST, MOST, Extent, Member, TarError

MAX_EXTENTS = 65536  # of one sparse file
WANTED = frozenset((b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid"))
SPARSE = b"GNU.sparse."
ATTRIBUTE = b"SCHILY.xattr."


def records(raw: bytes) -> dict[bytes, bytes]:
    """The records that mean something here, each `<length> <key>=<value>` and a newline.

    The oldest sparse format repeats its keys; those values are joined with commas.

    Raises:
        TarError: a record is malformed.
    """
    found: dict[bytes, bytes] = {}
    places: list[bytes] = []
    position = 0
    while position < len(raw) and raw[position]:
        blank = raw.find(b" ", position, position + 21)
        digits = raw[position:blank]
        if blank < 0 or not digits.isdigit():
            raise TarError("a PAX record has no length")
        end = position + int(digits)
        key, equals, value = raw[blank + 1 : end - 1].partition(b"=")
        if not equals or end > len(raw) or raw[end - 1 : end] != b"\n":
            raise TarError("a PAX record is malformed")
        if key in (SPARSE + b"offset", SPARSE + b"numbytes"):
            places.append(value)
        elif key in WANTED or key.startswith((SPARSE, ATTRIBUTE)):
            found[key] = value
        position = end
    if places:
        found[SPARSE + b"map"] = b",".join(places)
    return found


def apply(member: Member, found: dict[bytes, bytes]) -> None:
    """Let records replace what the header says. The map of sparse format 1.0 is read later.

    Raises:
        TarError: a value is wrong.
    """
    if b"path" in found:
        member.name = found[b"path"]
    if b"linkpath" in found:
        member.target = found[b"linkpath"]
    if b"size" in found:
        member.size = number(found[b"size"])
        if member.extents is None:
            member.real_size = member.size
    if b"uid" in found:
        member.uid = number(found[b"uid"])
    if b"gid" in found:
        member.gid = number(found[b"gid"])
    if b"mtime" in found:
        member.mtime_ns = nanoseconds(found[b"mtime"])
    for key, value in found.items():
        if key.startswith(ATTRIBUTE):
            member.attributes[key.removeprefix(ATTRIBUTE)] = value
    _apply_sparse(member, found)


def _apply_sparse(member: Member, found: dict[bytes, bytes]) -> None:
    if SPARSE + b"name" in found:
        member.name = found[SPARSE + b"name"]
    real = found.get(SPARSE + b"realsize", found.get(SPARSE + b"size"))
    if real is not None and member.kind == FILE:
        member.real_size = number(real)
        if SPARSE + b"map" in found:
            member.extents = extents(found[SPARSE + b"map"].split(b","))


def extents(values: list[bytes]) -> list[Extent]:
    """Alternating offsets and lengths.

    Raises:
        TarError: there are too many, or they are no numbers.
    """
    if len(values) > 2 * MAX_EXTENTS or len(values) % 2:
        raise TarError(f"the map of a sparse file is odd or has more than {MAX_EXTENTS} parts")
    places = [number(value) for value in values]
    return list(zip(places[::2], places[1::2], strict=True))


def number(raw: bytes) -> int:
    """A whole number of a record.

    Raises:
        TarError: it is none, or too large.
    """
    if not raw.isdigit() or len(raw) > 19 or int(raw) > MOST:
        raise TarError("a number in a PAX record is wrong")
    return int(raw)


def nanoseconds(raw: bytes) -> int:
    """A time in seconds with a decimal fraction, as nanoseconds.

    Raises:
        TarError: it is none.
    """
    whole, _, fraction = raw.strip().partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 20 or fraction.strip(b"0123456789"):
        raise TarError("a time in a PAX record is wrong")
    parts = int(digits) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return max(-LATEST * 10**9, min(LATEST * 10**9, -parts if whole[:1] == b"-" else parts))

"""A program of Debian's newest suite beside the host's, with its own loader and libraries.

What a released Debian has can be too old, and the newer one needs newer libraries than the host
has: so these are kept with it and the program is pointed at them. Nothing of the host changes.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bastide.node.machines.version import ProgramVersion
from bastide.prepare.archive import PrepareError, apt_get, run
from bastide.prepare.link import point

_SUITE = "sid"
_LAYOUT = 1  # raise it when the layout of the directory changes
_LIBRARY = re.compile(r"=> (\S+) \(0x")


@dataclass(frozen=True)
class Program:
    """The program `usr/sbin/NAME` of the package `name`, kept as `state_dir/runtime/LINK/NAME`.

    `purpose` begins each line of progress. `read` says the version of what a command starts;
    it must be `floor` or newer. `replaced` are strings in it that others of the same length are
    put in the place of: where it looks for something cannot always be told otherwise.
    """

    name: str
    link: str
    purpose: str
    floor: str
    read: Callable[..., ProgramVersion | None]
    replaced: tuple[tuple[bytes, bytes], ...] = ()

    def ensure(self, state_dir: Path, say: Callable[[str], None]) -> Path:
        """Have the program and return its path.

        One that is there, starts and is new enough is kept. `say` gets lines of progress.

        Raises:
            PrepareError: it cannot be fetched, or what the archive has is too old.
        """
        home = state_dir.absolute() / "runtime"
        program = home / self.link / self.name
        version = self.read(program)
        if version and version.at_least(self.floor):
            self._adjust(program)
            say(f"{self.purpose}: {self.name} {version.text} is there")
            return program
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        say(f"{self.purpose}: fetching {self.name} from Debian {_SUITE}")
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as scratch:
            built = self._lay_out(self._unpack(Path(scratch)), Path(scratch) / "ready", home)
        self._point(home, built)
        version = self.read(program)
        if version is None or not version.at_least(self.floor):
            found = version.text if version else "one that does not start"
            raise PrepareError(
                f"{self.purpose}: {self.name} {self.floor} or newer is needed, "
                f"the archive gave {found}"
            )
        say(f"{self.purpose}: {self.name} {version.text} is ready")
        return program

    def _unpack(self, scratch: Path) -> Path:
        """The package and all it needs, unpacked and not installed."""
        apt = apt_get(scratch, _SUITE)
        run([*apt, "update"])
        run([*apt, "--no-install-recommends", "--download-only", "--yes", "install", self.name])
        tree = scratch / "tree"
        for package in sorted((scratch / "cache/archives").glob("*.deb")):
            run(["dpkg-deb", "-x", package, tree])
        return tree

    def _lay_out(self, tree: Path, ready: Path, home: Path) -> Path:
        """The program and `lib/` with exactly what it is linked with, finished in `home`."""
        libraries = ready / "lib"
        libraries.mkdir(parents=True)
        program = tree / "usr/sbin" / self.name
        loader = next(iter(sorted((tree / "usr").glob("lib*/ld-linux-*.so.*"))), None)
        sources = sorted(tree.glob("usr/lib/*-linux-gnu"))
        if loader is None or len(sources) != 1:
            raise PrepareError(
                f"Debian's {self.name} is laid out in a way this version does not know"
            )
        linked = run([loader, "--library-path", sources[0], "--list", program])
        for path in {*map(Path, _LIBRARY.findall(linked)), loader}:
            if not path.resolve().is_relative_to(tree.resolve()):
                raise PrepareError(
                    f"{self.name} needs {path.name}, which its packages do not bring"
                )
            shutil.copy2(path, libraries / path.name, follow_symlinks=True)
        shutil.copy2(program, ready / self.name)
        self._adjust(ready / self.name)
        version = self.read(libraries / loader.name, "--library-path", libraries, program)
        if version is None:
            raise PrepareError(f"{self.name} does not start on this host")
        final = home / f"{self.name}-{version.text}-{_LAYOUT}"
        run(
            [
                *("patchelf", "--set-interpreter", final / "lib" / loader.name),
                *("--force-rpath", "--set-rpath", final / "lib", ready / self.name),
            ]
        )
        record = {self.name: version.text, "suite": _SUITE}
        (ready / f"{self.name}.json").write_text(json.dumps(record) + "\n")
        for path in (ready, libraries):
            path.chmod(0o755)
        shutil.rmtree(final, ignore_errors=True)
        ready.rename(final)
        return final

    def _adjust(self, program: Path) -> None:
        """Replace strings in the program, in one step; what is replaced already stays."""
        content = before = program.read_bytes()
        for old, new in self.replaced:
            if len(old) != len(new):
                raise ValueError(f"{old!r} and {new!r} are not of one length")
            content = content.replace(old + b"\0", new + b"\0")
        if content == before:
            return
        draft = program.with_name(f".{program.name}")
        draft.write_bytes(content)
        draft.chmod(0o755)
        draft.replace(program)

    def _point(self, home: Path, built: Path) -> None:
        """Make the link name the new directory in one step, and drop the others."""
        point(home / self.link, built.name)
        for other in home.glob(f"{self.name}-*"):
            if other != built:
                shutil.rmtree(other, ignore_errors=True)

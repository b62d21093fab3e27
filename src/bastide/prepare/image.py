"""Build the images of the catalogue: Debian's packages → a tree → one read-only erofs file."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from bastide.domain.image import ImageManifest, ImageRecipe
from bastide.node.images.jobs import SCRATCH
from bastide.node.images.packing import pack, read_manifest
from bastide.node.layout import MOUNT_POINTS, check_directories
from bastide.prepare.archive import host_archive, run
from bastide.prepare.busybox import lay_out
from bastide.prepare.wheel import install_node

# Left out of every image: nobody reads them there, and they are a fifth of a small system.
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
_INCLUDED = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
# Besides the mount points: what `normalise` changes.
_WRITTEN = (
    *("tmp", "root", "var", "var/tmp", "var/log", "var/lib", "var/lib/dbus", "var/lib/apt"),
    *("var/lib/apt/lists", "var/cache", "var/cache/apt", "var/cache/apt/archives", "etc/ssh"),
)
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def ensure_image(recipe: ImageRecipe, state_dir: Path, say: Callable[[str], None]) -> ImageManifest:
    """Have the image of `recipe` under `state_dir/images` and return what is known of it.

    One that was built from the same recipe is kept. `say` gets lines of progress.

    Raises:
        PrepareError: a package or a program cannot be had.
        ImageUnavailable: the tree is laid out in a way that is not safe to mount into.
    """
    home = state_dir / "images"
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    present = read_manifest(home, recipe.id)
    if present and present.key == recipe.key:
        say(f"image {recipe.id}: {present.digest[:12]} is there")
        return present
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", dir=home) as scratch:
        return build(recipe, home, Path(scratch), lambda text: say(f"image {recipe.id}: {text}"))


def build(
    recipe: ImageRecipe, home: Path, scratch: Path, say: Callable[[str], None]
) -> ImageManifest:
    """Build an image anew into `home`; `scratch` is an empty directory on the same file system.

    Raises:
        PrepareError, ImageUnavailable, NoSpace: it cannot be built.
    """
    tree = scratch / "tree"
    if recipe.base == "busybox":
        say("building from Debian's busybox")
        tree.mkdir(mode=0o755)
        software = lay_out(recipe, tree, scratch)
    else:
        say(f"building from Debian {recipe.suite} (a minute or two)")
        _install(recipe, tree, scratch)
        software = _software(recipe, tree)
    if recipe.wheel is not None:
        say(f"adding {recipe.wheel}")
        software = (install_node(recipe.wheel, tree, scratch), *software)
    say("cleaning")
    normalise(tree)
    say("packing")
    manifest = pack(tree, home, recipe.id, recipe.key, software=software, scratch=scratch)
    say(f"ready, {manifest.size_bytes // 2**20} MiB")
    return manifest


def _install(recipe: ImageRecipe, tree: Path, scratch: Path) -> None:
    sources = scratch / "sources.list"
    sources.write_text("\n".join(host_archive().sources(recipe.suite)) + "\n")
    paths = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    paths += [f"--dpkgopt=path-include={pattern}" for pattern in _INCLUDED]
    run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root"),
            *("--aptopt=Acquire::Languages none", *paths),
            *(f"--include={','.join(recipe.packages)}", recipe.suite, tree, sources),
        ]
    )


def _software(recipe: ImageRecipe, tree: Path) -> tuple[str, ...]:
    """Names and upstream versions of what the recipe shows."""
    output = run(
        [
            *("dpkg-query", f"--admindir={tree / 'var/lib/dpkg'}", "--show"),
            *("--showformat=${Package} ${source:Upstream-Version}\\n", *recipe.software),
        ]
    )
    return tuple(line.strip() for line in output.splitlines() if line.strip())


def normalise(tree: Path) -> None:
    """Take out of a tree what must differ between machines or is only ballast.

    Raises:
        ImageUnavailable: a directory that is written to is none; nothing was changed.
    """
    check_directories(tree, (*MOUNT_POINTS, *_WRITTEN))
    # rmtree never follows a link; files are removed, not written through
    for name in ("dev", "proc", "sys", "run", "tmp", "var/tmp", "var/lib/apt/lists"):
        _empty(tree / name)
    _empty(tree / "var/cache/apt/archives")
    for pattern in ("etc/ssh/ssh_host_*", "var/log/**/*", "var/cache/apt/*.bin"):
        for path in tree.glob(pattern):
            if path.is_file() or path.is_symlink():
                path.unlink()
    for name in ("var/lib/dbus/machine-id", "etc/.pwd.lock", "root/.bash_history"):
        (tree / name).unlink(missing_ok=True)
    contents = {"machine-id": "", "resolv.conf": "", "hostname": "workspace\n", "hosts": _HOSTS}
    for name, text in contents.items():
        target = tree / "etc" / name
        target.unlink(missing_ok=True)
        target.write_text(text)
        target.chmod(0o644)
    for name in ("lists/partial", "../../cache/apt/archives/partial"):
        (tree / "var/lib/apt" / name).mkdir(parents=True, exist_ok=True)
    for name in MOUNT_POINTS:
        (tree / name).mkdir(mode=0o755, exist_ok=True)
    (tree / ".bastide").chmod(0o755)
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)


def _empty(directory: Path) -> None:
    """Remove what is in a directory; a link or anything else of that name is left to the check."""
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

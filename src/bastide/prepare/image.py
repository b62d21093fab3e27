"""Build the images of the catalogue: Debian's packages → a tree → one read-only erofs file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from bastide.domain.image import ImageManifest, ImageRecipe, ImageWords
from bastide.node.layout import MOUNT_POINTS, check_directories, check_image
from bastide.prepare.archive import PrepareError, host_archive, run

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
    say(f"image {recipe.id}: building from Debian {recipe.suite} (about a minute)")
    with tempfile.TemporaryDirectory(prefix="build-", dir=home) as scratch:
        tree = Path(scratch) / "tree"
        _install(recipe, tree, Path(scratch))
        say(f"image {recipe.id}: cleaning")
        software = _software(recipe, tree)
        normalise(tree)
        say(f"image {recipe.id}: packing")
        manifest = pack(tree, home, recipe.id, recipe.key, software=software)
    say(f"image {recipe.id}: ready, {manifest.size_bytes // 2**20} MiB")
    return manifest


def read_manifest(home: Path, image: str) -> ImageManifest | None:
    """What is known of a built image, or None when it is not built (or its file is gone)."""
    try:
        manifest = ImageManifest.model_validate_json((home / f"{image}.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if (home / f"{manifest.digest}.erofs").is_file() else None


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


def pack(
    tree: Path,
    home: Path,
    image: str,
    key: str,
    *,
    software: tuple[str, ...] = (),
    words: ImageWords | None = None,
) -> ImageManifest:
    """Check a tree and pack it into `home/DIGEST.erofs` with its manifest `home/IMAGE.json`.

    `words` is what the catalogue says of an image that is none of its own.

    Raises:
        ImageUnavailable: the layout is hostile.
        PrepareError: it cannot be packed.
    """
    check_image(tree)
    descriptor, name = tempfile.mkstemp(prefix=".pack-", suffix=".erofs", dir=home)
    os.close(descriptor)
    packed = Path(name)
    try:
        packed.unlink()
        run(["mkfs.erofs", "--quiet", "-zlz4", packed, tree])
        with packed.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        packed.chmod(0o444)
        size = packed.stat().st_size
        packed.rename(home / f"{digest}.erofs")
    except OSError as error:
        raise PrepareError(f"the image {image} cannot be written: {error}") from error
    finally:
        packed.unlink(missing_ok=True)
    manifest = ImageManifest(
        id=image, key=key, digest=digest, size_bytes=size, software=software, words=words
    )
    draft = home / f".{image}.json"
    draft.write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
    draft.rename(home / f"{image}.json")
    return manifest


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

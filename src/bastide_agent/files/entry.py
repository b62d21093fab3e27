"""How a file system entry is described (spec runtime 4.1 and 4.6)."""

from __future__ import annotations

import os
import stat
import time
from functools import lru_cache

LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z; later times do not fit RFC 3339

CODE_EXTENSIONS = frozenset(
    (
        "ada", "adb", "ads", "asm", "astro", "awk", "bash", "bat", "bazel", "bzl", "c", "cc",
        "cfg", "cjs", "clj", "cljs", "cls", "cmake", "cmd", "coffee", "conf", "cpp", "cr", "cs",
        "csh", "cshtml", "css", "csv", "cue", "cxx", "d", "dart", "dhall", "dockerfile", "elm",
        "env", "erb", "erl", "ex", "exs", "f90", "fish", "fs", "fsi", "fsx", "gemspec", "go",
        "gradle", "graphql", "groovy", "h", "haml", "hbs", "hcl", "heex", "hpp", "hrl", "hs",
        "htm", "html", "hxx", "inc", "ini", "ipynb", "java", "jl", "js", "json", "json5", "jsonc",
        "jsonl", "jsx", "just", "kt", "kts", "less", "lisp", "lock", "lua", "m", "make", "md",
        "mdx", "mjs", "mk", "ml", "mli", "mm", "mod", "nim", "nix", "nu", "pas", "php", "pl",
        "plist", "pm", "prisma", "properties", "proto", "ps1", "pug", "purs", "py", "pyi", "pyx",
        "r", "rake", "rb", "re", "rego", "rkt", "rs", "rst", "s", "sass", "sbt", "scala", "scm",
        "scss", "sh", "sln", "sol", "sql", "sum", "svelte", "svg", "swift", "tcl", "tex", "tf",
        "tfvars", "thrift", "toml", "ts", "tsx", "twig", "txt", "v", "vb", "vhd", "vim", "vue",
        "wat", "xml", "xsd", "xsl", "yaml", "yml", "zig", "zsh",
    )
)  # fmt: skip
CODE_NAMES = frozenset(
    (
        ".babelrc", ".bashrc", ".dockerignore", ".editorconfig", ".env", ".eslintrc",
        ".gitattributes", ".gitignore", ".gitmodules", ".npmrc", ".nvmrc", ".prettierrc",
        ".profile", ".stylelintrc", ".zshrc", "brewfile", "build", "caddyfile", "containerfile",
        "dockerfile", "gemfile", "gnumakefile", "jenkinsfile", "justfile", "makefile", "pipfile",
        "procfile", "rakefile", "vagrantfile", "workspace",
    )
)  # fmt: skip


def extension(name: str) -> str:
    """From the last dot on, dot included (`.go`); empty without a dot."""
    dot = name.rfind(".")
    return name[dot:] if dot >= 0 else ""


def is_code(name: str) -> bool:
    """Whether a name is that of a source or configuration file."""
    lower = name.lower()
    return extension(lower)[1:] in CODE_EXTENSIONS or lower in CODE_NAMES


@lru_cache(maxsize=1024)
def modified(seconds: int) -> str:
    """RFC 3339 in UTC of seconds since the epoch; times outside years 1970-9999 are moved in."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(seconds, 0), LAST_SECOND)))


def kind(mode: int) -> str:
    """`file`, `directory` or `symlink`; whatever else there is counts as a file."""
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "file"


def size_of(info: os.stat_result) -> int:
    """Bytes of content; 0 for a link (spec 4.6)."""
    return 0 if stat.S_ISLNK(info.st_mode) else info.st_size

"""From the `cmd` and `exec_mode` of a request to the arguments of a process (spec runtime 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

SHELL = "/bin/sh"
OPERATORS = frozenset(
    ("|", "||", "|&", "&", "&&", ";", ">", ">>", "<", "<<", "2>", "2>>", "&>", "2>&1", ">&2")
)
METACHARACTERS = frozenset("|&;<>()$`\\\"'*?[]#~{}!\n")
PLAIN = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"
)  # fmt: skip


def plan(cmd: Sequence[str], mode: str) -> list[str]:
    """The arguments to execute.

    Several elements run as they are, so a shell given by the caller survives (spec 0.7), unless
    the mode is `shell` or one whole element is a shell operator. A single element is run by the
    shell when it needs one, else split. A mode nobody knows counts as `auto`.
    """
    if mode == "direct":
        return split(cmd[0]) if len(cmd) == 1 else list(cmd)
    if len(cmd) == 1:
        needs_shell = mode == "shell" or needs_a_shell(cmd[0])
        return [SHELL, "-c", cmd[0]] if needs_shell else cmd[0].split() or [cmd[0]]
    if mode == "shell" or not OPERATORS.isdisjoint(cmd):
        return [SHELL, "-c", " ".join(part if part in OPERATORS else quote(part) for part in cmd)]
    return list(cmd)


def needs_a_shell(text: str) -> bool:
    """Whether a command line means something else to a shell than its words say."""
    words = text.split(maxsplit=1)
    return not METACHARACTERS.isdisjoint(text) or bool(words and "=" in words[0])


def split(text: str) -> list[str]:
    """Words as a shell would split them, without a shell; plain blanks when quotes do not match."""
    import shlex  # noqa: PLC0415  (rarely needed)

    try:
        return shlex.split(text) or [text]
    except ValueError:
        return text.split()


def quote(text: str) -> str:
    """One word for `sh`."""
    if text and PLAIN.issuperset(text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"

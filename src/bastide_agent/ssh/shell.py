"""What the SSH server runs as root's shell in an image that has none.

`ssh ws PROGRAM ARGUMENTS` still starts a program: the words are split as a shell would, and
nothing else that a shell does is done.
"""

from __future__ import annotations

import os
import shlex
import sys

NOT_FOUND = 127
NO_SHELL = (
    "this image has no shell: name a program and its arguments, as in\n"
    "  ssh ... /path/of/program argument\n"
    "sftp, scp, rsync and port forwarding work without one.\n"
)
_SYNTAX = frozenset("|&;<>()$`*?[]#~\n")


def main() -> None:
    """Run `-c LINE`, or say what can be done."""
    arguments = sys.argv[1:]
    if len(arguments) != 2 or arguments[0] != "-c":
        sys.stderr.write(NO_SHELL)
        sys.exit(NOT_FOUND)
    line = arguments[1]
    try:
        words = shlex.split(line)
    except ValueError as error:
        sys.stderr.write(f"this image has no shell, and {error} in: {line}\n")
        sys.exit(NOT_FOUND)
    if not words:
        sys.exit(0)
    try:
        os.execvp(words[0], words)  # noqa: S606  (there is no shell to use)
    except OSError as error:
        sys.stderr.write(f"{words[0]}: {error.strerror}\n")
        if _SYNTAX & set(line):
            sys.stderr.write("this image has no shell, so |, ;, $ and the like mean nothing.\n")
        sys.exit(NOT_FOUND)

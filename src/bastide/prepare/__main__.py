"""`python -m bastide.prepare ID HOME SCRATCH`: build one image of the catalogue, for the node.

Tells on standard output, a JSON document a line, how far it is, and last what was made.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from bastide.domain.image import recipe
from bastide.node.errors import ImageUnavailable, NodeError
from bastide.prepare.archive import PrepareError
from bastide.prepare.image import build

_PR_SET_PDEATHSIG = 1
_NICE = 10


def main() -> int:
    """Build what the arguments say."""
    name, home, scratch = sys.argv[1:]
    found = recipe(name)
    if found is None:
        _tell(error=ImageUnavailable.code, message=f"there is no recipe {name!r}")
        return 0
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o022)
    os.nice(_NICE)
    try:
        made = build(found, Path(home), Path(scratch), lambda text: _tell(message=text))
    except NodeError as error:
        _tell(error=error.code, message=error.message)
    except (PrepareError, OSError) as error:
        _tell(error=ImageUnavailable.code, message=f"the image {name} was not built: {error}")
    else:
        _tell(image=made.id)
    return 0


def _tell(**fields: str) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

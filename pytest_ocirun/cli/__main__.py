"""The entry point, of ``python -m pytest_ocirun.cli`` and of the script ``ocirun``. Must not know: anything."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_RARELY = 100_000


def main() -> NoReturn:
    """Run the command line of ``sys.argv``; does not return.

    Most verbs end before there is any garbage to look for, and before it would pay to take the interpreter down.
    """
    gc.set_threshold(_RARELY)
    from pytest_ocirun.cli import app

    code = app.main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            pass  # reported already, or nobody is there to be told
    os._exit(code)


if __name__ == "__main__":
    main()

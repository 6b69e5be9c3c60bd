"""The entry point, of ``python -m pytest_ocirun.cli`` and of the script ``ocirun``. Must not know: anything."""

from __future__ import annotations

import sys

from pytest_ocirun.cli import app


def main() -> None:
    """Run the command line of ``sys.argv``; does not return."""
    sys.exit(app.main(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""Finding a Python inside an image, without running anything of it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ImageError
from pytest_ocirun.linux.paths import open_in_root

if TYPE_CHECKING:
    from pytest_ocirun.images.image import Image

_NAMES = ("python3", "python")
_EXECUTABLE = 0o111


def find(image: Image) -> str:
    """The absolute path of the image's Python: what it says itself, else the first of its PATH.

    Raises:
        ImageError: there is none.
    """
    if image.python is not None:
        return image.python
    path = next((item[5:] for item in image.env if item.startswith("PATH=")), "")
    root = os.open(image.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _NAMES:
            for directory in path.split(":"):
                if directory.startswith("/") and _is_program(root, f"{directory}/{name}"):
                    return f"{directory}/{name}"
    finally:
        os.close(root)
    raise ImageError(
        f"run tests in {image.reference}: the image has no Python ({' or '.join(_NAMES)} in {path})",
        hint="Use an image with Python 3.8 and pytest 7 or newer; Debian's python3 and python3-pytest will do.",
    )


def _is_program(root: int, path: str) -> bool:
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except OSError:
        return False
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    return stat.S_ISREG(mode) and bool(mode & _EXECUTABLE)

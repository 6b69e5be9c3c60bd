"""The containers that these tests break out of in vain."""

from tests.boxes import bare, box, engine, image, launch, rootfs

__all__ = ["bare", "box", "engine", "image", "launch", "rootfs"]

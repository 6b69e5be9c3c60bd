"""The containers that these tests drive."""

from tests.boxes import bare, box, engine, image, launch, rootfs

__all__ = ["bare", "box", "engine", "image", "launch", "rootfs"]

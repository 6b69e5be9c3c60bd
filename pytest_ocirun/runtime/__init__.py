"""The OCI runtime core: container life cycle. Knows no pytest, no image, no bridge."""

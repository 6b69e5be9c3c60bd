"""The kernel's calls by ctypes, under the kernel's names. Knows nothing above it."""

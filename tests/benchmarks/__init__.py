"""Benchmarks: containers beside runc, crun, bubblewrap and the bare kernel. ``python -m tests.benchmarks --help``."""

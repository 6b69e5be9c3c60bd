"""The suite's own helpers: ``requires``, ``leaks``, ``images``, ``unprivileged``."""

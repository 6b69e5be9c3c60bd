"""The comparison of test suites run plainly and run inside containers; ``tests/compare_plain.py`` is the script."""

"""The suites in here are run by the comparison, not by this one."""

collect_ignore = ["data", "observer"]

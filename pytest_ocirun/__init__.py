"""pytest-ocirun: run tests, and the services they need, in OCI containers with no daemon.

Only the version lives here: this file is also mounted into containers, beside the agent.
"""

__version__ = "0.1.0"

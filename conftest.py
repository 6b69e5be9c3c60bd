"""The root conftest: makes ``tests`` importable and names the plugins that the suite needs.

The checkout goes to the *end* of sys.path: an installed pytest_ocirun wins over the one beside this file.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

pytest_plugins = ["pytester"]
collect_ignore = ["docs"]

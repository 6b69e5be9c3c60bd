"""A suite that nobody should run outside a container: it looks for secrets, for the network, and scribbles.

Inside, there is nothing to be found, so these tests pass.
"""

import errno
import glob
import os
import socket

import pytest

SECRETS = [".ssh", ".aws", ".gnupg", ".netrc", ".bash_history", ".bashrc", ".profile", ".config"]


def test_homes_hold_no_secret():
    found = [path for home in ("/root", "/home/*") for name in SECRETS for path in glob.glob(f"{home}/{name}")]

    assert found == []


def test_password_hashes_are_out_of_reach():
    with pytest.raises((FileNotFoundError, PermissionError)):
        open("/etc/shadow").close()


def test_there_is_no_network():
    with pytest.raises(OSError) as caught:
        socket.create_connection(("192.0.2.1", 443), timeout=2)

    assert caught.value.errno == errno.ENETUNREACH
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


def test_environment_is_not_the_hosts():
    assert not [name for name in os.environ if "TOKEN" in name or "SECRET" in name or "PASSWORD" in name]


def test_other_processes_are_invisible():
    commands = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with open(path) as file:
            commands.append(file.read())

    assert len(commands) < 10


def test_scribbling_over_the_tree_stays_inside():
    with open(__file__, "a") as file:
        file.write("# was here\n")
    with open(__file__) as file:
        assert file.read().endswith("# was here\n")

"""Host and domain name of the uts namespace, and the session keyring. Sources: sethostname(2), keyctl(2)."""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc

_KEYCTL_JOIN_SESSION_KEYRING = 1

_sethostname = _libc.function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = _libc.function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)
_keyctl = _libc.SystemCall("keyctl", ctypes.c_int, ctypes.c_char_p)


def sethostname(name: str) -> None:
    """Set the host name; see sethostname(2)."""
    raw = name.encode()
    _libc.check(_sethostname(raw, len(raw)), "sethostname", name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name; see setdomainname(2)."""
    raw = name.encode()
    _libc.check(_setdomainname(raw, len(raw)), "setdomainname", name)


def join_session_keyring(name: str) -> None:
    """Leave the caller's session keyring for a new one; see keyctl_join_session_keyring(3)."""
    _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, name.encode())

"""Moving the host's network devices into a container: the check, the step, and the way back when it fails.

Responsible for ``linux.netDevices``: names, permanent addresses of global scope, the state up. Must not know who made
the devices, nor routes and names. Loaded only when a config asks for it. Source: runtime-spec config-linux.md
"Network Devices".
"""

from __future__ import annotations

import _socket
import errno
import os

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import sched
from pytest_ocirun.linux.netlink import Address, Route
from pytest_ocirun.oci.codec import member
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config

_MOST_NAME = 15  # IFNAMSIZ without its end
_TEMPLATE = "%d"
_ON_THE_WAY = "ocirun%d"


def check(config: Config) -> None:
    """Check ``linux.netDevices``, also that the devices are there to be moved.

    Raises:
        ConfigError: a name is none, is there twice or not at all, or there is no namespace to move to.
    """
    if config.linux.namespace("network") is None:
        raise ConfigError("$.linux.netDevices: needs a namespace of type network in linux.namespaces")
    taken = set()
    for name, device in config.linux.net_devices.items():
        where = member("$.linux.netDevices", name)
        _check_name(name, where)
        inside = device.name or name
        _check_name(inside.replace(_TEMPLATE, "0", 1), f"{where}.name")
        if inside in taken and _TEMPLATE not in inside:
            raise ConfigError(f"{where}.name: {inside!r} is given to another device already")
        taken.add(inside)
        try:
            _socket.if_nametoindex(name)
        except OSError as error:
            raise ConfigError(f"{where}: the runtime's network namespace has no such device") from error
        if name == "lo":
            raise ConfigError(f"{where}: every network namespace has its own, which cannot be moved")


def _check_name(name: str, where: str) -> None:
    if not 0 < len(os.fsencode(name)) <= _MOST_NAME:
        raise ConfigError(f"{where}: a device's name has 1 to {_MOST_NAME} bytes, got {name!r}")
    if name in (".", "..") or any(letter in "/:%" or letter.isspace() for letter in name):
        raise ConfigError(f"{where}: no name of a device: {name!r}")


@operation("move the network devices {0}, with their addresses, into its network namespace {1}")
def move_devices(context: Context, devices: list[list[str]], path: str) -> None:
    """Move each device and bring it up; when one cannot be moved, those that were moved come back.

    Args:
        context: the replay's.
        devices: [name here, name there] of each.
        path: the namespace that the process is going to join; empty when it was born in it.
    """
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(path or f"/proc/{context.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Route() as here, _route_in(target, own) as there:
            moved: list[_Moved] = []
            try:
                for name, inside in devices:
                    _move(here, there, name, inside, target, moved)
            except OSError:
                _return_all(moved, there, here, own)
                raise
        if _Holding.on:
            _held[context.pid] = (os.dup(target), moved)
    finally:
        os.close(target)
        os.close(own)


class _Holding:
    """Whether what is moved is held, so that ``give_back`` can have it back."""

    on = False


def hold() -> None:
    """Hold what this process will move from now on until ``settle`` or ``give_back``.

    For a spawner that learns whether the container could be made: virtual devices end with their namespace, unless
    somebody has it open.
    """
    _Holding.on = True


def settle(pid: int) -> None:
    """Let go of what was moved to the process ``pid``: its container is made, and the devices are the container's."""
    namespace, _moved = _held.pop(pid, (-1, []))
    if namespace >= 0:
        os.close(namespace)


def give_back(pid: int) -> None:
    """Move back what was moved to the process ``pid``, whose container could not be made after all."""
    namespace, moved = _held.pop(pid, (-1, []))
    if namespace < 0:
        return
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Route() as here, _route_in(namespace, own) as there:
            _return_all(moved, there, here, own)
    finally:
        os.close(own)
        os.close(namespace)


class _Moved:
    """A device that is elsewhere now: its index there, its name here and its addresses."""

    __slots__ = ("addresses", "index", "name")

    def __init__(self, index: int, name: str, addresses: list[Address]) -> None:
        self.index = index
        self.name = name
        self.addresses = addresses


_held: dict[int, tuple[int, list[_Moved]]] = {}
"""By pid of the process that they were moved to: a fd of its network namespace, and the devices."""


def _route_in(namespace: int, own: int) -> Route:
    """A socket in another network namespace: it stays there when this process comes back."""
    sched.setns(namespace, sched.CLONE_NEWNET)
    try:
        return Route()
    finally:
        sched.setns(own, sched.CLONE_NEWNET)


def _move(here: Route, there: Route, name: str, inside: str, target: int, moved: list[_Moved]) -> None:
    try:
        index = _socket.if_nametoindex(name)
        addresses = [address for address in here.addresses(index) if address.lasting]
        before = there.links()
        if inside in before.values():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        index = _arrive(here, there, index, target, inside if _TEMPLATE in inside else _ON_THE_WAY, before)
        moved.append(_Moved(index, name, addresses))
        if _TEMPLATE not in inside:
            there.rename(index, inside)
        _dress(there, index, there.links()[index], addresses)
    except OSError as error:
        raise OSError(error.errno, f"move {name} as {inside}: {error.strerror}") from error


def _arrive(here: Route, there: Route, index: int, target: int, template: str, before: dict[int, str]) -> int:
    """Move a device; its index there."""
    here.move(index, target, template)
    new = there.links().keys() - before.keys()
    return index if index in new else min(new)


def _return_all(moved: list[_Moved], there: Route, here: Route, own: int) -> None:
    for device in reversed(moved):
        _return(device, there, here, own)


def _return(device: _Moved, there: Route, here: Route, own: int) -> None:
    try:
        index = _arrive(there, here, device.index, own, _ON_THE_WAY, here.links())
        here.rename(index, device.name)
        _dress(here, index, device.name, device.addresses)
    except OSError:
        pass  # the error that led here is the one to tell


def _dress(route: Route, index: int, name: str, addresses: list[Address]) -> None:
    for address in addresses:
        route.add_address(index, name, address)
    route.up(index)

"""The runtime configuration has every property of the specification for Linux, under its own key."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.errors import ConfigError
from pytest_ocirun.oci.codec import Document, decode, encode, fields
from pytest_ocirun.oci.process import load_process
from pytest_ocirun.oci.runtime import Config, State, load_config
from tests.requires import requires

KEYS = """
ociVersion process root hostname domainname mounts hooks annotations linux
process.terminal process.consoleSize process.user process.args process.env process.cwd process.capabilities
process.rlimits process.noNewPrivileges process.apparmorProfile process.oomScoreAdj process.scheduler
process.selinuxLabel process.ioPriority process.execCPUAffinity
process.consoleSize.height process.consoleSize.width
process.user.uid process.user.gid process.user.umask process.user.additionalGids
process.capabilities.bounding process.capabilities.effective process.capabilities.inheritable
process.capabilities.permitted process.capabilities.ambient
process.rlimits.type process.rlimits.soft process.rlimits.hard
process.scheduler.policy process.scheduler.nice process.scheduler.priority process.scheduler.flags
process.scheduler.runtime process.scheduler.deadline process.scheduler.period
process.ioPriority.class process.ioPriority.priority
process.execCPUAffinity.initial process.execCPUAffinity.final
root.path root.readonly
mounts.destination mounts.type mounts.source mounts.options mounts.uidMappings mounts.gidMappings
mounts.uidMappings.containerID mounts.uidMappings.hostID mounts.uidMappings.size
mounts.gidMappings.containerID mounts.gidMappings.hostID mounts.gidMappings.size
hooks.prestart hooks.createRuntime hooks.createContainer hooks.startContainer hooks.poststart hooks.poststop
hooks.prestart.path hooks.prestart.args hooks.prestart.env hooks.prestart.timeout
linux.uidMappings linux.gidMappings linux.sysctl linux.resources linux.cgroupsPath linux.namespaces
linux.devices linux.netDevices linux.seccomp linux.rootfsPropagation linux.maskedPaths linux.readonlyPaths
linux.mountLabel linux.intelRdt linux.memoryPolicy linux.personality linux.timeOffsets
linux.uidMappings.containerID linux.uidMappings.hostID linux.uidMappings.size
linux.resources.devices linux.resources.memory linux.resources.cpu linux.resources.pids
linux.resources.blockIO
linux.resources.hugepageLimits linux.resources.network linux.resources.rdma linux.resources.unified
linux.resources.devices.allow linux.resources.devices.type linux.resources.devices.major
linux.resources.devices.minor linux.resources.devices.access
linux.resources.memory.limit linux.resources.memory.reservation linux.resources.memory.swap
linux.resources.memory.kernel linux.resources.memory.kernelTCP linux.resources.memory.swappiness
linux.resources.memory.disableOOMKiller linux.resources.memory.useHierarchy
linux.resources.memory.checkBeforeUpdate
linux.resources.cpu.shares linux.resources.cpu.quota linux.resources.cpu.burst linux.resources.cpu.period
linux.resources.cpu.realtimeRuntime linux.resources.cpu.realtimePeriod linux.resources.cpu.cpus
linux.resources.cpu.mems linux.resources.cpu.idle
linux.resources.pids.limit
linux.resources.blockIO.weight linux.resources.blockIO.leafWeight linux.resources.blockIO.weightDevice
linux.resources.blockIO.throttleReadBpsDevice linux.resources.blockIO.throttleWriteBpsDevice
linux.resources.blockIO.throttleReadIOPSDevice linux.resources.blockIO.throttleWriteIOPSDevice
linux.resources.blockIO.weightDevice.major linux.resources.blockIO.weightDevice.minor
linux.resources.blockIO.weightDevice.weight linux.resources.blockIO.weightDevice.leafWeight
linux.resources.blockIO.throttleReadBpsDevice.major linux.resources.blockIO.throttleReadBpsDevice.minor
linux.resources.blockIO.throttleReadBpsDevice.rate
linux.resources.hugepageLimits.pageSize linux.resources.hugepageLimits.limit
linux.resources.network.classID linux.resources.network.priorities
linux.resources.network.priorities.name linux.resources.network.priorities.priority
linux.resources.rdma.hcaHandles linux.resources.rdma.hcaObjects
linux.namespaces.type linux.namespaces.path
linux.devices.path linux.devices.type linux.devices.major linux.devices.minor linux.devices.fileMode
linux.devices.uid linux.devices.gid
linux.netDevices.name
linux.seccomp.defaultAction linux.seccomp.defaultErrnoRet linux.seccomp.architectures linux.seccomp.flags
linux.seccomp.listenerPath linux.seccomp.listenerMetadata linux.seccomp.syscalls
linux.seccomp.syscalls.names linux.seccomp.syscalls.action linux.seccomp.syscalls.errnoRet
linux.seccomp.syscalls.args linux.seccomp.syscalls.args.index linux.seccomp.syscalls.args.value
linux.seccomp.syscalls.args.valueTwo linux.seccomp.syscalls.args.op
linux.intelRdt.closID linux.intelRdt.schemata linux.intelRdt.l3CacheSchema linux.intelRdt.memBwSchema
linux.intelRdt.enableMonitoring
linux.memoryPolicy.mode linux.memoryPolicy.nodes linux.memoryPolicy.flags
linux.personality.domain linux.personality.flags
linux.timeOffsets.secs linux.timeOffsets.nanosecs
"""

MINIMAL = {
    "ociVersion": "1.0.0",
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
    "root": {"path": "rootfs"},
}


def test_every_property_of_the_specification() -> None:
    """The list above was written from config.md and config-linux.md of 1.3.0."""
    hooks = ("createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    same = tuple(
        f"{place}."
        for place in (
            *(f"hooks.{name}" for name in hooks),
            "linux.gidMappings",
            *(f"linux.resources.blockIO.throttle{kind}Device" for kind in ("WriteBps", "ReadIOPS", "WriteIOPS")),
        )
    )
    found = {path for path in _paths(Config, "") if not path.startswith(same)}

    assert found == set(KEYS.split())


def _paths(cls: type[Document], prefix: str) -> list[str]:
    found = []
    for each in fields(cls):
        found.append(f"{prefix}{each.key}")
        for inner in _documents(cls.__annotations__[each.name]):
            found += _paths(inner, f"{prefix}{each.key}.")
    return found


def _documents(annotation: object) -> list[type[Document]]:
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return [annotation]
    return [inner for part in getattr(annotation, "__args__", ()) for inner in _documents(part)]


def test_minimal_configuration() -> None:
    """What is absent is empty, and stays absent."""
    config = load_config(json.dumps(MINIMAL).encode())

    assert config.linux.resources.memory.limit is None
    assert config.linux.namespace("pid") is None
    assert encode(config) == MINIMAL


@requires("runc")
@pytest.mark.parametrize("rootless", [[], ["--rootless"]])
def test_spec_of_runc_survives(rootless: list[str], tmp_path: Path) -> None:
    """Nothing of a real configuration is lost or added."""
    subprocess.run(["runc", "spec", *rootless], cwd=tmp_path, check=True)
    text = (tmp_path / "config.json").read_bytes()
    config = load_config(text)

    assert encode(config) == json.loads(text)
    assert config.linux.namespace("mount") is not None


@requires("crun")
def test_spec_of_crun_survives(tmp_path: Path) -> None:
    """The same for another writer, who also writes empty lists."""
    subprocess.run(["crun", "spec"], cwd=tmp_path, check=True)
    text = (tmp_path / "config.json").read_bytes()

    assert _without_empty(encode(load_config(text))) == _without_empty(json.loads(text))


def _without_empty(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item != []}
    return value


@pytest.mark.parametrize(
    "path, message",
    [
        ("process", "$.process: required, but missing"),
        ("root", "$.root: required, but missing"),
        ("ociVersion", "$.ociVersion: required, but missing"),
    ],
)
def test_required_property(path: str, message: str) -> None:
    """The message names the file and the property."""
    document = {key: value for key, value in MINIMAL.items() if key != path}
    with pytest.raises(ConfigError) as caught:
        load_config(json.dumps(document).encode(), "b/config.json")

    assert str(caught.value) == f"cannot read b/config.json: {message}"


def test_process_alone() -> None:
    """As ``exec --process`` takes it; paths start at the process."""
    process = load_process(json.dumps(MINIMAL["process"]).encode())
    with pytest.raises(ConfigError, match=r"cannot read p: \$\.user\.uid: expected integer, got string \"x\""):
        load_process(b'{"cwd": "/", "user": {"uid": "x"}}', "p")

    assert process.args == ["sh"]


def test_state() -> None:
    """A stopped container has no pid."""
    state = State(oci_version="1.2.0", id="a", status="stopped", bundle="/b")

    assert encode(state) == {"ociVersion": "1.2.0", "id": "a", "status": "stopped", "bundle": "/b"}


_IMPORT = """
import sys
sys.path.append(sys.argv[1])
before = set(sys.modules)
import pytest_ocirun.oci.runtime
print(sorted(name for name in set(sys.modules) - before if not name.startswith("pytest_ocirun")))
"""


def test_import_is_cheap() -> None:
    """Nothing but itself, not even json: a container runtime is started anew for each command."""
    package = Path(pytest_ocirun.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _IMPORT, str(package)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "['__future__']\n"


_RIGHT: dict[type, object] = {str: "x", int: 1, bool: True}
_WRONG: dict[type, tuple[object, ...]] = {
    str: (1, True, [], {}),
    int: ("1", True, 1.5, [], {}),
    bool: (1, "true", [], {}),
    list: ("x", 1, {}),
    dict: ("x", 1, []),
    Document: ("x", 1, []),
}


def _least(cls: type[Document]) -> dict[str, object]:
    """A document with what is required and nothing else."""
    found: dict[str, object] = {}
    for each in fields(cls):
        if each.required:
            kind, inner = _kind(cls, each.name)
            found[each.key] = _RIGHT[kind] if kind in _RIGHT else _least(inner[0]) if kind is Document else []
    return found


def _kind(cls: type[Document], name: str) -> tuple[type, list[type[Document]]]:
    """(str, int, bool, list, dict or Document, the documents within)."""
    annotation: Any = cls.__annotations__[name]
    if None.__class__ in getattr(annotation, "__args__", ()):
        annotation = next(part for part in annotation.__args__ if part is not type(None))
    inner = _documents(annotation)
    origin = getattr(annotation, "__origin__", annotation)
    return (Document if origin in inner else origin), inner


def _wrongs(cls: type[Document], path: str) -> list[tuple[str, dict[str, Any]]]:
    """(path, document) for each property below ``cls``, with a value of each other type."""
    found: list[tuple[str, dict[str, Any]]] = []
    for each in fields(cls):
        kind, inner = _kind(cls, each.name)
        place = f"{path}.{each.key}"
        found += [(place, {**_least(cls), each.key: wrong}) for wrong in _WRONG[kind]]
        for below in inner[:1]:
            step = "[0]" if kind is list else '["k"]' if kind is dict else ""
            for wrong_path, document in _wrongs(below, f"{place}{step}"):
                value: object = [document] if kind is list else {"k": document} if kind is dict else document
                found.append((wrong_path, {**_least(cls), each.key: value}))
    return found


def test_every_property_of_another_type_is_an_error() -> None:
    """The message begins with the path of each, and says what was expected and what was there."""
    cases = _wrongs(Config, "$")
    for path, document in cases:
        with pytest.raises(ConfigError) as caught:
            decode(Config, document)
        assert str(caught.value).startswith(f"{path}: expected "), (path, str(caught.value))

    assert len(cases) > 800

"""Configurations that make no sense, or ask for what is not done yet, end in one error with its path."""

import json
import os
from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.oci.codec import encode
from pytest_ocirun.oci.process import load_process
from pytest_ocirun.oci.runtime import BlockIO, Config, DeviceRule, HugepageLimit, NetworkLimits, Resources, load_config
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.sysctls import sysctl_path
from pytest_ocirun.runtime.unsupported import select
from pytest_ocirun.runtime.validate import validate
from pytest_ocirun.runtime.validate_process import validate_process
from pytest_ocirun.runtime.validate_resources import BLOCK_RANGES, RANGES

MAPPING = {"containerID": 0, "hostID": 100000, "size": 65536}
BIND = {"destination": "/x", "source": "/y", "options": ["bind"]}
NO_NAMESPACES: dict[str, Any] = {
    "linux.namespaces": [],
    "hostname": None,
    "linux.maskedPaths": [],
    "linux.readonlyPaths": [],
}


def _config(changes: dict[str, Any]) -> Config:
    """``spec`` with some properties changed, by dotted path; a name may end in ``+`` to append to a list."""
    document = json.loads(json.dumps(encode(defaults.spec())))
    for path, value in json.loads(json.dumps(changes)).items():
        *above, last = path.split(".")
        place = document
        for name in above:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        if last.endswith("+"):
            place.setdefault(last[:-1], []).append(value)
        elif value is None:
            place.pop(last, None)
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return load_config(json.dumps(document).encode())


USER = {"linux.namespaces+": {"type": "user"}}
MAPPED = {**USER, "linux.uidMappings": [MAPPING], "linux.gidMappings": [MAPPING]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        MAPPED,
        {"ociVersion": "1.0.2-dev"},
        {"ociVersion": "1.3.0+dev"},
        {"process.user.uid": 2**32 - 2, "process.user.additionalGids": [0, 2**32 - 2], "process.user.umask": 0o77},
        {"process.env": ["A=", "B==", "A=b"], "process.oomScoreAdj": -1000},
        {"process.rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]},
        {"process.rlimits.0.type": "RLIMIT_LOCKS"},
        {"process.terminal": None, "process.consoleSize": {"height": 25, "width": 80}},
        {"process.capabilities": None, "process.rlimits": None},
        {"linux.namespaces": [{"type": "mount"}], "hostname": None},
        {"linux.namespaces.0.path": "/proc/self/ns/pid"},
        {
            "linux.uidMappings": [MAPPING],
            "linux.gidMappings": [MAPPING],
            "linux.namespaces+": {"type": "user", "path": "/proc/self/ns/user"},
        },
        {**MAPPED, "linux.uidMappings": [{**MAPPING, "size": 1}, {"containerID": 1, "hostID": 200000, "size": 2**20}]},
        {"domainname": "d" * 64, "linux.sysctl": {"kernel.shmmax": "1", "fs/mqueue/msg_max": "5"}},
        {"linux.sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1"}},
        {"linux.cgroupsPath": "/a/b..c/d", "linux.rootfsPropagation": "rslave"},
        {"mounts+": BIND},
        {"mounts+": {**BIND, "options": ["rbind", "rro", "private", "noatime"]}},
        {"mounts+": {**BIND, "destination": "/proc/uptime"}},
        {"mounts.0": {**BIND, "destination": "/proc"}},
        {"mounts+": {"destination": "/o", "type": "overlay", "options": ["lowerdir=/l", "idmap"]}},
        {"linux.devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}]},
        {"linux.devices": [{"path": "/dev/pipe", "type": "p"}, {"path": "/u", "type": "u", "major": 1, "minor": 3}]},
        {"linux.rootfsPropagation": "shared"},
        {**NO_NAMESPACES, "linux.maskedPaths": ["/x"], "linux.readonlyPaths": ["/y"]},
        {"mounts.1.options": ["rro", "tmpcopyup"]},
        {
            "mounts+": {
                **BIND,
                "options": ["bind", "ridmap", "remount"],
                "uidMappings": [MAPPING],
                "gidMappings": [MAPPING],
            }
        },
        {"mounts+": {"destination": "/x", "options": ["remount", "ro"]}},
        {**MAPPED, "linux.devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]},
        {"linux.resources.memory": {"limit": 10**9, "swap": -1, "reservation": 5, "useHierarchy": True}},
        {"linux.resources.cpu": {"shares": 2, "quota": -1, "period": 1000, "cpus": "0-3,7", "mems": "0"}},
        {"linux.resources.pids": {"limit": -1}},
        {"linux.seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}},
        {"linux.seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}},
        {"hooks": {"prestart": []}, "annotations": {"a": ""}},
        {"linux.timeOffsets": {}, "linux.personality": None, "unknown": 1},
    ],
)
def test_sensible_configuration(changes: dict[str, Any]) -> None:
    """Passes without a warning."""
    assert validate(_config(changes)) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"ociVersion": "2.0.0"}, "$.ociVersion: expected a version 1.x.y, got '2.0.0'"),
        ({"ociVersion": "1"}, "$.ociVersion: "),
        ({"ociVersion": "1.x"}, "$.ociVersion: "),
        ({"ociVersion": ""}, "$.ociVersion: "),
        ({"root.path": ""}, "$.root.path: must not be empty"),
        ({"process.args": []}, "$.process.args: must name a program"),
        ({"process.args": [""]}, "$.process.args: must name a program"),
        ({"process.args.0": "sh\0-c"}, "$.process.args[0]: contains a NUL"),
        ({"process.cwd": "tmp"}, "$.process.cwd: must be an absolute path, got 'tmp'"),
        ({"process.cwd": ""}, "$.process.cwd: "),
        ({"process.env.1": "TERM"}, "$.process.env[1]: expected NAME=VALUE, got 'TERM'"),
        ({"process.env.1": "=x"}, "$.process.env[1]: "),
        ({"process.env.0": "A=\0"}, "$.process.env[0]: contains a NUL"),
        ({"process.user.uid": 2**32 - 1}, "$.process.user.uid: expected 0 to 4294967294, got 4294967295"),
        ({"process.user.uid": -1}, "$.process.user.uid: "),
        ({"process.user.gid": 2**32}, "$.process.user.gid: "),
        ({"process.user.additionalGids": [1, 2**32 - 1]}, "$.process.user.additionalGids[1]: "),
        ({"process.user.umask": 0o1000}, "$.process.user.umask: "),
        ({"process.oomScoreAdj": 1001}, "$.process.oomScoreAdj: expected -1000 to 1000"),
        ({"process.consoleSize": {"height": 65536, "width": 1}}, "$.process.consoleSize.height: "),
        ({"process.rlimits.0.type": "RLIMIT_FOO"}, "$.process.rlimits[0].type: 'RLIMIT_FOO' is none of RLIMIT_AS"),
        ({"process.rlimits.0.soft": 1025}, "$.process.rlimits[0].soft: 1025 is more than the hard limit 1024"),
        ({"process.rlimits.0.soft": -1}, "$.process.rlimits[0].soft: expected 0 to"),
        ({"process.rlimits.0.hard": 2**64}, "$.process.rlimits[0].hard: "),
        ({**MAPPED, "process.user.uid": 65536}, "$.process.user.uid: the container's user namespace has no id 65536"),
        ({**MAPPED, "process.user.additionalGids": [0, 70000]}, "$.process.user.additionalGids[1]: "),
        (
            {"process.capabilities.effective+": "CAP_CHOWN"},
            "$.process.capabilities.effective[3]: CAP_CHOWN is not in $.process.capabilities.permitted too",
        ),
        ({"process.capabilities.inheritable": ["CAP_CHOWN"]}, "$.process.capabilities.inheritable[0]: CAP_CHOWN is"),
        (
            {"process.rlimits+": {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}},
            "$.process.rlimits[1].type: RLIMIT_NOFILE is there twice",
        ),
        ({"annotations": {"": "x"}}, "$.annotations: a key must not be empty"),
        ({"annotations": {"a\0": "x"}}, '$.annotations["a\\x00"]: contains a NUL'),
        ({"linux.namespaces.0.type": "pids"}, "$.linux.namespaces[0].type: 'pids' is none of user, mount"),
        ({"linux.namespaces+": {"type": "pid"}}, "$.linux.namespaces[5].type: a namespace of type pid is there twice"),
        ({"linux.namespaces.0.path": "ns"}, "$.linux.namespaces[0].path: must be absolute"),
        ({"linux.uidMappings": [MAPPING]}, "$.linux.uidMappings: needs a namespace of type user"),
        (USER, "$.linux.uidMappings: a new user namespace needs it"),
        ({**USER, "linux.uidMappings": [MAPPING]}, "$.linux.gidMappings: a new user namespace needs it"),
        ({**MAPPED, "linux.uidMappings.0.size": 0}, "$.linux.uidMappings[0].size: expected 1 to"),
        ({**MAPPED, "linux.uidMappings.0.hostID": -1}, "$.linux.uidMappings[0].hostID: "),
        (
            {**MAPPED, "linux.gidMappings.0.size": 2**32 - 2},
            "$.linux.gidMappings[0].size: 100000 + 4294967294 goes beyond",
        ),
        (
            {**MAPPED, "linux.uidMappings": [{**MAPPING, "containerID": 65535}, {**MAPPING, "hostID": 500000}]},
            "$.linux.uidMappings[0]: overlaps with $.linux.uidMappings[1] in its container ids",
        ),
        (
            {**MAPPED, "linux.gidMappings": [MAPPING, {**MAPPING, "containerID": 65536}]},
            "$.linux.gidMappings[1]: overlaps with $.linux.gidMappings[0] in its host ids",
        ),
        ({**NO_NAMESPACES, "hostname": "h"}, "$.hostname: needs a namespace of type uts"),
        ({**NO_NAMESPACES, "domainname": "h"}, "$.domainname: needs a namespace of type uts"),
        (
            {"linux.namespaces.3.path": "/proc/self/ns/uts"},
            "$.hostname: needs a namespace of type uts in linux.namespaces, other than the runtime's own",
        ),
        ({"linux.namespaces.0.path": "/proc/self/ns/uts"}, "$.linux.namespaces[0].path: /proc/self/ns/uts is a names"),
        ({"linux.namespaces.0.path": "/etc/passwd"}, "$.linux.namespaces[0].path: /etc/passwd is no namespace, not"),
        ({"linux.namespaces.0.path": "/nosuch"}, "$.linux.namespaces[0].path: /nosuch: No such file"),
        ({"hostname": "h" * 65}, "$.hostname: the kernel takes 64 bytes, got 65"),
        (
            {"domainname": "d", "linux.sysctl": {"kernel.domainname": "e"}},
            '$.linux.sysctl["kernel.domainname"]: $.domainname says it already',
        ),
        ({"linux.sysctl": {"kernel/hostname": "e"}}, '$.linux.sysctl["kernel/hostname"]: $.hostname says it already'),
        ({"linux.sysctl": {"net.x": "1", "net/x": "2"}}, "$.linux.sysctl[\"net/x\"]: is the same as 'net.x'"),
        ({"linux.maskedPaths": ["proc/kcore"]}, "$.linux.maskedPaths[0]: must be absolute"),
        ({"linux.readonlyPaths": ["x"]}, "$.linux.readonlyPaths[0]: must be absolute"),
        ({"linux.cgroupsPath": "a/../../b"}, "$.linux.cgroupsPath: must not contain '..'"),
        ({"linux.rootfsPropagation": "public"}, "$.linux.rootfsPropagation: 'public' is none of private"),
        ({"mounts.0.destination": ""}, "$.mounts[0].destination: must name a place below the root"),
        ({"mounts.0.destination": "/a/.."}, "$.mounts[0].destination: must name a place below the root"),
        ({"mounts.1.type": ""}, "$.mounts[1].type: missing, and the options name no bind"),
        ({"mounts+": {**BIND, "source": ""}}, "$.mounts[7].source: a bind mount needs a source"),
        ({"mounts+": {**BIND, "destination": "/proc/self/attr"}}, "$.mounts[7].destination: /proc/self/attr must not"),
        ({"mounts+": {**BIND, "destination": "//proc/./sys"}}, "$.mounts[7].destination: /proc/sys must not"),
        ({"mounts+": {**BIND, "destination": "proc/1"}}, "$.mounts[7].destination: /proc/1 must not"),
        ({"mounts.0.type": "tmpfs"}, "$.mounts[0].destination: /proc must not be covered"),
        ({"mounts+": {**BIND, "uidMappings": [MAPPING]}}, "$.mounts[7].gidMappings: missing, beside uidMappings"),
        ({"mounts+": {**BIND, "gidMappings": [MAPPING]}}, "$.mounts[7].uidMappings: missing, beside gidMappings"),
        (
            {"mounts+": {**BIND, "uidMappings": [MAPPING, MAPPING], "gidMappings": [MAPPING]}},
            "$.mounts[7].uidMappings[1]: overlaps",
        ),
        (
            {"mounts+": {**BIND, "uidMappings": [{**MAPPING, "size": 0}], "gidMappings": [MAPPING]}},
            "$.mounts[7].uidMappings[0].size: expected 1",
        ),
        ({"mounts.1.uidMappings": [MAPPING]}, "$.mounts[1].uidMappings: only a bind takes mappings"),
        ({"mounts.1.options+": "idmap"}, "$.mounts[1].options: idmap is for a bind"),
        ({"mounts.0.options+": "tmpcopyup"}, "$.mounts[0].options: tmpcopyup is for a tmpfs"),
        ({"mounts.1.options+": "remount"}, "$.mounts[1].options: a remount changes the mount alone"),
        (
            {
                **NO_NAMESPACES,
                "linux.namespaces": [{"type": "user"}],
                "linux.uidMappings": [MAPPING],
                "linux.gidMappings": [MAPPING],
            },
            "$.linux.namespaces: a container with a user namespace needs a mount namespace",
        ),
        ({"linux.rootfsPropagation": "public"}, "$.linux.rootfsPropagation: 'public' is none of"),
        ({"mounts.0.source": "a\0b"}, "$.mounts[0].source: contains a NUL"),
        ({"linux.sysctl": {"kernel.panic": "1"}}, '$.linux.sysctl["kernel.panic"]: belongs to no namespace'),
        ({"linux.sysctl": {"network.x": "1"}}, '$.linux.sysctl["network.x"]: belongs to no namespace'),
        ({"linux.sysctl": {"kernel.shmmaxx": "1"}}, '$.linux.sysctl["kernel.shmmaxx"]: belongs to no namespace'),
        ({"linux.sysctl": {"net/../kernel/panic": "1"}}, '$.linux.sysctl["net/../kernel/panic"]: is no name'),
        ({"linux.sysctl": {"net..x": "1"}}, '$.linux.sysctl["net..x"]: is no name'),
        (
            {"linux.namespaces": [{"type": "mount"}], "hostname": None, "linux.sysctl": {"net.x": "1"}},
            '$.linux.sysctl["net.x"]: needs a namespace of type network other than the runtime\'s own',
        ),
        (
            {"linux.namespaces.1.path": f"/proc/{os.getpid()}/ns/net", "linux.sysctl": {"net.x": "1"}},
            '$.linux.sysctl["net.x"]: needs a namespace of type network other than the runtime\'s own',
        ),
        ({"linux.sysctl": {"user.max_user_namespaces": "1"}}, '$.linux.sysctl["user.max_user_namespaces"]: needs'),
        ({"linux.timeOffsets": {"monotonic": {"secs": 1}}}, '$.linux.timeOffsets["monotonic"]: needs a new name'),
        ({"linux.timeOffsets": {"realtime": {"secs": 1}}}, "$.linux.timeOffsets[\"realtime\"]: 'realtime' is none"),
        ({"linux.devices": [{"path": "/dev/x", "type": "x"}]}, "$.linux.devices[0].type: 'x' is none of c, u, b, p"),
        ({"linux.devices": [{"path": "dev/x", "type": "p"}]}, "$.linux.devices[0].path: must be absolute"),
        ({"linux.devices": [{"path": "/dev/../x", "type": "p"}]}, "$.linux.devices[0].path: must be absolute"),
        ({"linux.devices": [{"path": "/dev/x", "type": "c"}]}, "$.linux.devices[0]: a device of type c needs major"),
        (
            {"linux.devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2**20}]},
            "$.linux.devices[0].minor: expected 0 to 1048575",
        ),
        ({"linux.resources.memory": {"limit": -2}}, "$.linux.resources.memory.limit: expected -1 to"),
        ({"linux.resources.memory": {"limit": 5, "swap": 4}}, "$.linux.resources.memory.swap: 4 is memory and swap"),
        ({"linux.resources.cpu": {"period": 0}}, "$.linux.resources.cpu.period: expected 1 to"),
        ({"linux.resources.cpu": {"cpus": "0..3"}}, "$.linux.resources.cpu.cpus: expected a list"),
        ({"linux.resources.pids": {"limit": -5}}, "$.linux.resources.pids.limit: expected -1"),
        ({"linux.resources.memory": {"swappiness": 101}}, "$.linux.resources.memory.swappiness: expected 0 to 100"),
        ({"linux.resources.cpu": {"idle": 2}}, "$.linux.resources.cpu.idle: expected 0 to 1"),
        ({"linux.resources.cpu": {"quota": 5000, "burst": 5001}}, "$.linux.resources.cpu.burst: must be no more"),
        ({"linux.resources.cpu": {"realtimePeriod": 0}}, "$.linux.resources.cpu.realtimePeriod: expected 1 to"),
        ({"linux.resources.blockIO": {"weight": 9}}, "$.linux.resources.blockIO.weight: expected 10 to 1000"),
        (
            {"linux.resources.blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
            "$.linux.resources.blockIO.weightDevice[0]: needs weight",
        ),
        (
            {"linux.resources.blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": -1}]}},
            "$.linux.resources.blockIO.throttleReadBpsDevice[0].rate: expected 0",
        ),
        (
            {"linux.resources.hugepageLimits": [{"pageSize": "2M", "limit": 0}]},
            "$.linux.resources.hugepageLimits[0].pageSize: expected a size",
        ),
        ({"linux.resources.rdma": {"mlx": {}}}, '$.linux.resources.rdma["mlx"]: needs hcaHandles'),
        ({"linux.resources.rdma": {"m": {"hcaHandles": -1}}}, '$.linux.resources.rdma["m"].hcaHandles: expected 0'),
        ({"linux.resources.network": {"classID": 2**32}}, "$.linux.resources.network.classID: expected 0"),
        ({"linux.resources.unified": {"../memory.max": "1"}}, '$.linux.resources.unified["../memory.max"]: must'),
        ({"linux.intelRdt": {"closID": "a/b"}}, "$.linux.intelRdt.closID: must be a single name"),
        ({"linux.intelRdt": {"closID": ".."}}, "$.linux.intelRdt.closID: must be a single name"),
        ({"linux.intelRdt": {"memBwSchema": "L3:0=f"}}, "$.linux.intelRdt.memBwSchema: must begin with 'MB:'"),
        ({"linux.intelRdt": {"memBwSchema": "MB:0=5\nMB:1=5"}}, "$.linux.intelRdt.memBwSchema: must not contain"),
        ({"linux.resources.unified": {"memory": "1"}}, '$.linux.resources.unified["memory"]: must name a file'),
        ({"linux.resources.devices+": {"allow": True, "type": "p"}}, "$.linux.resources.devices[1].type: 'p' is none"),
        ({"linux.resources.devices+": {"allow": True, "access": "x"}}, "$.linux.resources.devices[1].access: "),
        ({"linux.resources.devices+": {"allow": True, "major": 4096}}, "$.linux.resources.devices[1].major: "),
        ({"linux.seccomp": {"defaultAction": "DENY"}}, "$.linux.seccomp.defaultAction: 'DENY' is none of"),
        ({"hooks": {"poststop": [{"path": "x"}]}}, "$.hooks.poststop[0].path: must be absolute"),
        ({"hooks": {"prestart": [{"path": "/x", "timeout": 0}]}}, "$.hooks.prestart[0].timeout: expected 1 to"),
        ({"hooks": {"poststart": [{"path": "/x", "env": ["A=", "B"]}]}}, "$.hooks.poststart[0].env[1]: expected NAME="),
    ],
)
def test_nonsense(changes: dict[str, Any], message: str) -> None:
    """One ConfigError that begins with the path."""
    with pytest.raises(ConfigError) as caught:
        validate(_config(changes))

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "changes, message",
    [({"mounts+": {**BIND, "options": ["bind", "src-nofollow"]}}, "$.mounts[7].options: not supported for bind")],
)
def test_not_done_yet(changes: dict[str, Any], message: str) -> None:
    """One Unsupported that begins with the path: nothing is silently ignored."""
    with pytest.raises(Unsupported) as caught:
        validate(_config(changes))

    assert str(caught.value).startswith(message)


def test_tables_name_attributes_that_exist() -> None:
    """A misspelt line would check nothing."""
    groups = {"devices": DeviceRule(allow=True), "hugepage_limits": HugepageLimit(page_size="2MB", limit=1)}
    resources = Resources(network=NetworkLimits(), block_io=BlockIO())
    rows = [(groups.get(name) or getattr(resources, name), *row) for name, rows in RANGES.items() for row in rows]
    rows += [(resources.block_io, *row) for row in BLOCK_RANGES]

    assert [
        attribute for group, attribute, _range in rows if attribute != "limit" and list(select(group, attribute))
    ] == []


def test_select_follows_lists() -> None:
    """Absent values are left out, paths use JSON's names."""
    config = _config({"linux.namespaces.2.path": "/p"})

    assert list(select(config, "linux.namespaces[].path")) == [("$.linux.namespaces[2].path", "/p")]
    assert list(select(config, "process.capabilities.permitted[]"))[1] == (
        "$.process.capabilities.permitted[1]",
        "CAP_KILL",
    )


def test_unknown_capability_is_a_warning() -> None:
    """So says the specification since 1.0.3."""
    warnings = validate(_config({"process.capabilities.bounding+": "CAP_FLY"}))

    assert warnings == ["$.process.capabilities.bounding[3]: unknown capability 'CAP_FLY' is left out"]


@pytest.mark.conforms("config: $.linux.resources.memory.kernel", "config: $.linux.resources.memory.kernelTCP")
def test_limits_that_the_kernel_lost_are_warnings() -> None:
    """As with runc; a client of old goes on, and is told."""
    warnings = validate(_config({"linux.resources.memory": {"kernel": 1, "kernelTCP": 1}}))

    assert [warning.split(": ")[0] for warning in warnings] == [
        "$.linux.resources.memory.kernel",
        "$.linux.resources.memory.kernelTCP",
    ]


def test_relative_destination_is_a_warning() -> None:
    """As in runc, for configurations of old."""
    warnings = validate(_config({"mounts+": {**BIND, "destination": "x"}}))

    assert warnings == ["$.mounts[7].destination: 'x' is not absolute; taken from the root"]


def test_file_system_options_of_a_bind_are_a_warning() -> None:
    """They would mean something for a file system of its own; the runtime-tools give some."""
    warnings = validate(_config({"mounts+": {**BIND, "options": ["bind", "", "size=1", "sync", "silent"]}}))

    assert warnings == ["$.mounts[7].options: a bind makes no file system; left out: size, sync"]


def test_process_alone() -> None:
    """Paths start at the process; the same checks, the same refusals."""
    plain = {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "capabilities": {"bounding": ["CAP_X"]}}

    def check(**changes: object) -> list[str]:
        return validate_process(load_process(json.dumps({**plain, **changes}).encode()))

    assert check() == ["$.capabilities.bounding[0]: unknown capability 'CAP_X' is left out"]
    with pytest.raises(ConfigError, match=r"^\$\.cwd: must be an absolute path"):
        check(cwd="x")
    with pytest.raises(ConfigError, match=r"^\$\.env\[0\]: contains a NUL"):
        check(env=["A=\0"])
    with pytest.raises(ConfigError, match=r"^\$\.scheduler.policy: "):
        check(scheduler={"policy": "SCHED_FLY"})


@pytest.mark.parametrize(
    "name, path",
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_sysctl_path(name: str, path: str) -> None:
    """Both forms of sysctl(8)."""
    assert sysctl_path(name) == path

"""Plans are pure and in the right order. What they do is tested in tests/integration."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import sched
from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.oci.runtime import Config, IDMapping, Mount, Namespace, Root, TimeOffset
from pytest_ocirun.runtime import defaults, plan, spawn  # noqa: F401 - it registers operations
from pytest_ocirun.runtime.idmap import host_id
from pytest_ocirun.runtime.plan import Surroundings, container_plan, describe_plan, exec_plan
from pytest_ocirun.runtime.root_plan import IDMAP, OVERLAY, overlay_limits
from pytest_ocirun.runtime.steps import _HOMES, _operations, describe

Plan = dict[str, Any]


def confined() -> Config:
    """A config for code that is not trusted."""
    config = defaults.spec()
    config.process.terminal = False
    ids = [IDMapping(container_id=0, host_id=100000, size=65536)]
    defaults.confine(config, ids, ids)
    config.mounts = [mount for mount in config.mounts if mount.type != "cgroup"]
    config.annotations = {OVERLAY: "size=1048576,inodes=100", IDMAP: "root"}
    return config


def around(**more: Any) -> Surroundings:
    """Surroundings with a filter, on cgroup v1."""
    return Surroundings(**{"id": "box", "bundle": "/b", "procs": ["/c/cgroup.procs"], "filter_flags": 0, **more})


def names(steps: list[list[Any]]) -> list[str]:
    """The operations."""
    return [step[0] for step in steps]


def assert_order(found: list[str], *wanted: str) -> None:
    """Each of ``wanted`` is there, in this order, the last occurrence of each counting."""
    places = [len(found) - 1 - found[::-1].index(name) for name in wanted if name in found]

    assert [name for name in wanted if name not in found] == []
    assert places == sorted(places), found


def test_plan_is_plain_json_and_the_same_each_time() -> None:
    """It survives the way to the spawner, and reads nothing of the system."""
    first, second = container_plan(confined(), around()), container_plan(confined(), around())

    assert json.loads(json.dumps(first)) == first == second


def test_plan_needs_no_file_of_its_config() -> None:
    """Pure: paths that do not exist make the same plan."""
    config = confined()
    config.root = Root(path="/no/such/root")
    config.mounts.append(Mount(destination="/x", type="bind", source="/no/such/source", options=["ro"]))

    assert ["clone_tree", "mount6", "/no/such/source", False, 1, 0, 0, 0, None] in container_plan(config, around())[
        "prepare"
    ]


def test_order_of_a_containers_steps() -> None:
    """What must come before what; the reasons stand in ``rootfs`` and ``process``."""
    config = confined()
    config.linux.sysctl = {"net.ipv4.ip_forward": "1"}
    made: Plan = container_plan(config, around(die_with_spawner=True))
    enter = names(made["enter"])

    assert_order(enter, "become_root", "unshare_cgroup", "new_session", "new_keyring", "hostname", "loopback_up")
    assert_order(enter, "propagation", "attach_root", "mount_new", "read_only", "mask", "root_read_only", "pivot")
    assert_order(enter, "sysctl", "pivot", "chdir", "bounding", "user", "chdir_again", "no_new_privs")
    assert_order(enter, "user", "capabilities", "die_with_spawner", "ready", "wait_start", "arrange_fds")
    assert enter[-3:] == ["default_signals", "load_filter", "execute"]
    assert_order(enter, "find_executable", "load_filter")
    assert_order(names(made["prepare"]), "upper_tmpfs", "overlay", "drop_upper")


def test_masks_come_after_every_mount_and_before_the_pivot() -> None:
    """A mask that a later mount could cover would hide nothing; after the pivot /dev/null would be the image's."""
    enter = names(container_plan(confined(), around())["enter"])
    last_mount = max(index for index, name in enumerate(enter) if name in ("mount_new", "attach", "bind_device"))

    assert last_mount < enter.index("mask") < enter.index("pivot")


def test_filter_without_no_new_privs_is_loaded_while_it_may_be() -> None:
    """Without no_new_privs loading needs CAP_SYS_ADMIN, so it comes before the capabilities go, but as late as that."""
    config = confined()
    config.process.no_new_privileges = False
    enter = names(container_plan(config, around())["enter"])

    assert "no_new_privs" not in enter
    assert_order(enter, "pivot", "bounding", "user", "chdir_again", "find_executable", "load_filter", "capabilities")
    assert enter.count("load_filter") == 1


def test_nothing_comes_between_the_filter_and_the_program() -> None:
    """A strict filter would kill us."""
    for made in (container_plan(confined(), around()), exec_plan(confined().process, confined(), (7, 8), around())):
        assert names(made["enter"])[-2:] == ["load_filter", "execute"]


def test_no_filter_no_step() -> None:
    """Without a filter nothing is loaded."""
    assert "load_filter" not in names(container_plan(confined(), around(filter_flags=None))["enter"])


def test_namespaces_and_maps() -> None:
    """All namespaces at once but the cgroup's on v1, which is unshared after the join."""
    v1, v2 = (container_plan(confined(), around(**more)) for more in ({}, {"procs": [], "cgroup_v2": "/c"}))
    every = sum(sched.NAMESPACES[kind] for kind in (*defaults.NAMESPACES, "user"))

    assert v2["clone"] == every
    assert v1["clone"] == every & ~sched.CLONE_NEWCGROUP
    assert ("unshare_cgroup" in names(v1["enter"]), "unshare_cgroup" in names(v2["enter"])) == (True, False)
    assert v1["idmaps"] == [[[0, 100000, 65536]]] * 2
    assert (v1["cgroups"], v2["cgroups"]) == ({"procs": ["/c/cgroup.procs"], "v2": None}, {"procs": [], "v2": "/c"})


def test_namespaces_to_join() -> None:
    """That of pids is joined before the clone, the others by the process itself, none is made anew."""
    config = confined()
    config.linux.uid_mappings = config.linux.gid_mappings = []
    config.annotations.pop(IDMAP)
    config.linux.namespaces = [Namespace(type=kind, path=f"/ns/{kind}") for kind in ("pid", "network", "ipc")]
    config.linux.namespaces += [Namespace(type=kind) for kind in ("mount", "uts")]
    made = container_plan(config, around())

    assert made["clone"] == sched.CLONE_NEWNS | sched.CLONE_NEWUTS
    assert [slot for slot, _flags in made["join"]] == ["ns-pid"]
    assert [step[1:] for step in made["enter"] if step[0] == "join_namespace"] == [
        ["ns-network", "network"],
        ["ns-ipc", "ipc"],
    ]
    assert "loopback_up" not in names(made["enter"])
    assert {step[1] for step in made["prepare"] if step[0] == "open_path"} == {
        f"ns-{k}" for k in ("pid", "network", "ipc")
    }


@pytest.mark.parametrize("path", ["", "/ns/user"])
def test_namespaces_to_join_with_a_user_namespace(path: str) -> None:
    """All are joined before the clone, and before the user namespace, beyond which the rights to them may be gone."""
    config = confined()
    config.linux.namespaces = [Namespace(type=kind, path=f"/ns/{kind}") for kind in ("network", "ipc")]
    config.linux.namespaces += [Namespace(type="mount"), Namespace(type="user", path=path)]
    made = container_plan(config, around())

    assert [slot for slot, _flags in made["join"]] == ["ns-network", "ns-ipc", *(["ns-user"] if path else [])]
    assert [step for step in made["enter"] if step[0] == "join_namespace"] == []
    assert (made["idmaps"] is None, "verify_maps" in names(made["enter"])) == (bool(path), bool(path))


@pytest.mark.conforms("config: $.linux.timeOffsets")
def test_time_offsets_make_their_namespace_before_the_clone() -> None:
    """The first process in a time namespace fixes its clocks; without offsets the clone makes it."""
    config = confined()
    config.linux.namespaces.append(Namespace(type="time"))
    plain = container_plan(config, around())
    config.linux.time_offsets = {"boottime": TimeOffset(secs=-5), "monotonic": TimeOffset(nanosecs=7)}
    ahead = container_plan(config, around())

    assert (bool(plain["clone"] & sched.CLONE_NEWTIME), plain["time_offsets"]) == (True, None)
    assert ahead["clone"] == plain["clone"] & ~sched.CLONE_NEWTIME
    assert ahead["time_offsets"] == [["boottime", -5, 0], ["monotonic", 0, 7]]


def test_an_exec_has_the_containers_namespaces_and_its_own_limits() -> None:
    """The plan of an exec joins all of them, drops what the container dropped, and makes no mount."""
    own = Process(user=User(uid=5, gid=6), args=["ls"], cwd="/", no_new_privileges=True)
    made = exec_plan(own, confined(), (7, 8), around(die_with_spawner=True))
    enter = made["enter"]
    joined = next(step for step in enter if step[0] == "join_init")

    assert ["open_init", "init", 7, 8] in made["prepare"]
    assert (made["pid_of"], made["clone"], made["idmaps"]) == ("init", 0, None)
    assert joined[2] == sum(sched.NAMESPACES[kind] for kind in (*defaults.NAMESPACES, "user") if kind != "pid")
    assert_order(
        names(enter), "join_init", "become_root", "new_session", "open_root", "bounding", "user", "capabilities"
    )
    assert ["user", 5, 6, []] in enter
    assert not {"mount_new", "attach", "pivot"} & set(names(enter))


def test_a_process_without_capabilities_gets_none() -> None:
    """Absent sets are empty ones (CVE-2022-29162)."""
    own = Process(user=User(uid=0, gid=0), args=["ls"], cwd="/")
    enter = exec_plan(own, confined(), (7, 8), around())["enter"]

    assert ["bounding", 0] in enter
    assert ["capabilities", 0, 0, 0, 0] in enter


def test_an_execs_directory_is_not_made() -> None:
    """Only the container's own is."""
    config = confined()
    chdir = [
        next(step for step in made["enter"] if step[0] == "chdir")
        for made in (container_plan(config, around()), exec_plan(config.process, config, (7, 8), around()))
    ]

    assert chdir == [["chdir", "/", True], ["chdir", "/", False]]


def test_a_holder_takes_the_place_of_the_program() -> None:
    """No program is looked for, and the holder is executed."""
    enter = names(container_plan(confined(), around(holder=True))["enter"])

    assert enter[-1] == "execute_holder"
    assert "find_executable" not in enter


def test_devices_are_bound_in_a_user_namespace_and_made_without() -> None:
    """The kernel makes none in a user namespace, a joined one no less."""
    config = confined()
    bound = names(container_plan(config, around())["enter"])
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "user"]
    config.linux.uid_mappings = config.linux.gid_mappings = []
    config.annotations.pop(IDMAP)
    made = names(container_plan(config, around())["enter"])
    config.linux.namespaces.append(Namespace(type="user", path="/ns/user"))
    joined = names(container_plan(config, around())["enter"])

    assert ("bind_device" in bound, "make_device" in bound) == (True, False)
    assert ("bind_device" in made, "make_device" in made) == (False, True)
    assert ("bind_device" in joined, "make_device" in joined) == (True, False)


def test_every_operation_describes_itself() -> None:
    """Each sentence has a place for arguments that are there, and says something with them."""
    for name, (function, sentence) in _operations.items():
        count = function.__code__.co_argcount - 1
        said = describe(
            [name, *(f"<{index}>" if not re.search(rf"{{{index}:", sentence) else index for index in range(count))]
        )

        assert "{" not in said, name
        assert len(said) > 5, name
        assert function.__doc__, name


@pytest.mark.parametrize("which", ["container", "exec"])
def test_every_step_of_a_plan_describes_itself(which: str) -> None:
    """--debug can print any plan."""
    config = confined()
    config.process.terminal = which == "exec"
    made = (
        container_plan(config, around())
        if which == "container"
        else exec_plan(config.process, config, (7, 8), around())
    )
    lines = describe_plan(made)

    assert len(lines) >= len(made["prepare"]) + len(made["enter"]) + 1
    assert all("{" not in line.replace("{'", "") for line in lines), lines


def test_host_ids() -> None:
    """The host's id of one inside, across several rows; one that is not mapped is an error."""
    rows = [[0, 1000, 1], [1, 100000, 10]]

    assert [host_id(rows, inside) for inside in (0, 1, 10)] == [1000, 100000, 100009]
    with pytest.raises(ConfigError, match="11 is not mapped"):
        host_id(rows, 11)


@pytest.mark.parametrize("text", ["", "size=1", "inodes=1", "size=x,inodes=1", "size=1,inodes", "1,2"])
def test_overlay_annotation_of_another_form(text: str) -> None:
    """A bound that cannot be read is an error, not no bound."""
    with pytest.raises(ConfigError, match=r"org[.]ocirun[.]overlay"):
        overlay_limits(text)


def test_idmap_annotation_needs_a_user_namespace() -> None:
    """Mapped owners without a map make no sense."""
    config = confined()
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "user"]
    with pytest.raises(ConfigError, match=r"org[.]ocirun[.]idmap"):
        container_plan(config, around())


def test_overlay_mount_needs_the_bounded_tmpfs() -> None:
    """A private layer without a bound is refused."""
    config = confined()
    config.annotations = {}
    config.mounts.append(Mount(destination="/t", type="overlay", options=["mode=755"]))
    with pytest.raises(ConfigError, match="needs the annotation"):
        container_plan(config, around())


def test_the_root_opens_no_devices_of_the_image() -> None:
    """With a /dev of the runtime's the root mount is nodev, with an overlay and without."""
    for annotations in ({OVERLAY: "size=1,inodes=1"}, {}):
        config = confined()
        config.annotations = dict(annotations)
        made = container_plan(config, around())
        root = next(step for step in made["prepare"] if step[1] == "root")

        assert 4 in root, root


def test_modules_of_the_plan_read_nothing() -> None:
    """Neither opens a file nor asks the system."""
    for module in ("plan", "root_plan", "mount_plan"):
        text = (Path(plan.__file__).parent / f"{module}.py").read_text(encoding="utf-8")

        assert not re.search(r"\bopen\(|os\.(stat|listdir|environ|getuid|geteuid|path\.exists)|subprocess", text), (
            module
        )


@pytest.mark.conforms("config: $.process.apparmorProfile", "config: $.process.selinuxLabel")
def test_labels_are_opened_before_the_image_can_interfere() -> None:
    """The attribute file is the host's own /proc's; it is written before the filter and the drop of rights."""
    config = confined()
    config.process.apparmor_profile, config.process.selinux_label = "profile", "u:r:t:s0"
    plain = Process(user=User(uid=0, gid=0), args=["ls"], cwd="/", no_new_privileges=True)
    made, joined = container_plan(config, around()), exec_plan(plain, config, (7, 8), around())

    for plan_made, first in ((made, "become_root"), (joined, "join_init")):
        enter = names(plan_made["enter"])
        assert enter[:2] == ["open_label", "open_label"]
        assert_order(enter, "open_label", first, "set_label", "bounding", "load_filter")
        assert [step[1:] for step in plan_made["enter"] if step[0] == "set_label"] == [
            ["apparmor", "profile"],
            ["selinux", "u:r:t:s0"],
        ]
    assert_order(names(made["enter"]), "pivot", "set_label")


@pytest.mark.conforms("config: $.linux.mountLabel")
def test_mount_label() -> None:
    """File systems of the container's own are mounted with it; a message queue's cannot, and gets it afterwards."""
    config = confined()
    config.mounts.append(Mount(destination="/t", type="tmpfs", options=["context=own"]))
    plain = {step[1]: step for step in container_plan(config, around())["enter"] if step[0] == "mount_new"}
    config.linux.mount_label = "u:r:t:s0"
    enter = container_plan(config, around())["enter"]
    labelled = {step[1]: step[4].get("context") for step in enter if step[0] == "mount_new"}
    kinds = {path: step[2] for path, step in plain.items()}

    assert all("context" not in step[4] for path, step in plain.items() if path != "/t")
    assert {kinds[path] for path, label in labelled.items() if label == "u:r:t:s0"} == {"tmpfs", "devpts"}
    assert labelled["/t"] == "own"
    after = enter.index(["label_file", "/dev/mqueue", "u:r:t:s0"])
    assert enter[after - 1][:3] == ["mount_new", "/dev/mqueue", "mqueue"]


def test_an_ordinary_plan_names_no_rare_operation() -> None:
    """Nothing is imported for a container that asks for nothing special, nor for its execs."""
    config = confined()
    plans = [container_plan(config, around()), exec_plan(config.process, config, (7, 8), around())]
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "user"]
    config.linux.uid_mappings = config.linux.gid_mappings = []
    config.annotations.pop(IDMAP)
    config.mounts.append(Mount(destination="/x", type="bind", source="/y", options=["rbind", "ro", "rprivate"]))
    plans.append(container_plan(config, around()))

    for made in plans:
        assert not {*names(made["prepare"]), *names(made["enter"])} & set(_HOMES)

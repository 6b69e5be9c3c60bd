"""From a validated config to a plan: the flat lists of steps that a spawner and a child replay.

Pure: it reads nothing of the system, so the same config gives the same plan, and ``--debug`` can print it. What the
    order of steps must be, and why, is said in ``rootfs`` and ``process``.
"""

from __future__ import annotations

import os

from pytest_ocirun.linux import caps, sched
from pytest_ocirun.runtime.idmap import host_id
from pytest_ocirun.runtime.rare_plan import Rarities, rarities
from pytest_ocirun.runtime.root_plan import plan_mounts, prepare_root, root_path, root_steps
from pytest_ocirun.runtime.state import HOST_ROOT
from pytest_ocirun.runtime.steps import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups import Cgroup
    from pytest_ocirun.runtime.mount_plan import MountPlan
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.spawner import Spawner
    from pytest_ocirun.runtime.stdio import Stdio
    from pytest_ocirun.runtime.steps import Step

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Surroundings:
    """What a plan needs to know beside the config.

    Args:
        id: the container's id.
        bundle: absolute path of the bundle.
        directory: absolute path of the container's state directory.
        procs: the cgroup.procs files to be written into.
        cgroup_v2: the directory to be born in, or None.
        cgroups: what a cgroup mount shows, as ``cgroup_view.hierarchies`` says.
        autostart: the container does not wait for a start.
        holder: replace the process by the holder.
        die_with_spawner: the container ends with whoever made it.
        filter_flags: flags of seccomp(2) when slot ``filter`` holds a compiled program, else None.
        filter_listens: loading that program gives a listener, which somebody has to take.
        extra_fds: target numbers of the slots ``fd3``, ``fd4`` ...
        drop_in: do for the process what runc does unasked; see ``courtesies``.
    """

    __slots__ = (
        "autostart",
        "bundle",
        "cgroup_v2",
        "cgroups",
        "die_with_spawner",
        "directory",
        "drop_in",
        "extra_fds",
        "filter_flags",
        "filter_listens",
        "holder",
        "id",
        "procs",
    )

    def __init__(
        self,
        *,
        id: str,
        bundle: str = "",
        directory: str = "",
        procs: list[str] | None = None,
        cgroup_v2: str | None = None,
        cgroups: list[list[str]] | None = None,
        autostart: bool = False,
        holder: bool = False,
        die_with_spawner: bool = False,
        filter_flags: int | None = None,
        filter_listens: bool = False,
        extra_fds: list[int] | None = None,
        drop_in: bool = False,
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.directory = directory
        self.procs = procs or []
        self.cgroup_v2 = cgroup_v2
        self.cgroups = cgroups or []
        self.autostart = autostart
        self.holder = holder
        self.die_with_spawner = die_with_spawner
        self.filter_flags = filter_flags
        self.filter_listens = filter_listens
        self.extra_fds = extra_fds or []
        self.drop_in = drop_in


def surroundings(
    container_id: str, cgroup: Cgroup, spawner: Spawner, stdio: Stdio | None, *, bundle: str = ""
) -> Surroundings:
    """What a plan needs to know of a container's place and of whoever carries the plan out."""
    return Surroundings(
        id=container_id,
        bundle=bundle,
        procs=[] if cgroup.v2_dir else cgroup.join_files(),
        cgroup_v2=cgroup.v2_dir,
        die_with_spawner=spawner.die_with_spawner,
        extra_fds=sorted(stdio.extra) if stdio else [],
        drop_in=stdio is not None and stdio.drop_in,
    )


def container_plan(config: Config, around: Surroundings) -> Plan:
    """The plan that creates a container and leaves its init waiting for the start.

    Slots that it expects: ``reply``, ``listen`` unless it starts by itself, ``stdio0`` to ``stdio2`` unless
    ``process.terminal``, ``filter`` if flags are given, ``holder`` if wanted, one ``fdN`` for each extra fd.

    Raises:
        ConfigError: a combination that only shows here.
    """
    linux = config.linux
    new = {each.type for each in linux.namespaces if not each.path}
    idmaps = _idmaps(config) if linux.namespace("user") and linux.uid_mappings else None
    owner = (host_id(idmaps[0], 0), host_id(idmaps[1], 0)) if idmaps else (0, 0)
    mounts = plan_mounts(config, around.bundle, idmaps, owner, around.cgroups)
    v1_cgroup_namespace = "cgroup" in new and around.cgroup_v2 is None
    flags = sum(sched.NAMESPACES[kind] for kind in new)
    if v1_cgroup_namespace:
        flags &= ~sched.CLONE_NEWCGROUP
    if linux.time_offsets:
        flags &= ~sched.CLONE_NEWTIME
    join, opened, entered = _joined(config)
    rare = rarities(config, config.process)
    enter: list[Step] = [*rare.first, *entered]
    if linux.namespace("user"):
        enter.append(["become_root"])
        if idmaps and "user" not in new:
            opened.append(["read_own_maps"])
            enter.append(["verify_maps", idmaps])
    if v1_cgroup_namespace:
        enter.append(["unshare_cgroup"])
    enter.append(["new_session"])
    enter.append(["new_keyring", around.id])
    enter += _names(config, new)
    enter += rare.root(_root(config, mounts, around))
    enter += [*rare.inside, *_privileges(config.process, around)]
    enter += [["ready"], *([] if around.autostart else [["wait_start"]]), *_execution(config.process, around)]
    if any(vars(config.hooks).values()):
        from pytest_ocirun.runtime.hook_plan import with_hooks

        enter = with_hooks(enter, config, around)
    return {
        "prepare": [
            *_filter(around),
            *opened,
            *_host(config, around),
            *prepare_root(config, mounts, idmaps, owner, around.bundle),
        ],
        "join": join,
        "pid_of": None,
        "clone": flags,
        "idmaps": idmaps if "user" in new else None,
        "time_offsets": _time_offsets(config),
        "affinity": None,
        "cgroups": {"procs": around.procs, "v2": around.cgroup_v2},
        "oom_score": config.process.oom_score_adj,
        "outside": rare.outside,
        "enter": enter,
        "program": "holder" if around.holder else None,
    }


def exec_plan(process: Process, config: Config, init: tuple[int, int], around: Surroundings) -> Plan:
    """The plan that runs one more process in the container of ``config``.

    Args:
        process: what to run.
        config: the container's.
        init: (pid, start time) of the container's init.
        around: as for ``container_plan``.
    """
    rare = rarities(config, process, joining=True)
    then = program_steps(process, around, rare)
    return _joining_plan(config, init, around, process.oom_score_adj, rare, then)


def spare_plan(config: Config, init: tuple[int, int], around: Surroundings) -> Plan:
    """The plan of a process that joins the container of ``config`` and waits for ``program_steps``; see ``spare``."""
    return _joining_plan(config, init, around, None, Rarities(), [["become_runner"]], program="runner")


def suits_spare(config: Config, process: Process) -> bool:
    """Whether a process can be run by a spare, which had joined the container before it was known."""
    own = config.process.oom_score_adj
    return process.oom_score_adj in (None, own) and not rarities(config, process, joining=True)


def program_steps(process: Process, around: Surroundings, rare: Rarities | None = None) -> list[Step]:
    """What a process that has joined a container does to become ``process``."""
    steps: list[Step] = []
    if process.terminal:
        size = process.console_size
        steps.append(["open_console", size.height if size else 0, size.width if size else 0, process.user.uid])
    steps += rare.inside if rare else []
    return [*steps, *_privileges(process, around, make_cwd=False), *_execution(process, around)]


def _joining_plan(
    config: Config,
    init: tuple[int, int],
    around: Surroundings,
    oom_score: int | None,
    rare: Rarities,
    then: list[Step],
    *,
    program: str | None = None,
) -> Plan:
    flags = sum(sched.NAMESPACES[each.type] for each in config.linux.namespaces if each.type != "pid")
    # By itself, while it has the right to: a join may take long, and the spawner has others to serve. What is
    # done to it from outside must find it there, though.
    itself = bool(around.procs) and not rare.outside
    enter: list[Step] = [*rare.first, *([["join_cgroups", around.procs]] if itself else [])]
    opened: list[Step] = [["open_init", "init", *init]]
    if config.linux.namespace("mount") is None:
        flags |= sched.CLONE_NEWNS
        opened.append(["open_path", "init-root", f"/proc/{init[0]}/root", os.O_PATH | os.O_DIRECTORY])
    if flags:
        enter.append(["join_init", "init", flags])
    if config.linux.namespace("mount") is None:
        enter.append(["enter_root", "init-root"])
    if config.linux.namespace("user"):
        enter.append(["become_root"])
    return {
        "prepare": [*_filter(around), *opened],
        "join": [],
        "pid_of": "init" if config.linux.namespace("pid") else None,
        "clone": 0,
        "idmaps": None,
        "time_offsets": None,
        "affinity": rare.affinity,
        "cgroups": {"procs": [] if itself else around.procs, "v2": around.cgroup_v2},
        "oom_score": config.process.oom_score_adj if oom_score is None else oom_score,
        "outside": rare.outside,
        "enter": [*enter, ["new_session"], ["new_keyring", around.id], ["open_root"], *then],
        "program": program,
    }


def describe_plan(plan: Plan) -> list[str]:
    """Every step of a plan as a sentence, in the order of their doing."""
    names = [name for name, flag in sched.NAMESPACES.items() if plan["clone"] & flag]
    lines = [describe(step) for step in plan["prepare"]]
    lines += [f"join the namespaces of {slot} (flags {flags:#x})" for slot, flags in plan["join"]]
    lines.append(f"clone with new namespaces: {', '.join(names) or 'none'}")
    for kind, rows in zip(("uid", "gid"), plan["idmaps"] or [], strict=False):
        lines += [f"map {kind} {a} to {b} ({count} ids)" for a, b, count in rows]
    lines += [f"set the {clock} clock {secs} s and {nano} ns ahead" for clock, secs, nano in plan["time_offsets"] or []]
    lines += [f"join the cgroup by {path}" for path in plan["cgroups"]["procs"]]
    lines += [describe(step) for step in plan["outside"]]
    return lines + [describe(step) for step in plan["enter"]]


def _filter(around: Surroundings) -> list[Step]:
    return [] if around.filter_flags is None else [["prepare_filter", "filter", around.filter_flags]]


def _idmaps(config: Config) -> list[list[list[int]]]:
    return [
        [[row.container_id, row.host_id, row.size] for row in rows]
        for rows in (config.linux.uid_mappings, config.linux.gid_mappings)
    ]


def _joined(config: Config) -> tuple[list[list[object]], list[Step], list[Step]]:
    """Namespaces by path: by the intermediate before the clone, or by the child itself, where that comes to the same.

    With a user namespace the rights over the others may lie outside of it, so the intermediate joins them first. That
    of pids takes effect for children only. That of mounts is joined last of all, by the child: what is read before
    is the runtime's own /proc.
    """
    join: list[list[object]] = []
    opened: list[Step] = []
    entered: list[Step] = []
    for kind in sched.NAMESPACES:
        namespace = config.linux.namespace(kind)
        if namespace is None or not namespace.path:
            continue
        opened.append(["open_path", f"ns-{kind}", namespace.path, 0])
        if kind == "mount":
            continue
        if kind == "pid" or config.linux.namespace("user"):
            join.append([f"ns-{kind}", sched.NAMESPACES[kind]])
        else:
            entered.append(["join_namespace", f"ns-{kind}", kind])
    return sorted(join, key=lambda each: each[0] == "ns-user"), opened, entered


def _root(config: Config, mounts: MountPlan, around: Surroundings) -> list[Step]:
    steps = root_steps(config, mounts)
    namespace = config.linux.namespace("mount")
    if namespace is None:
        place = f"{around.directory}/{HOST_ROOT}"
        return [[*step[:-1], place] if step[0] == "attach_root" else step for step in steps]
    if not namespace.path:
        return steps
    # The spawner's working directory does not exist there; the root's own place does, as in runc.
    place = root_path(config, around.bundle)
    steps = [[*step, place] if step[0] == "attach_root" else step for step in steps]
    return [["join_namespace", "ns-mount", "mount"], *steps]


def _host(config: Config, around: Surroundings) -> list[Step]:
    """A container without a mount namespace has its root, and all mounts in it, in the host's."""
    return [] if config.linux.namespace("mount") else [["open_host_mounts", f"{around.directory}/{HOST_ROOT}"]]


def _time_offsets(config: Config) -> list[list[object]] | None:
    """[clock, seconds, nanoseconds] of a new time namespace, which is made before the clone for their sake."""
    offsets = config.linux.time_offsets
    return [[clock, offset.secs or 0, offset.nanosecs or 0] for clock, offset in offsets.items()] or None


def _names(config: Config, new: set[str]) -> list[Step]:
    steps: list[Step] = []
    if config.hostname:
        steps.append(["hostname", config.hostname])
    if config.domainname:
        steps.append(["domainname", config.domainname])
    if "network" in new:
        steps.append(["loopback_up"])
    if config.linux.sysctl:
        from pytest_ocirun.runtime.sysctls import sysctl_path

        steps += [["sysctl", sysctl_path(name), value] for name, value in config.linux.sysctl.items()]
    return steps


def _privileges(process: Process, around: Surroundings, *, make_cwd: bool = True) -> list[Step]:
    steps: list[Step] = [["rlimit", each.type, each.soft, each.hard] for each in process.rlimits]
    user = process.user
    steps.append(["umask", 0o022 if user.umask is None else user.umask])
    if around.drop_in:
        steps += _courtesies(process, around)
    sets = process.capabilities
    bounding, effective, permitted, inheritable, ambient = (
        caps.mask(getattr(sets, name)) if sets else 0
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    )
    steps.append(["chdir", process.cwd, make_cwd])
    steps.append(["bounding", bounding])
    steps.append(["user", user.uid, user.gid, user.additional_gids])
    steps.append(["chdir_again", process.cwd])
    if process.no_new_privileges:
        steps.append(["no_new_privs"])
    if not around.holder:
        path = next((item[5:] for item in reversed(process.env) if item.startswith("PATH=")), _DEFAULT_PATH)
        steps.append(["find_executable", process.args[0], path])
    if around.filter_flags is not None and not process.no_new_privileges:
        if user.uid:  # the kernel wants this one for it, and has taken it away with uid 0
            admin = caps.mask(["CAP_SYS_ADMIN"])
            steps.append(["capabilities", admin, permitted | admin, inheritable, 0])
        steps.append(_load_filter(around))
    # The kernel takes into the ambient set what is permitted and inheritable; runc's own default asks for more.
    steps.append(["capabilities", effective, permitted, inheritable, ambient & permitted & inheritable])
    if around.die_with_spawner:
        steps.append(["die_with_spawner"])
    if around.filter_listens and process.no_new_privileges:
        steps.append(_load_filter(around))  # while somebody waits who can take the listener
    return steps


def _courtesies(process: Process, around: Surroundings) -> list[Step]:
    steps: list[Step] = []
    given = dict(item.split("=", 1) for item in process.env)
    if not given.get("HOME"):
        steps.append(["find_home", process.user.uid])
    if around.extra_fds and "LISTEN_FDS" in given:
        steps.append(["tell_pid"])
    return steps


def _load_filter(around: Surroundings) -> Step:
    return ["load_listening_filter" if around.filter_listens else "load_filter"]


def _execution(process: Process, around: Surroundings) -> list[Step]:
    steps: list[Step] = []
    if process.terminal:
        steps.append(["use_console"])
    targets = {str(number): f"stdio{number}" for number in range(3)}
    targets |= {str(number): f"fd{number}" for number in around.extra_fds}
    steps.append(["arrange_fds", targets])
    steps.append(["default_signals"])
    if around.filter_flags is not None and process.no_new_privileges and not around.filter_listens:
        steps.append(["load_filter"])
    steps.append(["execute_holder"] if around.holder else ["execute", process.args, process.env])
    return steps

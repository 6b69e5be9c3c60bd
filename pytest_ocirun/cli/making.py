"""What create and run share: from a bundle to a created container.

Responsible for: reading the bundle, and leaving nothing behind when something fails. Must not know: what
happens after the creation.
"""

from __future__ import annotations

import os

from pytest_ocirun.cli import stdio
from pytest_ocirun.cli.core import Footing
from pytest_ocirun.cli.options import Option
from pytest_ocirun.errors import ConfigError, OcirunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups.systemd import SystemdManager
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.container import Runtime
    from pytest_ocirun.runtime.spawn import Plan

OPTIONS = (
    Option("bundle", "directory of config.json, by default the current one", short="b", value="DIR"),
    *stdio.OPTIONS,
    Option("no-pivot", "enter the root by a move and chroot, on a ramdisk; isolates less"),
    Option("no-new-keyring", "keep the caller's session keyring; isolates less"),
)


class Making:
    """A container that is about to be created; everything that can be wrong with the request has been checked.

    Args:
        given: the verb's options.
        settings: the global ones.
        journal: told warnings and, with ``--debug``, each step.
        detached: whether nobody waits for the container.

    Raises:
        ConfigError, Unsupported: the request makes no sense, or cannot be fulfilled.
    """

    def __init__(self, given: Given, settings: Settings, journal: Journal, *, detached: bool) -> None:
        from pytest_ocirun.runtime import state
        from pytest_ocirun.runtime.validate import validate

        self.id = given.arguments[0]
        self._settings = settings
        state.check_id(self.id)
        self._bundle = _real_directory(given.text("bundle", "."))
        self.config = _read_config(self._bundle)
        warnings = validate(self.config)
        state.ensure_root(settings.root)
        self._less = [name for name in ("no-pivot", "no-new-keyring") if given.on(name)]
        self._systemd = _systemd(self.config, self.id, settings) if settings.systemd_cgroup else None
        self._footing = Footing(settings, journal, self._change if self._less else None, self._systemd)
        program = self._footing.runtime.program(self.config.linux.seccomp)
        self._footing.choose(
            self.config, self.config.process, program, before_stage=lambda: before_stage(given, settings)
        )
        for warning in warnings:
            journal.warning(warning)
        _check_root(self._bundle, self.config)
        if any(vars(self.config.hooks).values()) and settings.outside < 0:
            raise ConfigError("$.hooks: they were not there when the config was first read")
        if not settings.privileged and self.config.linux.namespace("user") is None:
            raise ConfigError(
                "$.linux.namespaces: a container made without root needs a user namespace of its own",
                hint="`ocirun spec --rootless` writes a config with one.",
            )
        self._surface = stdio.Surface(given, settings, self.config.process, detached=detached)
        if settings.notify:
            from pytest_ocirun.cli import readiness

            readiness.prepare(self.config, settings.root, self.id)
            self._surface.stdio.directory = readiness.DIRECTORY

    def create(self) -> tuple[Runtime, Child]:
        """Create it; nothing is left behind if that fails.

        Raises:
            ContainerExists, KernelRefused, Unsupported: as ``Runtime.create``.
        """
        runtime = self._footing.runtime
        self._footing.take()
        child = runtime.create(
            self.id, self._bundle, self.config, self._surface.stdio, without_cgroup=self._settings.without_cgroup
        )
        if self._settings.helper is not None:
            self._settings.helper.end()
        try:
            if self._systemd is not None:
                self._systemd.release()
            self._surface.present(child)
        except BaseException:
            discard(runtime, self.id, child)
            raise
        return runtime, child

    def _change(self, plan: Plan) -> Plan:
        from pytest_ocirun.runtime import less_isolation

        changes = {"no-pivot": less_isolation.without_pivot, "no-new-keyring": less_isolation.without_keyring}
        for name in self._less:
            plan = changes[name](plan)
        return plan


def _systemd(config: Config, container_id: str, settings: Settings) -> SystemdManager:
    from pytest_ocirun.runtime import stage
    from pytest_ocirun.runtime.cgroups import systemd

    systemd.unit_of(config.linux.cgroups_path, container_id)
    return systemd.SystemdManager(privileged=settings.privileged or stage.is_privileged())


def before_stage(given: Given, settings: Settings) -> None:
    """Find out what must be done before the stage is entered.

    Where the config has hooks, somebody is left behind who runs them; where a plain user's config maps other ids than
    the own one, somebody has to map them from outside.
    """
    try:
        with open(f"{given.text('bundle', '.')}/config.json", "rb") as file:
            text = file.read()
    except OSError:
        return  # on the stage it is read again, and complained about
    if not settings.privileged:
        settings.subids = _wants_subids(text)
    if b'"hooks"' in text:
        from pytest_ocirun.runtime import outside

        settings.outside = outside.leave_behind()


def _wants_subids(text: bytes) -> bool:
    from pytest_ocirun.oci import codec
    from pytest_ocirun.runtime import subids

    try:
        return subids.wanted(codec.parse(text), os.geteuid(), os.getegid())
    except ConfigError:
        return False  # as above


def discard(runtime: Runtime, container_id: str, child: Child) -> None:
    """End a container that was made here and remove it; gone already is fine."""
    from pytest_ocirun.errors import ContainerNotFound

    reap(child)
    try:
        runtime.delete(container_id, force=True)
    except ContainerNotFound:
        pass


def _real_directory(path: str) -> str:
    found = os.path.realpath(path)
    if not os.path.isdir(found):
        raise ConfigError(
            f"open the bundle {path}: {'it is no directory' if os.path.exists(found) else 'no such directory'}"
        )
    return found


def _read_config(bundle: str) -> Config:
    from pytest_ocirun.oci.codec import SIZE_CAP
    from pytest_ocirun.oci.runtime import load_config

    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            text = file.read(SIZE_CAP + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"read {path}: no such file or directory",
            hint="`ocirun spec` writes one; --bundle names another directory.",
        ) from None
    except OSError as error:
        raise ConfigError(f"read {path}: {error.strerror}") from error
    return load_config(text, path)


def _check_root(bundle: str, config: Config) -> None:
    path = os.path.join(bundle, config.root.path)
    if not os.path.isdir(path):
        what = "not a directory" if os.path.exists(path) else "no such file or directory"
        raise ConfigError(f"$.root.path: {path}: {what}", hint="Unpack a root file system there, or name where it is.")


def reap(child: Child) -> None:
    """Kill a process that was made here, and leave no zombie: it would hold up the end of its pid namespace."""
    child.kill()
    try:
        child.wait()
    except OcirunError:
        pass  # why it could not be set up is being reported already

"""What the tests of real clients (podman, containerd, buildah) share: runtimes, scratch space, and its end.

Every client keeps store, run root, sockets and the runtime's state below one scratch directory, and its cgroups below
one parent. ``scratch`` names what a client left there. Knows nothing of any particular client.
"""

import glob
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.requires import SBIN_PATH

RUNTIMES = ("ocirun", "runc")
"""What each client is tested with; runc is the control."""

_OWN = re.compile(r"/(store/overlay|conmon|[0-9a-f]{64})$")
"""What podman and buildah make themselves and keep: the mount of the store, the cgroups of conmon and of pods."""
_CACHE = Path("/var/lib/containers/cache")
"""Where podman and buildah, run by root, remember blobs, whatever store they are given."""
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where one client with one runtime keeps everything.

    Attributes:
        path: the directory; its path is short, since sockets lie below it.
        runtime: the runtime's program.
        cgroup: the parent of all its cgroups, with a leading slash.
    """

    path: Path
    runtime: str
    cgroup: str

    @property
    def state(self) -> Path:
        """The runtime's state root."""
        return self.path / "state"

    def left(self) -> list[str]:
        """Processes, mounts and cgroups of containers, and what the runtime remembers of them."""
        found = [f"process {pid}: {text}" for pid, text in self._processes()]
        found += [path for path in (*self._mounts(), *self._cgroups()) if not _OWN.search(path)]
        return found + [str(path) for path in self.state.rglob("state.json")]

    def _processes(self) -> Iterator[tuple[int, str]]:
        for path in glob.glob("/proc/[0-9]*"):
            try:
                command = Path(path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                cgroups = Path(path, "cgroup").read_text(encoding="utf-8")
                state = Path(path, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and (str(self.path) in command or f":{self.cgroup}/" in cgroups):
                yield int(path.rpartition("/")[2]), command[:150]

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        return [target for line in lines if f"{self.path}/" in (target := line.split()[4])]

    def _cgroups(self) -> list[str]:
        """Cgroups below the parent, the deepest first."""
        return [path for top in self._parents() for path, _, _ in os.walk(top, topdown=False) if path != top]

    def _parents(self) -> list[str]:
        return [*glob.glob(f"/sys/fs/cgroup/*{self.cgroup}"), *glob.glob(f"/sys/fs/cgroup{self.cgroup}")]

    def clear(self) -> None:
        """Remove all that there is, also what is not held against the client: its store, and the cgroups' parent."""
        for pid, _text in self._processes():
            os.kill(pid, signal.SIGKILL)
        for mount in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False)
        for path in [*self._cgroups(), *self._parents()]:
            _remove_cgroup(path)
        shutil.rmtree(self.path)


def _remove_cgroup(path: str) -> None:
    """Remove it as soon as what was killed in it is gone."""
    deadline = time.monotonic() + _PATIENCE
    while os.path.isdir(path):
        try:
            os.rmdir(path)
        except OSError:
            assert time.monotonic() < deadline, f"{path} is still in use"
            time.sleep(0.02)


def program(runtime: str) -> str:
    """Where a runtime's program lies: ours beside the Python that runs the tests, as pip installs it."""
    path = os.path.dirname(sys.executable) if runtime == "ocirun" else SBIN_PATH
    found = shutil.which(runtime, path=path)
    assert found is not None, f"no {runtime} in {path}"
    return found


@contextmanager
def scratch(client: str, runtime: str) -> Iterator[Scratch]:
    """A place for a client and a runtime; what they still hold at its end is a failure."""
    # No random name: containerd's namespace, which is named alike, must not end with an underscore. And root of a user
    # namespace, who is nobody here, must reach root file systems below.
    place = Path(f"/var/tmp/ocirun-{client}-{os.getpid()}")
    place.mkdir(0o711)
    here = Scratch(place, program(runtime), f"/{place.name}")
    cached = _CACHE.exists()
    try:
        yield here
        deadline = time.monotonic() + _PATIENCE
        while (left := here.left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left == [], "\n".join(left)
    finally:
        here.clear()
        if not cached:
            shutil.rmtree(_CACHE, ignore_errors=True)


def run(argv: Sequence[str | Path], cwd: Path, *, input: str = "", env: dict[str, str] | None = None) -> Done:
    """Run a command of a client to its end, where what it drops does no harm."""
    done = subprocess.run(
        list(map(str, argv)), check=False, capture_output=True, text=True, input=input, env=env, cwd=cwd, timeout=60
    )
    return Done(done.returncode, done.stdout, done.stderr)


def docker_archive(rootfs: Path, target: Path, name: str) -> Path:
    """Pack a tarball of a root file system as an archive that ``docker load`` and its like take."""
    digest = hashlib.sha256(rootfs.read_bytes()).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        for member, document in (("config.json", config), ("manifest.json", manifest)):
            text = json.dumps(document).encode()
            info = tarfile.TarInfo(member)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        archive.add(rootfs, arcname="layer.tar")
    return target

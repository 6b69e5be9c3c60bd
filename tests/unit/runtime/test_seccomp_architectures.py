"""Architectures of a filter: each is told apart and has its own numbers, or is refused by name."""

import platform

import pytest

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.oci.runtime import Seccomp, Syscall
from pytest_ocirun.runtime.seccomp import compile_filter
from pytest_ocirun.runtime.seccomp_terms import ARCHITECTURES
from tests import bpf
from tests.requires import requires

pytestmark = [
    requires("seccomp"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel lacks x86-64's numbers"),
]

GETPID = {
    "SCMP_ARCH_X86_64": (bpf.X86_64, 39),
    "SCMP_ARCH_X86": (bpf.I386, 20),
    "SCMP_ARCH_X32": (bpf.X86_64, 0x40000000 + 39),
    "SCMP_ARCH_ARM": (0x40000028, 20),
    "SCMP_ARCH_AARCH64": (bpf.AARCH64, 172),
    "SCMP_ARCH_MIPSEL": (0x40000008, 4020),
    "SCMP_ARCH_MIPSEL64": (0xC0000008, 5038),
    "SCMP_ARCH_MIPSEL64N32": (0xE0000008, 6038),
    "SCMP_ARCH_PPC64LE": (0xC0000015, 20),
    "SCMP_ARCH_RISCV64": (0xC00000F3, 172),
    "SCMP_ARCH_LOONGARCH64": (0xC0000102, 172),
}
"""AUDIT_ARCH_* of <linux/audit.h> and getpid's number in each that has the byte order of x86."""


@pytest.mark.conforms(*(f"config: $.linux.seccomp.architectures {name}" for name in ARCHITECTURES))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture(name: str) -> None:
    """Libseccomp cannot put both byte orders into one filter, and knows the youngest since 2.6."""
    import pyseccomp

    rule = Syscall(names=["getpid"], action="SCMP_ACT_ALLOW")
    seccomp = Seccomp(default_action="SCMP_ACT_ERRNO", architectures=[name], syscalls=[rule])
    if name not in GETPID or not hasattr(pyseccomp.Arch, name.removeprefix("SCMP_ARCH_")):
        with pytest.raises(Unsupported, match=rf"^\$\.linux\.seccomp\.architectures\[0\]: .*libseccomp.* {name}\b"):
            compile_filter(seccomp)
        return
    code = compile_filter(seccomp).code
    token, number = GETPID[name]

    assert bpf.run(code, number, arch=token) == bpf.ALLOW
    assert bpf.run(code, number - 1, arch=token) != bpf.ALLOW
    assert bpf.run(code, number, arch=0x12345) == bpf.KILL_PROCESS

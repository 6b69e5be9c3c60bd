"""The system call filter for code that is not trusted, as an OCI document.

Responsible for: which system calls such code may make, and why not the others. Must not know: how a filter is
compiled (``runtime.seccomp``).

The shape: an allow-list for the machine's own ABI. What is listed in ``ALLOWED`` is allowed, what is listed
in ``REFUSED`` fails with EPERM, as it would without the privilege; all else, and so every system call that
is newer than this file, fails with ENOSYS, as on a kernel that lacks it, so that C libraries fall back to
an older call. Calls through another ABI (32-bit ``int 0x80``, x32) kill the process: no honest program of a
64-bit image makes one, and an errno would let an attacker try all of them (bad architecture:
``runtime.seccomp``).

Conditions are written so that they do not overlap: libseccomp lets an unconditional rule win over any
condition, and one argument can have one condition in a rule. Arguments that the kernel reads as 32 bits are
compared through a mask wherever the comparison *allows* a call: CVE-2017-5226 and its successors set a bit
above the 32nd.

Two decisions that others take differently. ptrace and process_vm_readv are allowed: they reach only processes
in the same pid namespace with the same credentials, which debuggers need, and processes of ours in there are
not dumpable. Sockets of family NETLINK are limited to the ROUTE protocol, which getaddrinfo needs: the others
load kernel modules on demand.
"""

from __future__ import annotations

import errno

from pytest_ocirun.oci.runtime import Seccomp, Syscall, SyscallArg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED: dict[str, str] = {
    "files: open, read, write, close": """
        open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev pwrite64
        pwritev pwritev2 lseek dup dup2 dup3 fcntl flock fsync fdatasync sync syncfs sync_file_range fallocate
        truncate ftruncate fadvise64 readahead sendfile copy_file_range splice tee vmsplice umask""",
    "files: names, kinds, owners, attributes": """
        stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 getcwd chdir fchdir
        rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink
        readlinkat mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes
        futimesat utimensat getdents getdents64 name_to_handle_at cachestat setxattr lsetxattr fsetxattr
        setxattrat getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat
        removexattr lremovexattr fremovexattr removexattrat file_getattr file_setattr""",
    "waiting for files: poll, epoll, events, timers, inotify": """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
        eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime inotify_init
        inotify_init1 inotify_add_watch inotify_rm_watch pipe pipe2""",
    "asynchronous reads and writes of libaio; io_uring is refused": """
        io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents""",
    "memory": """
        brk mmap munmap mremap mprotect madvise process_madvise process_mrelease msync mincore mlock mlock2
        munlock mlockall munlockall memfd_create memfd_secret remap_file_pages pkey_alloc pkey_free
        pkey_mprotect membarrier map_shadow_stack mseal mbind get_mempolicy set_mempolicy
        set_mempolicy_home_node""",
    "processes: make, run, end, wait; clone has conditions below": """
        fork vfork execve execveat exit exit_group wait4 waitid pidfd_open pidfd_send_signal pidfd_getfd
        getpid getppid gettid getpgid setpgid getpgrp getsid setsid set_tid_address kcmp ptrace
        process_vm_readv process_vm_writev prctl rseq restart_syscall""",
    "users, groups and capabilities: without any capability only what one has already": """
        getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid
        setresgid setgroups setfsuid setfsgid capget capset""",
    "signals": """
        kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack pause alarm getitimer setitimer""",
    "threads and scheduling": """
        futex futex_waitv futex_wake futex_wait futex_requeue get_robust_list set_robust_list sched_yield
        sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
        sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getcpu""",
    "time; setting a clock is refused, adjusting one needs a capability": """
        time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep times timer_create
        timer_settime timer_gettime timer_getoverrun timer_delete adjtimex clock_adjtime""",
    "limits, resources and facts about the system": """
        getrlimit setrlimit prlimit64 getrusage uname sysinfo getrandom statmount listmount lsm_get_self_attr
        lsm_list_modules""",
    "sockets; socket and socketpair have conditions below": """
        bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt send sendto
        sendmsg sendmmsg recv recvfrom recvmsg recvmmsg""",
    "System V and POSIX message queues, semaphores, shared memory": """
        shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
        mq_timedsend mq_timedreceive mq_notify mq_getsetattr""",
    "a process may confine itself further": """
        seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self""",
    "needed by one architecture": """
        arch_prctl set_thread_area get_thread_area riscv_flush_icache""",
}

REFUSED: dict[str, str] = {
    "mounts: the way to most escapes, and superblock parsers (CVE-2022-0185)": """
        mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick
        mount_setattr""",
    "other namespaces": "setns",
    "programs inside the kernel, and views of it": "bpf perf_event_open lookup_dcookie",
    "aids of exploits: keep kernel objects alive, pause the kernel inside a copy": """
        add_key request_key keyctl userfaultfd""",
    "io_uring: a second system call table that no filter sees": """
        io_uring_setup io_uring_enter io_uring_register""",
    "file handles (open any file of the file system: the shocker exploit), reports, quotas": """
        open_by_handle_at fanotify_init fanotify_mark quotactl quotactl_fd""",
    "the kernel itself": """
        init_module finit_module delete_module create_module kexec_load kexec_file_load reboot swapon swapoff
        acct syslog""",
    "the machine's clock, names, ports, terminals": """
        settimeofday clock_settime sethostname setdomainname ioperm iopl vhangup""",
    "segments of 16-bit programs: a history of bugs, one user (wine)": "modify_ldt",
    "memory of other processes across nodes": "migrate_pages move_pages",
}

_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET; see clone(2)."""

_NEWTIME = 0x80
"""CLONE_NEWTIME, which only unshare and clone3 take: for clone these bits are the exit signal."""

_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""LINUX, LINUX32, each with UNAME26, and the question for the present one. READ_IMPLIES_EXEC is left out."""

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0

_TERMINAL_INJECTIONS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX of ioctl(2): type into a terminal that others read."""

_INT = 0xFFFFFFFF


def default_filter() -> Seccomp:
    """Return a new copy of the filter, to be changed or written into a ``config.json``."""
    return Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.ENOSYS,
        syscalls=[
            Syscall(names=_names(ALLOWED), action="SCMP_ACT_ALLOW"),
            Syscall(names=_names(REFUSED), action="SCMP_ACT_ERRNO", errno_ret=errno.EPERM),
            *_namespaces(),
            *_sockets(),
            *_terminals(),
            *(_allow("personality", _masked(0, _INT, value)) for value in _PERSONALITIES),
        ],
    )


def _names(groups: dict[str, str]) -> list[str]:
    return [name for names in groups.values() for name in names.split()]


def _masked(index: int, mask: int, value: int) -> SyscallArg:
    return SyscallArg(index=index, value=mask, value_two=value, op="SCMP_CMP_MASKED_EQ")


def _equal(index: int, value: int) -> SyscallArg:
    return SyscallArg(index=index, value=value, op="SCMP_CMP_EQ")


def _above(index: int, value: int) -> SyscallArg:
    return SyscallArg(index=index, value=value, op="SCMP_CMP_GT")


def _allow(name: str, *conditions: SyscallArg) -> Syscall:
    return Syscall(names=[name], action="SCMP_ACT_ALLOW", args=list(conditions))


def _refuse(name: str, number: int, *conditions: SyscallArg) -> Syscall:
    return Syscall(names=[name], action="SCMP_ACT_ERRNO", errno_ret=number, args=list(conditions))


def _namespaces() -> Iterator[Syscall]:
    """No new namespaces: a user namespace would give code all capabilities over kernel code seldom tried.

    clone3 takes its flags by pointer, which no filter can read; it is left out, so ENOSYS, and C libraries
    use clone instead.
    """
    for name, flags in (("clone", _NAMESPACE_FLAGS), ("unshare", _NAMESPACE_FLAGS | _NEWTIME)):
        yield _allow(name, _masked(0, flags, 0))
        for bit in range(32):
            if flags >> bit & 1:
                yield _refuse(name, errno.EPERM, _masked(0, 1 << bit, 1 << bit))


def _sockets() -> Iterator[Syscall]:
    """UNIX and internet sockets and rtnetlink; other families as on a kernel built without them."""
    families = (_UNIX, _INET, _INET6, _NETLINK)
    for family in (_UNIX, _INET, _INET6):
        yield _allow("socket", _equal(0, family))
    yield _allow("socket", _equal(0, _NETLINK), _equal(2, _NETLINK_ROUTE))
    yield _refuse("socket", errno.EPROTONOSUPPORT, _equal(0, _NETLINK), _above(2, _NETLINK_ROUTE))
    for family in range(max(families)):
        if family not in families:
            yield _refuse("socket", errno.EAFNOSUPPORT, _equal(0, family))
    yield _refuse("socket", errno.EAFNOSUPPORT, _above(0, max(families)))
    yield _allow("socketpair", _equal(0, _UNIX))
    yield _refuse("socketpair", errno.EAFNOSUPPORT, _equal(0, 0))
    yield _refuse("socketpair", errno.EAFNOSUPPORT, _above(0, _UNIX))


def _terminals() -> Iterator[Syscall]:
    """Every ioctl but those that type into a terminal, told by the low 32 bits of the request.

    There is no "differs in these bits" condition, so: allowed is each request in which some bit differs from
    the bits that the refused ones share, or whose remaining bits are not those of a refused one.
    """
    first, second = _TERMINAL_INJECTIONS
    free = (1 << (first ^ second).bit_length()) - 1
    for bit in range(free.bit_length(), 32):
        yield _allow("ioctl", _masked(1, 1 << bit, ~first & 1 << bit))
    for low in range(free + 1):
        if low not in {request & free for request in _TERMINAL_INJECTIONS}:
            yield _allow("ioctl", _masked(1, free, low))
    for request in _TERMINAL_INJECTIONS:
        yield _refuse("ioctl", errno.EPERM, _masked(1, _INT, request))

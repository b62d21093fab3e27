"""The system calls a machine may make: an allow-list.

What is not on it fails with ENOSYS, so that libraries fall back as on an older kernel; what is
refused on purpose fails with EPERM. Left out are all ways to new namespaces and mounts, kernel
modules, bpf, perf, keys, io_uring, userfaultfd, and clocks (field notes 5.2, row 9). Sockets are
limited to unix, TCP, UDP and ping on IPv4 and IPv6, and the netlink families ordinary programs
use.
"""

from __future__ import annotations

import errno
import platform
from typing import Any

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

# CLONE_NEW{CGROUP,UTS,IPC,USER,PID,NET,NS}
_NEW_NAMESPACES = 0x7E020000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF)
_AF_NETLINK = 16
_FAMILIES = (0, 1)  # unspecified, unix: any type and protocol
_STREAM, _DGRAM, _RAW = 1, 2, 3
_TYPE, _INT = 0xF, 0xFFFFFFFF  # the bits of both that the kernel looks at
_TCP, _UDP, _MPTCP = 6, 17, 262
_INTERNET = {2: 1, 10: 58}  # inet, inet6, and the protocol of ping on each
_MISSING = (
    1,
    _TCP,
    _UDP,
    33,
    58,
    132,
    136,
)  # of those, what a program may try: dccp, sctp, udplite
_LAST_FAMILY = 46
_NETLINK = (0, 4, 15)  # route, sock_diag, kobject_uevent
_LAST_NETLINK = 22

DENIED = tuple(  # one word a line would fill three hundred lines
    """
    acct add_key adjtimex bpf clock_adjtime clock_settime create_module delete_module
    fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load
    keyctl lookup_dcookie mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at
    open_tree perf_event_open pidfd_getfd pivot_root query_module quotactl quotactl_fd reboot
    request_key setdomainname sethostname setns settimeofday stime swapoff swapon sysfs
    syslog umount umount2 unshare uselib userfaultfd ustat vhangup
    """.split()  # noqa: SIM905
)

ALLOWED = tuple(
    """
    _llseek _newselect accept accept4 access alarm arch_prctl bind brk cachestat capget capset
    chdir chmod chown chown32 chroot clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr
    flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
    getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
    getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat
    llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack mbind
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_madvise
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64
    pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
    semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
    sendto set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area set_tid_address
    setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
    setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall
    socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
    ugetrlimit umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice
    wait4 waitid waitpid write writev
    """.split()  # noqa: SIM905
)


def profile(machine: str = "") -> dict[str, Any]:
    """The `linux.seccomp` part of an OCI configuration, for this processor.

    32-bit programs are refused: they would double what the kernel shows.
    """
    architecture = _ARCHITECTURES[machine or platform.machine()]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        "architectures": [architecture],
        "syscalls": [
            _allow(ALLOWED),
            _refuse(DENIED, errno.EPERM),
            # Its flags are in memory and cannot be looked at: ENOSYS makes libraries use clone.
            _refuse(("clone3",), errno.ENOSYS),
            _allow(("clone",), _argument(0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ", second=0)),
            *(_allow(("personality",), _argument(0, value)) for value in _PERSONALITIES),
            *_sockets(),
        ],
    }


def _sockets() -> list[dict[str, Any]]:
    rules = [_allow(("socket",), _argument(0, family)) for family in _FAMILIES]
    rules += [
        _refuse(("socket",), errno.EAFNOSUPPORT, _argument(0, family))
        for family in range(_LAST_FAMILY + 1)
        if family not in (*_FAMILIES, *_INTERNET, _AF_NETLINK)
    ]
    for family, ping in _INTERNET.items():
        rules += _internet(family, ping)
    for protocol in range(_LAST_NETLINK + 1):
        both = (_argument(0, _AF_NETLINK), _argument(2, protocol))
        if protocol in _NETLINK:
            rules.append(_allow(("socket",), *both))
        else:
            rules.append(_refuse(("socket",), errno.EPROTONOSUPPORT, *both))
    return rules


def _internet(family: int, ping: int) -> list[dict[str, Any]]:
    """TCP, UDP and ping; the errors are those of a kernel that has nothing else.

    EPERM for raw sockets is what makes programs try ping's own. A protocol that is not named here
    is answered with the ENOSYS of all that is unknown.
    """
    of = _argument(0, family)
    rules = []
    for kind, protocols in ((_STREAM, (0, _TCP, _MPTCP)), (_DGRAM, (0, _UDP, ping))):
        of_kind = (of, _masked(1, _TYPE, kind))
        rules += [_allow(("socket",), *of_kind, _masked(2, _INT, one)) for one in protocols]
        rules += [
            _refuse(("socket",), errno.EPROTONOSUPPORT, *of_kind, _masked(2, _INT, one))
            for one in _MISSING
            if one not in protocols
        ]
    for kind in range(_TYPE + 1):
        if kind not in (_STREAM, _DGRAM):
            number = errno.EPERM if kind == _RAW else errno.ESOCKTNOSUPPORT
            rules.append(_refuse(("socket",), number, of, _masked(1, _TYPE, kind)))
    return rules


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return _argument(index, mask, "SCMP_CMP_MASKED_EQ", second=value)


def _argument(
    index: int, value: int, operator: str = "SCMP_CMP_EQ", *, second: int | None = None
) -> dict[str, Any]:
    rule: dict[str, Any] = {"index": index, "value": value, "op": operator}
    if second is not None:
        rule["valueTwo"] = second
    return rule


def _allow(names: tuple[str, ...], *arguments: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    return {**rule, "args": list(arguments)} if arguments else rule


def _refuse(names: tuple[str, ...], number: int, *arguments: dict[str, Any]) -> dict[str, Any]:
    return {**_allow(names, *arguments), "action": "SCMP_ACT_ERRNO", "errnoRet": number}

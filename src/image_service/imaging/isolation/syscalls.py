"""Linux system calls in the seccomp filter, by their numbers on x86-64 and on 64-bit ARM; None where there is none."""

import fcntl
import os
from typing import Final, TypeAlias

Numbers: TypeAlias = tuple[int | None, int | None]
"""The numbers on x86-64 and on aarch64."""

ALLOWED: Final[dict[str, Numbers]] = {
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "dup": (32, 23),
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "time": (201, None),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getrandom": (318, 278),
}
"""Calls for reading files, computing in threads, and writing to what is open. Landlock decides which files."""

WRITING: Final[dict[str, Numbers]] = {
    "pwrite64": (18, 68),
    "flock": (73, 32),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "unlink": (87, None),
    "unlinkat": (263, 35),
}
"""Calls for changing files, for a process that may write any."""

OPEN: Final[dict[int, Numbers]] = {1: (2, None), 2: (257, 56)}
"""``open`` and ``openat``, by the place of the argument with the flags, counted from zero."""
FOR_WRITING: Final = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
"""The flags of ``open`` that change a file, or let it be changed. The same numbers on both processors."""

FCNTL: Final[Numbers] = (72, 25)
FCNTL_COMMANDS: Final = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)
"""All that decoding needs. F_SETOWN and F_SETSIG choose a process and a signal that it gets when a file is ready for
reading: SIGKILL too, and any process of the same user, as Landlock checks that only since Linux 6.12. Leases, seals,
notifications, and the size of a pipe are no business of a decoder either; ``ioctl``, which can do the same with
FIOSETOWN and FIOASYNC, is not allowed at all."""
FCNTL_COMMANDS_WRITING: Final = (fcntl.F_SETFL, fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW)
"""For a process that may write files."""

KILL: Final[dict[str, Numbers]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
}
"""Calls that no decoder makes: a process that makes one is compromised, and is killed."""

CLONE: Final[Numbers] = (56, 220)
CLONE3: Final[Numbers] = (435, 435)
PRLIMIT: Final[Numbers] = (302, 261)
TGKILL: Final[Numbers] = (234, 131)
SECCOMP: Final = (317, 277)

LANDLOCK_CREATE_RULESET: Final = 444
LANDLOCK_ADD_RULE: Final = 445
LANDLOCK_RESTRICT_SELF: Final = 446

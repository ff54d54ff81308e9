"""Sandbox of a decoder process: no network, no other programs, and few files, until it ends.

Two layers of Linux, neither of which needs privileges. Landlock (landlock(7), Linux 5.13) limits the files that may be
read and written. Seccomp (seccomp(2), x86-64 and aarch64) limits system calls: those that decoding needs are allowed,
some kill the process, every other fails with EPERM. A process that may write no files can open none for writing by
either layer: originals are safe from it on a kernel without Landlock too.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from errno import ENOSYS
from pathlib import Path
from struct import pack
from typing import Final

from image_service.imaging.isolation import syscalls

_PR_SET_NO_NEW_PRIVS: Final = 38

# landlock(7): access rights to files.
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ: Final = _READ_FILE | 1 << 3  # and list folders
_MAKE_REGULAR: Final = 1 << 8
_TRUNCATE: Final = 1 << 14
_WRITE: Final = _READ | _WRITE_FILE | _MAKE_REGULAR | _TRUNCATE
_ON_FILES: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
"""Rights that a rule about a single file may contain."""
_FILE_RIGHTS: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15))
"""All rights, by the version of the interface that added them."""
_NETWORK_RIGHTS: Final = ((4, 1 << 0 | 1 << 1),)
"""Binding and connecting TCP sockets."""
_SCOPES: Final = ((6, 1 << 0 | 1 << 1),)
"""Abstract Unix sockets and signals to processes outside the sandbox."""
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_SYSTEM_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_SEARCH_PATHS: Final = ("PYTHONPATH", "LD_LIBRARY_PATH")

# seccomp(2) and classic BPF; arguments of the call begin at offset 16, lower half first.
_FILTER: Final = 1
_ALL_THREADS: Final = 1
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_KILL, _ALLOW = 0x8000_0000, 0x7FFF_0000
_FAIL_EPERM, _FAIL_ENOSYS = 0x0005_0001, 0x0005_0026
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
"""Column in the table of system calls, and AUDIT_ARCH of linux/audit.h."""
_X32: Final = 0x4000_0000
"""Where x86-64 has a second set of numbers for the same calls."""
_CLONE_THREAD: Final = 0x0001_0000


def enter_sandbox(readable: Iterable[str], writable: Iterable[str]) -> tuple[str, ...]:
    """Confine this process until it ends. Call it once, before there is a second thread.

    Args:
        readable: Files and folders that stay readable, in addition to the program itself.
        writable: Folders in which files may be created, written and read. If there are none, the calls that do so fail.

    Returns:
        The layers that are unavailable on this machine, with the reason.
    """
    if sys.platform != "linux":
        return (f"any sandbox ({sys.platform} is not supported)",)
    writable = tuple(writable)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    lacking = []
    # In this order: the seccomp filter forbids the calls that Landlock takes.
    try:
        _apply_landlock(libc, (*readable, *_program()), writable)
    except OSError as error:
        lacking.append(f"Landlock ({error.strerror})")
    try:
        _apply_seccomp(libc, may_write=bool(writable))
    except OSError as error:
        lacking.append(f"seccomp ({error.strerror})")
    return tuple(lacking)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(libc: ctypes.CDLL, number: int, *arguments: int | bytes | None) -> int:
    """Make a system call; numbers as wide as a register, buffers by their address."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _check(libc.syscall(ctypes.c_long(number), *wide))


def _program() -> Iterator[str]:
    """Yield the paths of the interpreter, its libraries and this package: decoders load some of them on first use."""
    yield from (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), *_SYSTEM_LIBRARIES)
    for name in _SEARCH_PATHS:
        yield from filter(None, os.environ.get(name, "").split(os.pathsep))


def _apply_landlock(libc: ctypes.CDLL, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Allow access to these files only, and no network.

    Raises:
        OSError: the kernel has no Landlock, or it is disabled.
    """
    version = _call(libc, syscalls.LANDLOCK_CREATE_RULESET, None, 0, _ASK_VERSION)
    handled, *rest = (
        sum(rights for since, rights in kind if version >= since) for kind in (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)
    )
    # Older kernels accept the longer structure as long as the fields that they do not know are zero.
    attributes = pack("=QQQ", handled, *rest)
    ruleset = _call(libc, syscalls.LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    for paths, rights in ((readable, _READ), (writable, _WRITE)):
        for path in paths:
            _add_rule(libc, ruleset, path, rights & handled)
    _call(libc, syscalls.LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _add_rule(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Allow these rights on ``path`` and all below it, if it exists."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rights = rights if Path(path).is_dir() else rights & _ON_FILES
    _call(libc, syscalls.LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, pack("=Qi", rights, place), 0)
    os.close(place)


def _apply_seccomp(libc: ctypes.CDLL, *, may_write: bool) -> None:
    """Allow only the system calls that decoding needs.

    Args:
        libc: The C library.
        may_write: Whether files may be opened for writing.

    Raises:
        OSError: the kernel has no seccomp, or the processor is neither of the two whose numbers are known.
    """
    if (machine := platform.machine()) not in _ARCHITECTURES or sys.maxsize < 2**32:
        raise OSError(ENOSYS, f"no table of system calls for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    program = b"".join(_instructions(column, architecture, may_write=may_write))
    buffer = ctypes.create_string_buffer(program, len(program))
    described = pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call(libc, syscalls.SECCOMP[column], _FILTER, _ALL_THREADS, described)


def _instructions(column: int, architecture: int, *, may_write: bool) -> Iterator[bytes]:
    """Yield the filter program: a call that no rule matches reaches the last instruction."""

    def on(numbers: syscalls.Numbers, *then: bytes) -> Iterator[bytes]:
        """Yield the instructions ``then`` for this call only; the last must return."""
        if (number := numbers[column]) is not None:
            yield from (_bpf(_IF_EQUAL, number, unless=len(then)), *then)

    yield from (_bpf(_LOAD, _ARCHITECTURE_AT), _bpf(_IF_EQUAL, architecture, then=1), _bpf(_RETURN, _KILL))
    yield from (_bpf(_LOAD, _NUMBER_AT), _bpf(_IF_AT_LEAST, _X32, unless=1), _bpf(_RETURN, _KILL))
    for numbers in (syscalls.ALLOWED | (syscalls.WRITING if may_write else {})).values():
        yield from on(numbers, _bpf(_RETURN, _ALLOW))
    for numbers in syscalls.KILL.values():
        yield from on(numbers, _bpf(_RETURN, _KILL))
    for at, numbers in syscalls.OPEN.items():
        if may_write:
            yield from on(numbers, _bpf(_RETURN, _ALLOW))
        else:
            yield from on(numbers, *_on_argument(at, _IF_ANY_BIT, (syscalls.FOR_WRITING,), _FAIL_EPERM, _ALLOW))
    commands = syscalls.FCNTL_COMMANDS + (syscalls.FCNTL_COMMANDS_WRITING if may_write else ())
    yield from on(syscalls.FCNTL, *_on_argument(1, _IF_EQUAL, commands, _ALLOW, _FAIL_EPERM))
    yield from on(syscalls.CLONE, *_on_argument(0, _IF_ANY_BIT, (_CLONE_THREAD,), _ALLOW, _KILL))
    # A filter cannot read its flags, which are in memory; on ENOSYS, the C library falls back to clone.
    yield from on(syscalls.CLONE3, _bpf(_RETURN, _FAIL_ENOSYS))
    yield from on(syscalls.PRLIMIT, *_on_argument(0, _IF_EQUAL, (0,), _ALLOW, _FAIL_EPERM))
    yield from on(syscalls.TGKILL, *_on_argument(0, _IF_EQUAL, (os.getpid(),), _ALLOW, _FAIL_EPERM))
    yield _bpf(_RETURN, _FAIL_EPERM)


def _on_argument(at: int, jump: int, values: Iterable[int], matched: int, otherwise: int) -> Iterator[bytes]:
    """Yield instructions that compare an argument, of which the kernel too takes only the lower 32 bits, and return."""
    yield _bpf(_LOAD, _FIRST_ARGUMENT_AT + 8 * at)
    for value in values:
        yield from (_bpf(jump, value, unless=1), _bpf(_RETURN, matched))
    yield _bpf(_RETURN, otherwise)


def _bpf(operation: int, value: int, *, then: int = 0, unless: int = 0) -> bytes:
    """Return an instruction; a comparison skips ``then`` instructions where it holds, ``unless`` where it does not."""
    return pack("=HBBI", operation, then, unless, value)

"""Takes from a decoder process, for good, what no decoder needs: network, other programs, and most of the files.

Two layers of Linux, neither of which needs privileges. Landlock (landlock(7), Linux 5.13) says which files may be
read and written. Seccomp (seccomp(2), x86-64 and aarch64) says which system calls may be made at all: the few that
decoding takes are allowed, some end the process, every other fails with EPERM.
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

from image_service.imaging import syscalls

_PR_SET_NO_NEW_PRIVS: Final = 38

# landlock(7): the rights over files, then those that later versions of the interface added.
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ: Final = _READ_FILE | 1 << 3  # and list folders
_MAKE_REGULAR: Final = 1 << 8
_TRUNCATE: Final = 1 << 14
_WRITE: Final = _READ | _WRITE_FILE | _MAKE_REGULAR | _TRUNCATE
_ON_FILES: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
"""Those that make sense in a rule about a single file."""
_FILE_RIGHTS: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15))
"""All there are, by the version that knows them first."""
_NETWORK_RIGHTS: Final = ((4, 1 << 0 | 1 << 1),)
"""To bind and to connect TCP sockets."""
_SCOPES: Final = ((6, 1 << 0 | 1 << 1),)
"""Abstract Unix sockets and signals: not to be used across the edge of the sandbox."""
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_SYSTEM_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_SEARCH_PATHS: Final = ("PYTHONPATH", "LD_LIBRARY_PATH")

# seccomp(2) and the classic BPF it is told in; arguments of the call stand at 16, lower half first.
_FILTER: Final = 1
_ALL_THREADS: Final = 1
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_KILL, _ALLOW = 0x8000_0000, 0x7FFF_0000
_NOT_PERMITTED, _NO_SUCH_CALL = 0x0005_0001, 0x0005_0026  # to fail with EPERM, with ENOSYS
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
"""Column in the table of system calls, and AUDIT_ARCH of linux/audit.h."""
_X32: Final = 0x4000_0000
"""Where x86-64 has a second set of numbers, for the same calls."""
_CLONE_THREAD: Final = 0x0001_0000


def shut_in(readable: Iterable[str], writable: Iterable[str]) -> tuple[str, ...]:
    """Confine this process until it ends. Call it once, before there is a second thread.

    Args:
        readable: Files and folders that stay readable, beside the program itself.
        writable: Folders in which files may be created, written and read.

    Returns:
        The layers whose protection the process lacks, with the reason: the machine does not offer them.
    """
    if sys.platform != "linux":
        return (f"no sandbox is known for {sys.platform}",)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    lacking = []
    # In this order: the filter would not let the fence be built.
    try:
        _fence(libc, (*readable, *_program()), writable)
    except OSError as error:
        lacking.append(f"Landlock ({error.strerror})")
    try:
        _filter(libc)
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
    """Where the interpreter, its libraries and this package lie: decoders load some of them at their first use."""
    yield from (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), *_SYSTEM_LIBRARIES)
    for name in _SEARCH_PATHS:
        yield from filter(None, os.environ.get(name, "").split(os.pathsep))


def _fence(libc: ctypes.CDLL, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leave only these files within reach, and no network.

    Raises:
        OSError: the kernel has no Landlock, or it is turned off.
    """
    version = _call(libc, syscalls.LANDLOCK_CREATE_RULESET, None, 0, _ASK_VERSION)
    handled, *rest = (
        sum(rights for since, rights in kind if version >= since) for kind in (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)
    )
    # Older kernels take the longer structure as long as what they do not know is zero.
    attributes = pack("=QQQ", handled, *rest)
    ruleset = _call(libc, syscalls.LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    for paths, rights in ((readable, _READ), (writable, _WRITE)):
        for path in paths:
            _open_up(libc, ruleset, path, rights & handled)
    _call(libc, syscalls.LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _open_up(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Allow what is asked for on ``path`` and all below it; nothing where there is no such thing."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rights = rights if Path(path).is_dir() else rights & _ON_FILES
    _call(libc, syscalls.LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, pack("=Qi", rights, place), 0)
    os.close(place)


def _filter(libc: ctypes.CDLL) -> None:
    """Leave only the system calls that decoding takes.

    Raises:
        OSError: the kernel has no seccomp, or the processor is none of the two whose numbers are known.
    """
    if (machine := platform.machine()) not in _ARCHITECTURES or sys.maxsize < 2**32:
        raise OSError(ENOSYS, f"no table of system calls for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    program = b"".join(_instructions(column, architecture))
    buffer = ctypes.create_string_buffer(program, len(program))
    described = pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call(libc, syscalls.SECCOMP[column], _FILTER, _ALL_THREADS, described)


def _instructions(column: int, architecture: int) -> Iterator[bytes]:
    """The filter: whatever a call is not stopped or let through by falls to the last line."""

    def on(numbers: syscalls.Numbers, *then: bytes) -> Iterator[bytes]:
        """``then``, for this call only; it must return."""
        if (number := numbers[column]) is not None:
            yield from (_bpf(_IF_EQUAL, number, unless=len(then)), *then)

    def first_argument(jump: int, value: int, otherwise: int) -> tuple[bytes, ...]:
        fits = _bpf(jump, value, unless=1), _bpf(_RETURN, _ALLOW)
        return _bpf(_LOAD, _FIRST_ARGUMENT_AT), *fits, _bpf(_RETURN, otherwise)

    yield from (_bpf(_LOAD, _ARCHITECTURE_AT), _bpf(_IF_EQUAL, architecture, then=1), _bpf(_RETURN, _KILL))
    yield from (_bpf(_LOAD, _NUMBER_AT), _bpf(_IF_AT_LEAST, _X32, unless=1), _bpf(_RETURN, _KILL))
    for numbers in syscalls.HARMLESS.values():
        yield from on(numbers, _bpf(_RETURN, _ALLOW))
    for numbers in syscalls.LETHAL.values():
        yield from on(numbers, _bpf(_RETURN, _KILL))
    yield from on(syscalls.CLONE, *first_argument(_IF_ANY_BIT, _CLONE_THREAD, _KILL))
    # Its flags are out of reach; told that there is no such call, the C library falls back to clone.
    yield from on(syscalls.CLONE3, _bpf(_RETURN, _NO_SUCH_CALL))
    yield from on(syscalls.PRLIMIT, *first_argument(_IF_EQUAL, 0, _NOT_PERMITTED))
    yield from on(syscalls.TGKILL, *first_argument(_IF_EQUAL, os.getpid(), _NOT_PERMITTED))
    yield _bpf(_RETURN, _NOT_PERMITTED)


def _bpf(operation: int, value: int, *, then: int = 0, unless: int = 0) -> bytes:
    """An instruction; a comparison skips so many where it holds, and so many where it does not."""
    return pack("=HBBI", operation, then, unless, value)

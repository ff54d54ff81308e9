"""The seccomp filter on both processors, run by an interpreter of its instructions: tests run on one of them only."""

import fcntl
import os
from struct import iter_unpack, pack, unpack_from

import pytest

from image_service.imaging.isolation import sandbox, syscalls

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def verdict(machine: str, number: int, *arguments: int, may_write: bool = False, architecture: int = 0) -> int:
    """Return what the filter says of a call: classic BPF, of which it uses five instructions."""
    column, own = MACHINES[machine]
    call = pack("=IIQ6Q", number, architecture or own, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    program = [*iter_unpack("=HBBI", b"".join(sandbox._instructions(column, own, may_write=may_write)))]
    at, accumulator = 0, 0
    while True:
        operation, then, unless, value = program[at]
        at += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            (accumulator,) = unpack_from("=I", call, value)
            continue
        holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
        at += then if holds else unless


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def number(machine: str, call: syscalls.Numbers) -> int:
    found = call[MACHINES[machine][0]]
    assert found is not None
    return found


def test_filter_is_short_enough_for_the_kernel_and_for_its_jumps() -> None:
    for column, architecture in MACHINES.values():
        for may_write in (False, True):
            program = list(sandbox._instructions(column, architecture, may_write=may_write))
            assert len(program) < 4096
            assert {len(instruction) for instruction in program} == {8}


def test_other_architectures_are_killed(machine: str) -> None:
    assert verdict(machine, 0, architecture=0x40000003) == KILL
    assert verdict(machine, 0x40000000 + 1) == KILL


@pytest.mark.parametrize("command", [0, 1, 2, 3, 1030])
def test_fcntl_commands_of_decoding_are_allowed(machine: str, command: int) -> None:
    assert verdict(machine, number(machine, syscalls.FCNTL), 0, command) == ALLOW


@pytest.mark.parametrize("command", [*range(4, 41), *range(1024, 1030), *range(1031, 1045), 2**31, 2**32 - 1])
def test_every_other_fcntl_command_fails(machine: str, command: int) -> None:
    for upper in (0, 1 << 32):  # which the kernel ignores
        assert verdict(machine, number(machine, syscalls.FCNTL), 0, upper + command, 1) == EPERM


@pytest.mark.parametrize("command", [fcntl.F_SETOWN, 10, 15, fcntl.F_NOTIFY, fcntl.F_SETLEASE])
def test_signals_cannot_be_chosen_by_a_process_that_may_write_either(machine: str, command: int) -> None:
    assert verdict(machine, number(machine, syscalls.FCNTL), 0, command, 1, may_write=True) == EPERM


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND | os.O_RDWR, os.O_ACCMODE, 0o20000000 | 2]
)
def test_opening_for_writing_fails(machine: str, flags: int) -> None:
    for at, call in syscalls.OPEN.items():
        if call[MACHINES[machine][0]] is not None:
            before = (0,) * at
            assert verdict(machine, number(machine, call), *before, flags) == EPERM
            assert verdict(machine, number(machine, call), *before, (1 << 32) + flags) == EPERM
            assert verdict(machine, number(machine, call), *before, flags, may_write=True) == ALLOW
            for reading in (os.O_RDONLY, os.O_CLOEXEC, os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW):
                assert verdict(machine, number(machine, call), *before, reading) == ALLOW


def test_calls_that_change_files_need_permission(machine: str) -> None:
    for call in syscalls.WRITING.values():
        if call[MACHINES[machine][0]] is not None:
            assert verdict(machine, number(machine, call)) == EPERM
            assert verdict(machine, number(machine, call), may_write=True) == ALLOW


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("ioctl", (16, 29)),
        ("prctl", (157, 167)),
        ("kill", (62, 129)),
        ("tkill", (200, 130)),
        ("rt_sigqueueinfo", (129, 138)),
        ("rt_tgsigqueueinfo", (297, 240)),
        ("pidfd_open", (434, 434)),
        ("pidfd_send_signal", (424, 424)),
        ("timer_create", (222, 107)),
        ("socket", (41, 198)),
        ("connect", (42, 203)),
        ("sendmsg", (46, 211)),
        ("memfd_create", (319, 279)),
        ("openat2", (437, 437)),
        ("copy_file_range", (326, 285)),
        ("splice", (275, 76)),
        ("sendfile", (40, 71)),
        ("renameat2", (316, 276)),
        ("linkat", (265, 37)),
        ("symlinkat", (266, 36)),
        ("mknodat", (259, 33)),
        ("fchmod", (91, 52)),
        ("fallocate", (285, 47)),
        ("setpriority", (141, 140)),
    ],
)
def test_calls_that_reach_beyond_the_process_fail(machine: str, name: str, numbers: syscalls.Numbers) -> None:
    assert verdict(machine, number(machine, numbers), os.getpid(), 9) == EPERM, name


def test_calls_of_an_exploit_are_killed(machine: str) -> None:
    for name, call in syscalls.KILL.items():
        if call[MACHINES[machine][0]] is not None:
            assert verdict(machine, number(machine, call)) == KILL, name


def test_signals_to_its_own_threads_and_limits_of_its_own_only(machine: str) -> None:
    tgkill, prlimit = number(machine, syscalls.TGKILL), number(machine, syscalls.PRLIMIT)
    assert verdict(machine, tgkill, os.getpid(), 1, 6) == ALLOW
    assert verdict(machine, tgkill, os.getppid(), 1, 6) == EPERM
    assert verdict(machine, prlimit, 0) == ALLOW
    assert verdict(machine, prlimit, os.getppid()) == EPERM


def test_threads_are_allowed_and_processes_are_not(machine: str) -> None:
    clone = number(machine, syscalls.CLONE)
    assert verdict(machine, clone, 0x3D0F00) == ALLOW
    assert verdict(machine, clone, 0x01200011) == KILL
    assert verdict(machine, number(machine, syscalls.CLONE3)) == ENOSYS

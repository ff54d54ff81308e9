import ctypes
import subprocess
import sys

import pytest

from image_service.imaging.isolation import malloc

KEEPS = """
import ctypes, re, sys
from pathlib import Path
from image_service.imaging.isolation import malloc

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

def use(count, size):
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    blocks = [libc.malloc(ctypes.c_size_t(size)) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    last = libc.malloc(ctypes.c_size_t(1000))
    for block in blocks:
        libc.free(ctypes.c_void_p(block))

malloc.keep_freed_memory()
before = resident()
use(4, 32 << 20)
kept = resident() - before
use(16, 32 << 20)
malloc.trim_excess()
left = resident() - before
print(kept >> 20, left >> 20)
"""


def test_keeps_freed_memory_up_to_limit() -> None:
    done = subprocess.run([sys.executable, "-c", KEEPS], check=True, capture_output=True, text=True)  # noqa: S603 (a script of its own)
    kept, left = map(int, done.stdout.split())
    assert kept >= 96
    assert left <= malloc._KEPT >> 20


def test_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        malloc_trim = None

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Other())
    assert malloc._find() is None
    monkeypatch.setattr(malloc, "_library", None)
    malloc.keep_freed_memory()
    malloc.trim_excess()

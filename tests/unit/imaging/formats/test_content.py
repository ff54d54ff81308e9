"""Files on disk give the same slices as their bytes in memory, from few reads."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psutil import Process

from image_service.errors import CorruptImage
from image_service.imaging.formats.content import FileContent, number, take, without

DATA = bytes(range(256)) * 100
POSITIONS = st.integers(0, len(DATA) + 5000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(POSITIONS, st.integers(0, 9000)), max_size=20))
def test_slices_equal_those_of_bytes(path: Path, places: list[tuple[int, int]]) -> None:
    with FileContent(path) as content:
        assert len(content) == len(DATA)
        for start, count in places:
            assert content[start : start + count] == DATA[start : start + count]


def test_position_beyond_any_file_gives_nothing(path: Path) -> None:
    with FileContent(path) as content:
        assert content[2**64 : 2**64 + 4] == b""


def test_neighbouring_slices_take_one_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileContent(path) as content:
        reads, pread = [], os.pread

        def counted(file: int, count: int, position: int) -> bytes:
            reads.append(position)
            return pread(file, count, position)

        monkeypatch.setattr(os, "pread", counted)
        for start in (0, 100, 20_000, 20_010, 21_000):
            assert content[start : start + 10] == DATA[start : start + 10]
        assert reads == [20_000]


def test_closes_the_file(path: Path) -> None:
    before = Process().num_fds()
    with FileContent(path):
        pass
    assert Process().num_fds() == before


def test_take_refuses_a_file_that_ends_early() -> None:
    assert take(b"abcd", 1, 3) == b"bcd"
    with pytest.raises(CorruptImage, match="ends in the middle of its header"):
        take(b"abcd", 2, 3)


def test_number_ignores_bytes_beyond_the_end() -> None:
    assert number(b"\1\2", 0, 2) == 0x0102
    assert number(b"\1\2", 1, 2) == 2


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], b"0123456789"),
        ([(0, 2)], b"23456789"),
        ([(2, 4), (4, 6)], b"016789"),
        ([(3, 99)], b"012"),
        ([(0, 10)], b""),
    ],
)
def test_removes_parts(parts: list[tuple[int, int]], expected: bytes) -> None:
    assert without(b"0123456789", parts) == expected


def test_does_not_copy_content_without_removed_parts() -> None:
    assert without(DATA, []) is DATA

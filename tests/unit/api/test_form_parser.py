"""The form parser: what RFC 2046 allows around a boundary, what is refused and why, and how long it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.api.form_parser import FormError, FormParser, Part

HEAD = b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def parse(body: bytes, boundary: str = "XX", size: int | None = None) -> list[tuple[Part, bytes]]:
    """Returns the parts of a body that arrives in pieces of this size."""
    parser = FormParser(boundary)
    parts: list[tuple[Part, bytes]] = []
    size = size or len(body) + 1
    for at in range(0, len(body), size):
        for event in parser.feed(body[at : at + size]):
            if isinstance(event, Part):
                parts.append((event, b""))
            else:
                part, content = parts.pop()
                parts.append((part, content + event))
    parser.close()
    return parts


SIZES = [None, 1, 2, 3, 7]
"""Bytes that arrive at once."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("before", "padding", "after"),
    [
        (b"", b"", b"\r\n"),
        (b"", b"", b""),
        (b"\r\n", b" ", b"\r\n"),
        (b"", b" \t", b" \t \r\n"),
        (b"", b" " * 256, b"\r\nan epilogue"),
        (b"A preamble that names --XX within a line\r\n", b"", b"an epilogue\r\n--XX\r\n"),
        (b"\r\r\n\r\n--X\r\n", b"\t", b"\r\n--XX--"),
    ],
)
def test_padding_preamble_and_epilogue_are_ignored(
    before: bytes, padding: bytes, after: bytes, size: int | None
) -> None:
    body = (
        before + b"--XX" + padding + b"\r\n" + HEAD + b"one\r\n--XX" + padding + b"\r\n" + HEAD + b"\r\n--XX--" + after
    )
    assert [content for _, content in parse(body, size=size)] == [b"one", b""]


@pytest.mark.parametrize(
    "boundary",
    ["X", "===170===", "----=_Part_1_2.3", "a b", "'()+_,-./:=?", "-" * 70, "!#$%&*;<>@[]^`{|}~"],
)
@pytest.mark.parametrize("size", SIZES)
def test_boundary_is_taken_literally(boundary: str, size: int | None) -> None:
    line = b"--" + boundary.encode()
    content = b"\r\n" + line[:-1] + b"\r\n\r" + line + b"\r\nx" + line
    assert parse(line + b"\r\n" + HEAD + content + b"\r\n" + line + b"--", boundary, size) == [
        (Part(name="file", has_file_name=True), content)
    ]


@pytest.mark.parametrize(
    ("boundary", "reason"),
    [
        ("x" * 71, "longer than 70"),
        ("x" * 5000, "longer than 70"),
        ("a\nb", "does not allow"),
        ("a\0b", "does not allow"),
        ("\xff", "does not allow"),
        ("a\x7f", "does not allow"),
        ("abc ", "does not allow"),
    ],
)
def test_invalid_boundary_is_refused(boundary: str, reason: str) -> None:
    with pytest.raises(FormError, match=reason):
        FormParser(boundary)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not in the body"),
        (b"--XY\r\n" + HEAD + b"\r\n--XY--", "not in the body"),
        (b"--XX", "before its last boundary"),
        (b"--XX  ", "before its last boundary"),
        (b"--XX-", "before its last boundary"),
        (b"--XX\r", "before its last boundary"),
        (b"--XX\r\n" + HEAD, "before its last boundary"),
        (b"--XX\r\n" + HEAD + b"\r\n--XX", "before its last boundary"),
        (b"--XX\n" + HEAD, "LF alone"),
        (b"--XX \n" + HEAD, "LF alone"),
        (b"--XX" + b" " * 257 + b"\r\n" + HEAD, "goes on behind it"),
        (b"--XX" + b" " * 100_000, "goes on behind it"),
        (b"--XXY\r\n" + HEAD, "goes on behind it"),
        (b"--XX -", "goes on behind it"),
        (b"--XX\rx", "goes on behind it"),
        (b"--XX-x", "goes on behind it"),
        (b"--XX\r\n" + HEAD + b"\r\n--XXY\r\n", "goes on behind it"),
        (b"--XX\r\nX: " + b"y" * 5200, "more than 5120 bytes"),
        (b"--XX\r\nX: " + b"y" * 5200 + b"\r\n\r\n", "more than 5120 bytes"),
        (b"--XX\r\n" + b"X: y\r\n" * 8 + HEAD, "more than 8 header lines"),
        (b"--XX\r\nX: y\n" + HEAD, "CR or LF alone"),
        (b"--XX\r\nX: y\rz\r\n" + HEAD, "CR or LF alone"),
        (b"--XX\r\nno header\r\n" + HEAD, "without a name"),
        (b"--XX\r\n: empty\r\n" + HEAD, "without a name"),
        (b"--XX\r\n folded\r\n" + HEAD, "without a name"),
        (b"--XX\r\n\r\n\r\n", "without a name"),
        (b"--XX\r\nX: y\r\n\r\n", "no header Content-Disposition"),
        (b"--XX\r\n" + HEAD.replace(b"form-data", b"attachment"), "no header Content-Disposition"),
        (b"--XX\r\nContent-Disposition: form-data\r\n" + HEAD, "two headers Content-Disposition"),
        (b"--XX\r\nContent-Length: -1\r\n" + HEAD, "not a number"),
        (b"--XX\r\nContent-Length: " + b"9" * 5000 + b"\r\n" + HEAD, "not a number"),
        (b"--XX\r\nContent-Length: 2\r\n" + HEAD + b"one\r\n--XX--", "as long as its Content-Length"),
        ((b"--XX\r\n" + HEAD + b"\r\n") * 65, "more than 64 fields"),
    ],
)
def test_refusal_names_the_reason(body: bytes, reason: str, size: int | None) -> None:
    with pytest.raises(FormError, match=reason):
        parse(body, size=size)


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        (b'form-data; name="file"', Part(name="file", has_file_name=False)),
        (b"form-data; name=file; filename=a.jpg", Part(name="file", has_file_name=True)),
        (b'Form-Data;NAME="file";FileName=""', Part(name="file", has_file_name=True)),
        (b"form-data; filename*=utf-8''a.jpg; name=file", Part(name="file", has_file_name=True)),
        (b'form-data; name="file"; filename="a\\".jpg; name=b"', Part(name="file", has_file_name=True)),
        (b'form-data; name="file";\r\n\tfilename="a"', Part(name="file", has_file_name=True)),
        (b"form-data", Part(name="", has_file_name=False)),
        (b'form-data; name="a;filename=b"', Part(name="a;filename=b", has_file_name=False)),
    ],
)
def test_disposition_says_name_and_whether_it_is_a_file(disposition: bytes, expected: Part) -> None:
    body = b"--XX\r\nContent-Type: x/y\r\nContent-Disposition: " + disposition + b"\r\n\r\n\r\n--XX--"
    assert parse(body) == [(expected, b"")]


def test_true_length_of_a_part_is_accepted() -> None:
    body = b"--XX\r\nContent-Length: 3\r\n" + HEAD + b"one\r\n--XX--"
    assert parse(body) == [(Part(name="file", has_file_name=True, length=3), b"one")]


@given(body=st.binary(max_size=300), boundary=st.text(max_size=80), size=st.integers(1, 50))
def test_any_bytes_are_parsed_or_refused(body: bytes, boundary: str, size: int) -> None:
    with pytest.raises(FormError):
        parse(body, boundary or "X", size)


@given(
    pieces=st.lists(
        st.sampled_from([b"\r\n", b"\r", b"\n", b"--XX", b"--", b" ", HEAD, b"\r\n--XX", b"\r\n--XX\r\n", b"x"]),
        max_size=30,
    ),
    size=st.integers(1, 50),
)
def test_outcome_does_not_depend_on_how_the_body_is_cut(pieces: list[bytes], size: int) -> None:
    body = b"".join(pieces)
    assert outcome(body, None) == outcome(body, size)


def outcome(body: bytes, size: int | None) -> object:
    try:
        return parse(body, size=size)
    except FormError as error:
        return str(error)

"""The file is read from any valid form, however it arrives; every other body is refused with a reason."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from harness.asgi import Body, scope
from harness.forms import BOUNDARY, CONTENT_TYPE, form, part
from harness.pace import Stopwatch
from image_service.api.form_file import MAX_HELD, OPTIONS, FormFile
from image_service.api.multipart import UploadReader
from image_service.api.upload_limit import UploadLimit
from image_service.errors import (
    MalformedUpload,
    MissingFile,
    NotMultipart,
    OptionAfterFile,
    OptionConflict,
    RecipeAfterFile,
    RecipeConflict,
    TooManyFiles,
    UnsupportedEncoding,
    UploadRejected,
    UploadStalled,
    UploadTooLarge,
)

MAX_FILE_SIZE = 100_000
LARGEST_BODY = MAX_FILE_SIZE + 64 * 1024
DELIMITER = b"\r\n--" + BOUNDARY

# Contents that resemble the end of the file.
boundary_like = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", DELIMITER[:-1], DELIMITER[2:-1], b"\0", b"x"]), max_size=12
).map(b"".join)
contents = st.binary(max_size=200) | boundary_like


async def read(
    body: Body | bytes,
    headers: Mapping[str, str] | None = None,
    *,
    idle_timeout: float = 5.0,
    content_type: str = CONTENT_TYPE,
) -> bytes:
    """Returns the file of a form."""
    return (await read_form(body, headers, idle_timeout=idle_timeout, content_type=content_type))[0]


async def read_form(
    body: Body | bytes,
    headers: Mapping[str, str] | None = None,
    *,
    idle_timeout: float = 5.0,
    content_type: str = CONTENT_TYPE,
) -> tuple[bytes, dict[str, bytes]]:
    """Returns the file and the options of a form."""
    reader = UploadReader(max_file_size=MAX_FILE_SIZE)
    body = body if isinstance(body, Body) else Body([body])
    given_headers = {"content-type": content_type, **(headers or {})}
    request = Request(scope("POST", "/images", given_headers), body)
    limit = UploadLimit(1, idle_timeout=idle_timeout, min_rate=4096)
    with limit.upload() as upload:
        chosen = FormFile()
        async with aclosing(reader.file(request, upload, chosen)) as content:
            return b"".join([piece async for piece in content]), dict(chosen.options)


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@given(content=contents, places=st.lists(st.integers(0, 2000), max_size=20))
async def test_file_does_not_depend_on_chunk_boundaries(content: bytes, places: list[int]) -> None:
    body = form(part(b"before", b"note", None), part(content), part(b"after", b"other"))
    assert await read(Body(cut(body, places))) == content


@given(content=contents)
@example(content=DELIMITER[:-1])
async def test_file_sent_in_single_bytes_is_the_same(content: bytes) -> None:
    body = form(part(content))
    assert await read(Body([bytes([byte]) for byte in body])) == content


async def test_empty_file_is_read() -> None:
    assert await read(form(part(b""))) == b""


async def test_file_name_is_optional() -> None:
    assert await read(form(part(b"bytes", file_name=None))) == b"bytes"


async def test_largest_file_is_accepted() -> None:
    content = bytes(MAX_FILE_SIZE)
    assert await read(Body(cut(form(part(content)), range(0, MAX_FILE_SIZE, 60_000)))) == content


async def test_other_fields_are_ignored() -> None:
    body = form(
        part(b"1", b"note", None), part(b"2", b"files"), part(b"the file"), part(b"3", b"File"), part(b"4", b"")
    )
    assert await read(body) == b"the file"


async def test_epilogue_is_ignored() -> None:
    assert await read(Body([form(part(b"bytes")), b"and an epilogue"])) == b"bytes"


@pytest.mark.parametrize(
    "file_name",
    [
        b"../../etc/passwd",
        b"..\\..\\x",
        b"C:\\x.jpg",
        b"a\0b.jpg",
        b"\xff\xfe.jpg",
        "späť 🖼.jpg".encode(),
        b"",
        b"%22%0D%0A",
        b"x" * 3000,
    ],
)
async def test_file_name_is_ignored(file_name: bytes) -> None:
    assert await read(form(part(b"bytes", b"file", file_name))) == b"bytes"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"../file", b"file\0", b" file", "súbor".encode(), b"file[]"])
async def test_field_name_must_match_exactly(name: bytes) -> None:
    assert await read(form(part(b"other", name), part(b"bytes"))) == b"bytes"
    with pytest.raises(MissingFile):
        await read(form(part(b"other", name)))


@pytest.mark.parametrize("header", [b"X-Note: \xff\xfe\0", b"Content-Type: image/svg+xml; charset=nonsense", b"X-: "])
async def test_other_headers_of_the_field_are_ignored(header: bytes) -> None:
    assert await read(form(part(b"bytes", b"file", b"x", header))) == b"bytes"


@pytest.mark.parametrize(
    "content_type",
    [
        f'Multipart/Form-Data; charset=utf-8; boundary="{BOUNDARY.decode()}"',
        f"multipart/form-data;boundary={BOUNDARY.decode()}",
        f"multipart/form-data; BOUNDARY={BOUNDARY.decode()}; x",
    ],
)
async def test_content_type_variants_are_accepted(content_type: str) -> None:
    assert await read(form(part(b"bytes")), content_type=content_type) == b"bytes"


@pytest.mark.parametrize("body", [form(), form(part(b"bytes", b"photo")), form(part(b"x", b"", None))])
async def test_form_without_the_field_is_refused(body: bytes) -> None:
    with pytest.raises(MissingFile):
        await read(body)


async def test_request_without_content_type_and_body_is_refused() -> None:
    with pytest.raises(MissingFile):
        await read(b"", {"content-type": ""})


@pytest.mark.parametrize("between", [(), (part(b"x", b"note", None),)])
async def test_two_files_are_refused(between: tuple[bytes, ...]) -> None:
    with pytest.raises(TooManyFiles):
        await read(form(part(b"one"), *between, part(b"two")))


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        # As FilePond sends it: metadata first, under the name of the file.
        ([part(b"{}", file_name=None), part(b"file")], b"file"),
        ([part(b"file"), part(b"{}", file_name=None)], b"file"),
        ([part(b"", file_name=None), part(b"a", file_name=None), part(b"file"), part(b"b", file_name=None)], b"file"),
        ([part(bytes(MAX_HELD), file_name=None), part(b"file")], b"file"),
        ([part(b"{}", file_name=None), part(b"file", b"file", b"")], b"file"),
        ([part(b"{}", file_name=None), part(b"")], b""),
        # As clients send it that name no files, such as curl -F "file=<photo.jpg".
        ([part(bytes(MAX_HELD + 1), file_name=None)], bytes(MAX_HELD + 1)),
        ([part(bytes(MAX_HELD), file_name=None), part(b"x", b"note", None)], bytes(MAX_HELD)),
        ([part(b"", file_name=None)], b""),
    ],
)
async def test_file_is_the_part_with_a_file_name_or_else_the_only_one(parts: list[bytes], content: bytes) -> None:
    body = form(*parts)
    assert await read(body) == content
    assert await read(Body(cut(body, range(0, len(body), 1000)))) == content


@pytest.mark.parametrize(
    "parts",
    [
        [part(b"one", file_name=None), part(b"two", file_name=None)],
        [part(bytes(MAX_HELD + 1), file_name=None), part(b"two", file_name=None)],
        [part(bytes(MAX_HELD + 1), file_name=None), part(b"two")],
        [part(b"{}", file_name=None), part(b"one"), part(b"two")],
    ],
)
async def test_two_files_with_or_without_file_names_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(TooManyFiles):
        await read(form(*parts))


@pytest.mark.parametrize("boundary", ["----=_Part_1_2.3", "===170===", "a:b/c?d", "'()+_,-./:=?", '"a b"', '"a;b"'])
@pytest.mark.parametrize("end", ["", "; charset=utf-8", " "])
async def test_boundary_with_and_without_quotation_marks(boundary: str, end: str) -> None:
    body = form(part(b"bytes")).replace(BOUNDARY, boundary.strip('"').encode())
    assert await read(body, content_type=f"multipart/form-data; boundary={boundary}{end}") == b"bytes"
    assert await read(body, content_type=f'multipart/form-data; boundary="{boundary.strip(chr(34))}"{end}') == b"bytes"


async def test_blanks_after_boundaries_are_ignored() -> None:
    assert await read(form(part(b"bytes")).replace(BOUNDARY + b"\r\n", BOUNDARY + b" \t\r\n")) == b"bytes"


@pytest.mark.parametrize(
    ("boundary", "reason"),
    [
        ("x" * 71, "longer than 70 characters"),
        ('"a\x01b"', "a character that RFC 2046 does not allow"),
        ('"ab "', "a character that RFC 2046 does not allow"),
        ("another", "not in the body"),
        ("a; boundary=b", "names two boundaries"),
    ],
)
async def test_refusal_of_a_boundary_names_the_reason(boundary: str, reason: str) -> None:
    with pytest.raises(MalformedUpload, match=reason):
        await read(form(part(b"bytes")), content_type=f"multipart/form-data; boundary={boundary}")


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "identity, deflate", "x-unknown"])
async def test_compressed_body_is_refused_unread(coding: str) -> None:
    body = Body([form(part(b"bytes"))])
    with pytest.raises(UnsupportedEncoding):
        await read(body, {"content-encoding": coding})
    assert body.received == 0


@pytest.mark.parametrize("coding", ["", "identity", "Identity, identity"])
async def test_body_that_is_not_compressed_is_accepted(coding: str) -> None:
    assert await read(form(part(b"bytes")), {"content-encoding": coding}) == b"bytes"


@pytest.mark.parametrize(
    "content_type",
    ["image/jpeg", "application/x-www-form-urlencoded", "multipart/mixed; boundary=x", "form-data", ";", "nonsense"],
)
async def test_other_content_types_are_refused_unread(content_type: str) -> None:
    body = Body([form(part(b"bytes"))])
    with pytest.raises(NotMultipart):
        await read(body, content_type=content_type)
    assert body.received == 0


@pytest.mark.parametrize("parameters", ["", ";", "; boundary", "; boundary=", '; boundary=""', "; charset=utf-8"])
async def test_form_without_a_boundary_is_refused_unread(parameters: str) -> None:
    body = Body([form(part(b"bytes"))])
    with pytest.raises(MalformedUpload, match="names no boundary"):
        await read(body, content_type=f"multipart/form-data{parameters}")
    assert body.received == 0


@given(content_type=st.text(st.characters(max_codepoint=255)), body=st.binary(max_size=100))
@example(content_type='multipart/form-data; boundary="a\nb"', body=b"")
@example(content_type='multipart/form-data; boundary="\xff"', body=b"--\xff--")
@example(content_type="multipart/form-data; boundary=" + "x" * 5000, body=b"--" + b"x" * 5000 + b"--")
async def test_arbitrary_content_type_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(UploadRejected):
        await read(body, {"content-type": content_type})


WHOLE = form(part(b"before", b"note", None), part(b"bytes" * 20))


@pytest.mark.parametrize("length", range(len(WHOLE) - len(b"\r\n")))
async def test_truncated_body_is_refused(length: int) -> None:
    with pytest.raises(MalformedUpload):
        await read(WHOLE[:length])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"junk" * 10_000,
        b"\r\n" * 10_000,
        bytes(1000),
        form(part(b"bytes")).replace(BOUNDARY, b"another"),
        form(part(b"bytes")).replace(b"\r\n", b"\n"),
        form(part(b"bytes")).replace(b'Content-Disposition: form-data; name="file"', b"X: y"),
        form(part(b"bytes")).replace(b"form-data", b"attachment"),
        form(part(b"bytes", b"file", b"x", b"no header")),
        form(part(b"bytes", b"file", b"x", b"\xff\xfe: not a name")),
        form(part(b"bytes", b"file", b"x", b"Content-Length: 4")),
        form(part(b"bytes", b"file", b"x", b"Content-Length: " + b"9" * 4000)),
        form(part(b"bytes", b"file", b"x", *(b"X-%d: y" % number for number in range(20)))),
        form(part(b"bytes", b"file", b"x" * 10_000)),
        form(*(part(b"x", b"note", None) for _ in range(65))),
    ],
)
async def test_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedUpload, match="malformed"):
        await read(body)
    with pytest.raises(MalformedUpload, match="malformed"):
        await read(Body(cut(body, range(0, len(body), 7))))


async def test_form_with_many_fields_is_accepted() -> None:
    notes = [part(b"x", b"note", None) for _ in range(63)]
    assert await read(form(*notes, part(b"bytes"))) == b"bytes"


@given(body=st.binary(max_size=300))
async def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedUpload):
        await read(body)


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "0" * 5000 + str(LARGEST_BODY + 1), "9" * 30, "9" * 5000])
async def test_content_length_beyond_the_limit_is_refused_unread(length: str) -> None:
    body = Body([form(part(b"bytes"))])
    with pytest.raises(UploadTooLarge, match="up to 100,000 bytes"):
        await read(body, {"content-length": length})
    assert body.received == 0


@pytest.mark.parametrize("length", [str(LARGEST_BODY), "0" * 5000, "0", "-1", "+5", "5 ", "x", "²", ""])
async def test_other_content_lengths_are_ignored(length: str) -> None:
    assert await read(form(part(b"bytes")), {"content-length": length}) == b"bytes"


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}, {"transfer-encoding": "chunked"}])
async def test_body_beyond_the_limit_is_refused_while_it_arrives(headers: dict[str, str]) -> None:
    pieces = cut(form(part(bytes(10 * LARGEST_BODY))), range(0, 10 * LARGEST_BODY, 10_000))
    body = Body(pieces)
    with pytest.raises(UploadTooLarge, match="up to 100,000 bytes"):
        await read(body, headers)
    assert body.received <= LARGEST_BODY // 10_000 + 2


async def test_ignored_fields_count_towards_the_limit() -> None:
    with pytest.raises(UploadTooLarge):
        await read(form(part(b"bytes"), part(bytes(LARGEST_BODY), b"note")))


@pytest.mark.parametrize("pieces", [[], [b""], [form(part(b"bytes"))[:-10]]])
async def test_stalled_upload_is_aborted(pieces: list[bytes]) -> None:
    watch = Stopwatch()
    with pytest.raises(UploadStalled):
        await read(Body(pieces, then="silence"), idle_timeout=0.05)
    assert watch.seconds < 2


@pytest.mark.parametrize("pieces", [[], [b""], [form(part(b"bytes"))[:-10]], [form(part(b"bytes"))]])
async def test_disconnect_is_a_malformed_upload(pieces: list[bytes]) -> None:
    with pytest.raises(MalformedUpload, match="connection was closed"):
        await read(Body(pieces, then="disconnect"))


async def test_file_is_streamed_as_it_arrives() -> None:
    body = Body(cut(form(part(b"x" * 1000)), range(0, 1000, 100)))
    reader = UploadReader(max_file_size=MAX_FILE_SIZE)
    request = Request(scope("POST", headers={"content-type": CONTENT_TYPE}), body)
    with UploadLimit(1, idle_timeout=5, min_rate=4096).upload() as upload:
        async with aclosing(reader.file(request, upload, FormFile())) as content:
            await anext(content)
            assert body.received < 5


def option(value: bytes, name: bytes = b"recipe", file_name: bytes | None = None) -> bytes:
    return part(value, name, file_name)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ([option(b"avatar")], {"recipe": b"avatar"}),
        ([option(b"avatar", file_name=b"blob")], {"recipe": b"avatar"}),
        ([part(b"note", b"x", None), option("späť".encode())], {"recipe": "späť".encode()}),
        ([option(b"a"), option(b"a")], {"recipe": b"a"}),
        ([part(b"{}", b"file", None), option(b"a")], {"recipe": b"a"}),
        ([option(b"a"), part(b"{}", b"file", None)], {"recipe": b"a"}),
        ([option(b"")], {"recipe": b""}),
        ([option(b"1", b"metadata"), option(b"2", b"webhook")], {"metadata": b"1", "webhook": b"2"}),
        ([option(b"avatar", b"Recipe")], {}),
        ([], {}),
    ],
)
async def test_options_before_the_file_are_read(fields: list[bytes], options: dict[str, bytes]) -> None:
    body = form(*fields, part(b"the file"))
    assert await read_form(body) == (b"the file", options)
    assert await read_form(Body([bytes([byte]) for byte in body])) == (b"the file", options)


async def test_options_are_known_before_the_file_has_arrived() -> None:
    body = Body([form(option(b"avatar"), option(b"1", b"metadata"), part(b"x" * 1000))[:500]], then="silence")
    request = Request(scope("POST", headers={"content-type": CONTENT_TYPE}), body)
    with UploadLimit(1, idle_timeout=60, min_rate=4096, first=1).upload() as upload:
        chosen = FormFile()
        async with aclosing(UploadReader(max_file_size=MAX_FILE_SIZE).file(request, upload, chosen)) as content:
            await anext(content)
            assert chosen.options == {"recipe": b"avatar", "metadata": b"1"}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("beyond", [0, 1, 60_000])
async def test_options_are_kept_in_bounded_memory(name: str, beyond: int) -> None:
    content = b"\xff" * (OPTIONS[name] + beyond)
    _, options = await read_form(form(option(content, name.encode()), part(b"the file")))
    assert options == {name: content[: OPTIONS[name] + 1]}


@pytest.mark.parametrize("size", [0, 10, MAX_HELD + 1])
@pytest.mark.parametrize("file_name", [None, b"a.jpg"])
@pytest.mark.parametrize(("name", "error"), [(b"recipe", RecipeAfterFile), (b"metadata", OptionAfterFile)])
async def test_option_after_the_file_is_refused(
    size: int, file_name: bytes | None, name: bytes, error: type[OptionAfterFile]
) -> None:
    fields = [part(bytes(size), b"file", file_name), option(b"avatar", name)]
    with pytest.raises(error, match=f"field `{name.decode()}` comes after"):
        await read(form(*fields))
    with pytest.raises(error):
        await read(form(option(b"other", b"webhook"), *fields))


@pytest.mark.parametrize("position", [1, 2])
@pytest.mark.parametrize(
    ("name", "conflict", "after"),
    [(b"recipe", RecipeConflict, RecipeAfterFile), (b"webhook", OptionConflict, OptionAfterFile)],
)
async def test_two_values_of_an_option_are_refused(
    position: int, name: bytes, conflict: type[OptionConflict], after: type[OptionAfterFile]
) -> None:
    parts = [option(b"a", name), option(b"b", name)]
    parts.insert(position, part(b"x", b"file", None))
    with pytest.raises((conflict, after)):
        await read(form(*parts))
    with pytest.raises(conflict):
        await read(form(parts[0], option(b"b", name), part(b"the file")))

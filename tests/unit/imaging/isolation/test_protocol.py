"""Jobs and replies survive the protocol, and replies that the service's own code would not give are rejected."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from image_service.domain.image import ImageFormat, ImageTraits, MetadataKind, RenderedThumbnail, Rendering
from image_service.domain.recipe import Animation, Effort, Fit, OutputFormat, Preset, Recipe
from image_service.errors import CorruptImage, ServiceError, StorageFull, StorageUnavailable, UnsupportedFormat
from image_service.imaging.isolation.jobs import Job, decode_job, encode_job
from image_service.imaging.isolation.protocol import (
    MAX_LINE,
    SourceUnreadable,
    decode_reply,
    encode_error,
    encode_rendering,
)
from image_service.imaging.limits import MAX_ANIMATION_BYTES, RenderLimits

OUT = Path("/scratch/job")
RECIPE = Recipe(
    presets=(
        Preset(name="box", width=100, height=50),
        Preset(
            name="extra",
            width=300,
            height=300,
            quality=50,
            formats=(OutputFormat.AVIF,),
            effort=Effort.SMALL,
            optional=True,
        ),
    )
)
JOB = Job(source=Path("/originals/\udcff\n"), recipe=RECIPE, out=OUT)
LIMITS = RenderLimits(max_pixels=1_000_000, wall_seconds=5.0)
MADE = {"box": ("image/jpeg", 67, 50), "extra": ("image/avif", 300, 225)}


def rendering(*presets: str, metadata: tuple[MetadataKind, ...] = (), colour: str | None = None) -> Rendering:
    return Rendering(
        width=640,
        height=480,
        thumbnails=tuple(
            RenderedThumbnail(
                output=preset,
                path=OUT / preset,
                content_type=MADE[preset][0],
                width=MADE[preset][1],
                height=MADE[preset][2],
                size_bytes=999,
                sha256="ab" * 32,
            )
            for preset in presets
        ),
        traits=ImageTraits(placeholder="k0oGLQaSVsN0", dominant_colour=colour, metadata_removed=metadata),
        timings=(("decode", 0.1), ("resize box", 0.0), ("encode box", 0.25)),
        left_out=tuple(sorted(MADE.keys() - set(presets))),
    )


def fields() -> dict[str, Any]:
    """A valid reply to ``JOB``."""
    made = rendering("box", "extra", metadata=tuple(MetadataKind), colour="#c0ffee")
    content: dict[str, Any] = json.loads(encode_rendering(JOB.number, made))
    return content


def reject(content: object) -> str:
    """Return the reason for which a reply is rejected."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message depends on the flaw)
        decode_reply(json.dumps(content).encode(), JOB, LIMITS)
    return str(caught.value)


def test_job_round_trip() -> None:
    line = encode_job(JOB)
    assert line.count(b"\n") == 1
    number, source, recipe = decode_job(line)
    assert (number, source, recipe.outputs) == (JOB.number, JOB.source, RECIPE.outputs)
    assert str(OUT) not in line.decode()


@pytest.mark.parametrize(
    "made",
    [
        rendering("box", "extra", metadata=tuple(MetadataKind), colour="#c0ffee"),
        rendering("box"),
    ],
    ids=["everything", "without an optional output"],
)
def test_rendering_round_trip(made: Rendering) -> None:
    line = encode_rendering(JOB.number, made)
    assert line.count(b"\n") == 1
    reply = decode_reply(line, JOB, LIMITS)
    assert (reply.width, reply.height, reply.traits, reply.timings) == (640, 480, made.traits, made.timings)
    assert [(each.output, each.format.content_type, each.width, each.height) for each in reply.thumbnails] == [
        (each.output, each.content_type, each.width, each.height) for each in made.thumbnails
    ]
    assert [each.size_bytes for each in reply.thumbnails] == [999 for _ in made.thumbnails]
    assert reply.left_out == made.left_out


def test_numbers_of_jobs_cannot_be_foreseen() -> None:
    numbers = {Job(source=OUT, recipe=RECIPE, out=OUT).number for _ in range(100)}
    assert len(numbers) == 100
    assert {len(number) for number in numbers} == {16}


OTHER = Job(source=OUT, recipe=RECIPE, out=OUT)


@pytest.mark.parametrize("number", ["", "0" * 16, None, 0, [], OTHER], ids=lambda number: str(type(number)))
def test_rejects_reply_to_another_job(number: object) -> None:
    number = number.number if isinstance(number, Job) else number
    assert "another job" in reject(fields() | {"job": number})
    assert "another job" in reject({"job": number, "code": "corrupt-image", "detail": "Damaged."})


def test_rejects_rendering_without_required_output() -> None:
    with pytest.raises(ValueError, match="not a valid reply"):
        decode_reply(encode_rendering(JOB.number, rendering("extra")), JOB, LIMITS)


LIES: dict[tuple[str | int, ...], list[object]] = {
    ("width",): [0, -640, 641.5, 640.0, "640", None, True, 10**6, 10**30, [640], float("nan"), 64],
    ("height",): [0, 500, 1, "480"],
    ("unknown",): ["x"],
    ("thumbnails",): [[], {}, None, 7, {"box": []}, {"box": None}, {"box": ["image/jpeg", 67, 50, 999, "ab" * 32]}],
    ("thumbnails", "../../etc/passwd"): [["image/jpeg", 67, 50, 999]],
    ("thumbnails", "box", 0): [
        *("text/html", "image/svg+xml", "image/png", "image/avif", "", None, 7, "image/jpeg\r\nX-Evil: 1"),
    ],
    ("thumbnails", "box", 1): [0, -67, 66, 68, 67.0, "67", True, None, 100, 10**30],
    ("thumbnails", "box", 2): [0, 49, 51, 50.0],
    ("thumbnails", "box", 3): [0, -1, 1.5, "9", True, None, 67 * 50 * 5 + 64 * 1024 + 1, 10**30],
    ("left_out",): [["extra"], ["box"], ["unknown"], "", None, 7, {}, [None]],
    ("busy",): [None, 0, "yes", []],
    ("traits",): [None, {}, [], "AAAAAAAA", {"placeholder": "AAAAAAAA"}],
    ("traits", "unknown"): ["x"],
    ("traits", "placeholder"): ["", "AAA", "<b>", "AAAA AAAA", "AAAAAAAA\n", "A" * 68, 7, None, []],
    ("traits", "dominant_colour"): [
        *("<b>", "#C0FFEE", "#c0ffee\n", "#c0ffe", "#c0ffee0", "c0ffee", "", 7, [], "#\N{ARABIC-INDIC DIGIT ONE}00000"),
    ],
    ("traits", "metadata_removed"): [["secrets"], ["exif", "exif"], "exif", {}, None, [["exif"]], 7],
}
"""Places in a reply, and values that they cannot have."""


@pytest.mark.parametrize(("place", "lie"), [(place, lie) for place, lies in LIES.items() for lie in lies], ids=str)
def test_rejects_a_lie_in_any_field(place: tuple[str | int, ...], lie: object) -> None:
    content = fields()
    decode_reply(json.dumps(content).encode(), JOB, LIMITS)
    within: Any = content
    for name in place[:-1]:
        within = within[name]
    within[place[-1]] = lie
    reject(content)


def test_rejects_more_pixels_than_allowed() -> None:
    made = {"thumbnails": {"box": ["image/jpeg", 100, 25, 999]}, "left_out": ["extra"]}
    reject(fields() | made | {"width": 2004, "height": 500})
    allowed = fields() | made | {"width": 2000, "height": 500}
    assert decode_reply(json.dumps(allowed).encode(), JOB, LIMITS).width == 2000


@pytest.mark.parametrize("name", sorted(fields()))
def test_rejects_reply_without_a_field(name: str) -> None:
    content = fields()
    del content[name]
    reject(content)


@pytest.mark.parametrize(
    "line",
    [b"[" * 60_000, b'{"job":' * 9_000, b"\xff\xfe", b'{"job":' + b"9" * 5_000 + b"}", b"null", b'"job"', b"\0"],
    ids=["deep list", "deep object", "no UTF-8", "huge number", "null", "text", "NUL"],
)
def test_rejects_lines_that_break_parsers(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the message depends on the flaw)
        decode_reply(line, JOB, LIMITS)


@pytest.mark.parametrize(
    "timings",
    [
        [["secrets", 0.1]],
        [["encode elsewhere", 0.1]],
        [["encode", 0.1]],
        [["decode", 0.1], ["decode", 0.1]],
        [["decode", -0.1]],
        [["decode", 5.1]],  # longer than the job may take
        [["decode", float("nan")]],
        [["decode", float("inf")]],
        [["decode", "soon"]],
        [["decode"]],
        [[["decode"], 0.1]],
        None,
    ],
    ids=str,
)
def test_rejects_unknown_step_or_invalid_time(timings: object) -> None:
    reject(fields() | {"timings": timings})


def test_verdict_round_trip() -> None:
    with pytest.raises(CorruptImage, match=r"^The PNG header is damaged: “é”\.$"):
        decode_reply(encode_error(JOB.number, CorruptImage("The PNG header is damaged: “é”.")), JOB, LIMITS)


@pytest.mark.parametrize("error", [StorageFull(), StorageUnavailable()])
def test_an_outage_is_not_believed(error: ServiceError) -> None:
    with pytest.raises((ValueError, SourceUnreadable)):
        decode_reply(encode_error(JOB.number, error), JOB, LIMITS)


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("x" * 60_000, "x" * 300),
        ("one\r\ntwo\0\x1b[31m", "one  two  [31m"),
        ("\u202egnp.exe \u2066\ufeff", " gnp.exe   "),
        ("\ud800", " "),
    ],
    ids=["long", "control characters", "direction of writing", "half a pair"],
)
def test_detail_of_a_verdict_is_one_short_line(detail: str, shown: str) -> None:
    line = json.dumps({"job": JOB.number, "code": "unsupported-format", "detail": detail}).encode()
    with pytest.raises(UnsupportedFormat) as caught:
        decode_reply(line, JOB, LIMITS)
    assert caught.value.detail == shown
    assert caught.value.detail.encode()


@pytest.mark.parametrize("detail", [None, 7, ["Damaged."], {"x": 1}])
def test_rejects_detail_that_is_no_text(detail: object) -> None:
    reject({"job": JOB.number, "code": "corrupt-image", "detail": detail})


@pytest.mark.parametrize("code", ["nonsense", "database-unavailable", "upload-stalled", "", None, 7, ["corrupt-image"]])
def test_rejects_codes_that_are_no_verdict(code: object) -> None:
    reject({"job": JOB.number, "code": code, "detail": "Damaged."})


def test_formats_of_outputs_are_those_of_images() -> None:
    for output in OutputFormat:
        recipe = Recipe(presets=(Preset(name="box", width=100, height=50, formats=(output,)),))
        job = Job(source=OUT, recipe=recipe, out=OUT)
        allowed = set()
        for image_format in ImageFormat:
            content = json.loads(encode_rendering(job.number, rendering("box")))
            content["thumbnails"]["box"][0], content["left_out"] = image_format.content_type, []
            try:
                allowed.add(decode_reply(json.dumps(content).encode(), job, LIMITS).thumbnails[0].format)
            except ValueError:
                continue
        assert allowed == ({"jpeg", "webp"} if output is OutputFormat.AUTO else {output.value})


HERO = Preset(
    name="hero", width=400, height=400, dpr=(1, 2, 3), formats=(OutputFormat.AUTO, OutputFormat.WEBP, OutputFormat.AVIF)
)
ALL = Job(source=OUT, recipe=Recipe(presets=(HERO,)), out=OUT)


def heroes(made: dict[str, list[Any]]) -> dict[str, Any]:
    """Return a reply for an original of 640x480, whose third density has the size of the second."""
    missing = [each.name for each in ALL.recipe.outputs if each.name not in made]
    return fields() | {"job": ALL.number, "thumbnails": made, "left_out": missing, "timings": []}


DEFAULTS: dict[str, list[Any]] = {"hero": ["image/jpeg", 400, 300, 90], "hero@2x": ["image/jpeg", 640, 480, 300]}


def left_out(content: dict[str, Any], job: Job = ALL) -> tuple[str, ...]:
    return decode_reply(json.dumps(content).encode(), job, LIMITS).left_out


def test_variants_and_repeated_densities_may_be_left_out() -> None:
    variants = {
        "hero.webp": ["image/webp", 400, 300, 80],
        "hero.avif": ["image/avif", 400, 300, 89],
        "hero@2x.webp": ["image/webp", 640, 480, 299],
        "hero@2x.avif": ["image/avif", 640, 480, 1],
    }
    assert left_out(heroes(DEFAULTS | variants)) == ("hero@3x", "hero@3x.webp", "hero@3x.avif")
    assert len(left_out(heroes(DEFAULTS))) == 7


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hero": None}, "not a valid reply"),
        ({"hero@2x": None}, "not a valid reply"),
        ({"hero@3x": ["image/jpeg", 640, 480, 300]}, "an output"),
        ({"hero@3x.webp": ["image/webp", 640, 480, 3]}, "an output"),
        ({"hero.webp": ["image/webp", 400, 300, 90]}, "a variant"),
        ({"hero.webp": ["image/webp", 400, 300, 91]}, "a variant"),
        ({"hero": ["image/webp", 400, 300, 90], "hero.webp": ["image/webp", 400, 300, 9]}, "a variant"),
    ],
    ids=str,
)
def test_rejects_what_is_left_out_or_made_against_the_rule(changed: dict[str, Any], reason: str) -> None:
    made = {name: value for name, value in (DEFAULTS | changed).items() if value}
    with pytest.raises(ValueError, match=reason):
        left_out(heroes(made))


def test_variant_alone_has_nothing_to_be_compared_with() -> None:
    job = Job(source=OUT, recipe=Recipe.of(ALL.recipe.outputs[1:3]), out=OUT)
    content = fields() | {
        "job": job.number,
        "thumbnails": {"hero.webp": ["image/webp", 400, 300, 90]},
        "left_out": ["hero.avif"],
        "timings": [],
    }
    assert left_out(content, job) == ("hero.avif",)


def test_outputs_that_would_not_fit_the_process_s_memory_are_rejected() -> None:
    noise = Preset(name="noise", width=4000, height=4000, fit=Fit.PAD, dpr=(1,), formats=(OutputFormat.PNG,))
    recipe = Recipe(presets=tuple(replace(noise, name=f"noise{index}") for index in range(20)))
    job = Job(source=OUT, recipe=recipe, out=OUT)
    content = fields() | {"job": job.number, "left_out": [], "timings": []}
    for size_bytes, most in ((40 << 20, False), (60 << 20, True)):
        content["thumbnails"] = {each.name: ["image/png", 4000, 4000, size_bytes] for each in recipe.outputs}
        if most:
            with pytest.raises(ValueError, match="a number of bytes"):
                left_out(content, job)
        else:
            assert left_out(content, job) == ()


def test_an_animation_may_have_more_bytes_than_a_picture() -> None:
    sticker = Preset(
        name="box", width=100, height=50, formats=(OutputFormat.WEBP,), animation=Animation.KEEP, fit=Fit.PAD
    )
    job = Job(source=OUT, recipe=Recipe(presets=(sticker,)), out=OUT)
    content = fields() | {"job": job.number, "left_out": [], "timings": []}
    for size_bytes, allowed in ((MAX_ANIMATION_BYTES, True), (MAX_ANIMATION_BYTES + 1, False)):
        content["thumbnails"] = {"box": ["image/webp", 100, 50, size_bytes]}
        if allowed:
            assert left_out(content, job) == ()
        else:
            with pytest.raises(ValueError, match="a number of bytes"):
                left_out(content, job)


def test_the_line_of_the_largest_recipe_is_within_the_bound() -> None:
    presets = tuple(
        Preset(name=f"{index}".rjust(64, "x"), width=1600, height=1600, formats=(OutputFormat.AUTO, OutputFormat.WEBP))
        for index in range(32)
    )
    recipe = Recipe(presets=presets)
    assert len(recipe.outputs) == 64
    thumbnails = tuple(
        RenderedThumbnail(
            output=each.name,
            path=OUT,
            content_type="image/webp",
            width=16_000,
            height=16_000,
            size_bytes=64 << 20,
        )
        for each in recipe.outputs
    )
    labels = [f"{step} {each.name}" for each in recipe.outputs for step in ("resize", "encode")]
    made = replace(rendering(), thumbnails=thumbnails, timings=tuple((label, 12.345678) for label in labels))
    none = replace(made, thumbnails=(), left_out=tuple(each.name for each in recipe.outputs))
    for each in (made, none):
        assert len(encode_rendering(JOB.number, each)) < MAX_LINE / 1.5

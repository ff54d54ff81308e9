"""Jobs and replies survive the protocol, and invalid replies are rejected."""

import json
from pathlib import Path

import pytest

from image_service.domain.image import ImageTraits, MetadataKind, RenderedThumbnail, Rendering
from image_service.domain.recipe import Effort, OutputFormat, Preset, Recipe
from image_service.imaging.isolation.protocol import Job, decode_job, decode_reply, encode_job, encode_rendering

OUT = Path("/scratch/job")
RECIPE = Recipe(
    presets=(
        Preset(name="box", width=100, height=50),
        Preset(
            name="extra",
            width=300,
            height=300,
            quality=50,
            format=OutputFormat.AVIF,
            effort=Effort.SMALL,
            optional=True,
        ),
    )
)
JOB = Job(source=Path("/originals/\udcff\n"), recipe=RECIPE, out=OUT)


def rendering(*presets: str, metadata: tuple[MetadataKind, ...] = (), colour: str | None = None) -> Rendering:
    return Rendering(
        width=640,
        height=480,
        thumbnails=tuple(
            RenderedThumbnail(
                preset=preset,
                path=OUT / preset,
                content_type="image/avif",
                width=100,
                height=75,
                size_bytes=999,
                sha256="ab" * 32,
            )
            for preset in presets
        ),
        traits=ImageTraits(placeholder="AAAA", dominant_colour=colour, metadata_removed=metadata),
        timings=(("decode", 0.1), ("resize box", 0.0), ("encode box", 0.25)),
    )


def test_job_round_trip() -> None:
    line = encode_job(JOB)
    assert line.count(b"\n") == 1
    assert decode_job(line) == JOB
    assert decode_job(line).recipe.fingerprint == RECIPE.fingerprint


@pytest.mark.parametrize(
    "made",
    [
        rendering("box", "extra", metadata=tuple(MetadataKind), colour="#c0ffee"),
        rendering("box"),
    ],
    ids=["everything", "without an optional output"],
)
def test_rendering_round_trip(made: Rendering) -> None:
    line = encode_rendering(made)
    assert line.count(b"\n") == 1
    assert decode_reply(line, JOB) == made
    assert decode_reply(line, JOB).timings == made.timings


def test_rejects_rendering_without_required_output() -> None:
    with pytest.raises(ValueError, match="not a valid reply"):
        decode_reply(encode_rendering(rendering("extra")), JOB)


@pytest.mark.parametrize("traits", [None, {}, [], {"placeholder": "AAAA"}, "AAAA"])
def test_rejects_incomplete_traits(traits: object) -> None:
    fields = json.loads(encode_rendering(rendering("box"))) | {"traits": traits}
    with pytest.raises(ValueError, match="not a valid reply"):
        decode_reply(json.dumps(fields).encode(), JOB)


def test_rejects_unknown_metadata_kind() -> None:
    fields = json.loads(encode_rendering(rendering("box")))
    fields["traits"]["metadata_removed"] = ["secrets"]
    with pytest.raises(ValueError, match="secrets"):
        decode_reply(json.dumps(fields).encode(), JOB)


@pytest.mark.parametrize(
    "timings",
    [
        [["secrets", 0.1]],
        [["encode elsewhere", 0.1]],
        [["encode", 0.1]],
        [["decode", 0.1], ["decode", 0.1]],
        [["decode", -0.1]],
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
    fields = json.loads(encode_rendering(rendering("box"))) | {"timings": timings}
    with pytest.raises(ValueError):  # noqa: PT011  (the message depends on the flaw)
        decode_reply(json.dumps(fields).encode(), JOB)

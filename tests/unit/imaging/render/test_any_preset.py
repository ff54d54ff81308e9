"""Whatever the image and the preset: the file has the size that a reply is checked against, and shows the image."""

from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.images import encoded, gradient, oriented
from image_service.domain.geometry import output_size
from image_service.domain.recipe import Fit, Gravity, OutputFormat, Preset, Recipe
from image_service.imaging.isolation.jobs import Job
from image_service.imaging.isolation.protocol import decode_reply, encode_rendering
from image_service.imaging.limits import DEFAULT_LIMITS
from tests.unit.imaging.render.rendered import Make

SIDES = st.one_of(st.integers(1, 20), st.integers(1, 900))
BOX = st.one_of(st.none(), st.integers(1, 20), st.integers(1, 400))
FORMATS = (OutputFormat.AUTO, OutputFormat.JPEG, OutputFormat.PNG, OutputFormat.WEBP)
PRESETS = st.builds(
    Preset,
    name=st.just("small"),
    width=BOX,
    height=BOX,
    fit=st.sampled_from(Fit),
    gravity=st.sampled_from(Gravity),
    enlarge=st.booleans(),
    sharpen=st.booleans(),
    linear=st.booleans(),
    dpr=st.sampled_from([(1,), (1, 2)]),
    formats=st.sampled_from([(each,) for each in FORMATS] + [FORMATS[:1] + FORMATS[2:]]),
).filter(lambda preset: bool(preset.width or preset.height))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=SIDES,
    height=SIDES,
    mode=st.sampled_from(["L", "RGB", "RGBA", "CMYK"]),
    orientation=st.integers(1, 8),
    preset=PRESETS,
)
@example(width=1, height=900, mode="RGB", orientation=1, preset=Preset(name="small", width=300, enlarge=True))
@example(
    width=900,
    height=1,
    mode="RGBA",
    orientation=6,
    preset=Preset(name="small", width=70, height=400, fit=Fit.COVER, enlarge=True, linear=True, sharpen=True),
)
@example(
    width=900,
    height=1,
    mode="L",
    orientation=1,
    preset=Preset(name="small", width=400, height=400, fit=Fit.OUTSIDE, enlarge=True, gravity=Gravity.ATTENTION),
)
def test_every_output_has_the_size_that_it_is_checked_against(
    make: Make, *, width: int, height: int, mode: str, orientation: int, preset: Preset
) -> None:
    image = gradient(width, height).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    kind = {"CMYK": "JPEG", "RGBA": "PNG"}.get(mode, "JPEG" if width % 2 else "PNG")
    recipe = Recipe(presets=(preset,))
    made = make(encoded(image, kind, exif=oriented(image, orientation)), recipe)
    upright = (width, height) if orientation < 5 else (height, width)
    assert (made.rendering.width, made.rendering.height) == upright
    sizes = {each.name: output_size(*upright, each) for each in recipe.outputs}
    for each in made.rendering.thumbnails:
        with Image.open(each.path) as opened:
            assert opened.size == (each.width, each.height) == sizes[each.output]
    job = Job(source=Path("source"), recipe=recipe, out=Path("out"))
    reply = decode_reply(encode_rendering(job.number, made.rendering), job, DEFAULT_LIMITS)
    assert reply.left_out == made.rendering.left_out

"""Steps of the pipeline are reported by the names in ``Step``, in their order."""

from harness.images import encoded, gradient
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.render.steps import STEPS_OF_AN_IMAGE, STEPS_OF_AN_OUTPUT, Step, label
from tests.unit.imaging.render.rendered import Make


def test_reports_every_step_in_order(make: Make) -> None:
    labels = [name for name, _ in make(encoded(gradient(1300, 900), "JPEG"), DEFAULT_RECIPE).rendering.timings]
    of_an_image = [label(step) for step in Step if step in STEPS_OF_AN_IMAGE]
    of_presets = [
        label(step, name) for name in ("1200x1200", "300x300", "100x100") for step in Step if step in STEPS_OF_AN_OUTPUT
    ]
    assert labels == of_an_image[:-1] + of_presets + of_an_image[-1:]

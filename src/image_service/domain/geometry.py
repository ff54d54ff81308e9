"""Computes the size of a thumbnail."""


def fit_inside(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    """Returns the largest size with the aspect ratio of ``width``x``height`` that fits the box without enlarging.

    Rounded to the nearest pixel; a side never falls below one pixel, however thin the image.

    Args:
        width: Width of the image in pixels, at least 1.
        height: Height of the image in pixels, at least 1.
        box_width: Width of the box in pixels, at least 1.
        box_height: Height of the box in pixels, at least 1.

    Returns:
        Width and height in pixels.
    """
    if width <= box_width and height <= box_height:
        return width, height
    # Integer arithmetic rounds half up exactly; floating point would be off for extreme ratios such as 20000x1.
    if width * box_height >= height * box_width:
        return box_width, max(1, (2 * height * box_width + width) // (2 * width))
    return max(1, (2 * width * box_height + height) // (2 * height)), box_height

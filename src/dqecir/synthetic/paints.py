"""Colours of drawn objects."""

from __future__ import annotations

from collections.abc import Sequence

RGB = tuple[int, int, int]


def shade(paint: RGB, chance: Sequence[float]) -> RGB:
    """Return a colour with a slightly different lightness and hue, so that its name stays right.

    ``chance`` are four random numbers from 0 to 1.
    """
    light = 1 + 0.08 * (chance[0] - 0.5)
    red, green, blue = (
        min(255, max(0, round(part * light + 12 * (c - 0.5))))
        for part, c in zip(paint, chance[1:], strict=True)
    )
    return red, green, blue


def luma(color: RGB) -> float:
    """Return the lightness of a colour from 0 to 255, with the weights of ITU-R BT.601."""
    return 0.30 * color[0] + 0.59 * color[1] + 0.11 * color[2]

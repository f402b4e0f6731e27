"""Colours of drawn objects."""

from __future__ import annotations

from collections.abc import Sequence

RGB = tuple[int, int, int]


def shade(paint: RGB, chance: Sequence[float]) -> RGB:
    """Return a paint with so little other lightness and hue that it keeps its name.

    ``chance`` holds four numbers from 0 to 1.
    """
    light = 1 + 0.08 * (chance[0] - 0.5)
    red, green, blue = (
        min(255, max(0, round(part * light + 12 * (c - 0.5))))
        for part, c in zip(paint, chance[1:], strict=True)
    )
    return red, green, blue


def luma(color: RGB) -> float:
    """Return how light a colour is, from 0 to 255, by the weights of ITU-R BT.601."""
    return 0.30 * color[0] + 0.59 * color[1] + 0.11 * color[2]

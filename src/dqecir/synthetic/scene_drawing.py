"""Draw scenes with Pillow: textured shapes on a background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from dqecir.synthetic.drawn_catalogue import check_size
from dqecir.synthetic.paints import RGB, luma, shade
from dqecir.synthetic.scene_vectors import ALONE, check_vector

Points = NDArray[np.float64]  # [points, 2], in the unit circle, downwards positive
Background = Callable[[np.random.Generator, int], Image.Image]
"""Function (random generator, side in pixels) -> a background."""

PAINTS: Mapping[str, RGB] = {
    "black": (26, 26, 30),
    "white": (248, 248, 246),
    "red": (214, 30, 40),
    "orange": (246, 132, 20),
    "yellow": (252, 220, 40),
    "green": (30, 150, 60),
    "blue": (36, 84, 214),
    "purple": (134, 52, 178),
}

_SUPERSAMPLING = 2
_VIEWS = 4
"""Number of different drawings of each background."""
_RADII = {"small": 0.062, "medium": 0.092, "big": 0.128}
"""Size -> radius of a figure, in picture sides."""
_OTHER_RADIUS = 0.088
_MIDDLES = {
    "left": (0.28, 0.5),
    "right": (0.72, 0.5),
    "top": (0.5, 0.28),
    "bottom": (0.5, 0.72),
    "centre": (0.5, 0.5),
}
"""Place -> centre (x, y) of the group of figures, in picture sides."""
_OPPOSITE = {"left": (0.85, 0.5), "right": (0.15, 0.5), "top": (0.5, 0.85), "bottom": (0.5, 0.15)}
_CORNERS = ((0.12, 0.12), (0.88, 0.12), (0.12, 0.88), (0.88, 0.88))
_ROWS = {1: (1,), 2: (2,), 3: (2, 1), 4: (2, 2), 5: (3, 2)}
"""Number of figures -> figures in each row (in each column, if the group is at the left or right)."""
_RIM = 0.012


def render_scene(attributes: Mapping[str, str], rng: np.random.Generator, size: int = 96) -> Image.Image:
    """Draw a scene with these attributes: RGB, ``size`` x ``size`` pixels (64 to 512).

    ``rng`` decides everything that no attribute names: shades, rotation, spacing and details of the
    background. Raises ``DataError`` for an invalid vector or size.
    """
    check_vector(attributes)
    check_size("scenes", size)
    side = size * _SUPERSAMPLING
    chance = iter(rng.random(64).tolist())
    canvas = _background(attributes["background"], int(next(chance) * _VIEWS), side).copy()
    light = 1 + 0.10 * (next(chance) - 0.5)
    color = shade(PAINTS[attributes["figure_colour"]], [next(chance) for _ in range(4)])
    radius = _RADII[attributes["figure_size"]] * (0.95 + 0.08 * next(chance))
    count, place = int(attributes["figure_count"]), attributes["figure_place"]
    spread = 2 * radius + 0.03 + 0.04 * next(chance) * (attributes["figure_size"] != "big")
    for x, y in _places(count, place, spread):
        middle = (x + 0.02 * (next(chance) - 0.5), y + 0.02 * (next(chance) - 0.5))
        turn = 0.5 * (next(chance) - 0.5)
        _paint(canvas, attributes["figure"], attributes["figure_texture"], color, middle, radius, turn)
    if attributes["other"] != ALONE:
        color = shade(PAINTS[attributes["other_colour"]], [next(chance) for _ in range(4)])
        x, y = _OPPOSITE.get(place) or _CORNERS[int(next(chance) * len(_CORNERS))]
        away = 0.36 * (next(chance) - 0.5)
        middle = (x + away * (place in ("top", "bottom")), y + away * (place in ("left", "right")))
        turn = 0.5 * (next(chance) - 0.5)
        _paint(canvas, attributes["other"], "plain", color, middle, _OTHER_RADIUS, turn)
    return canvas.reduce(_SUPERSAMPLING).point(lambda part: part * light)


def _places(count: int, place: str, spread: float) -> list[tuple[float, float]]:
    """Return the centres (x, y) of ``count`` figures, in picture sides.

    They are in rows around the centre of ``place``, or in columns if that is left or right; ``spread`` is the
    distance between neighbours.
    """
    x, y = _MIDDLES[place]
    found = []
    rows = _ROWS[count]
    for row, members in enumerate(rows):
        for member in range(members):
            along = spread * (member - (members - 1) / 2)
            across = spread * (row - (len(rows) - 1) / 2)
            upright = place in ("left", "right")
            found.append((x + across, y + along) if upright else (x + along, y + across))
    return found


def _paint(
    canvas: Image.Image,
    shape: str,
    texture: str,
    color: RGB,
    middle: tuple[float, float],
    radius: float,
    turn: float,
) -> None:
    """Paint one shape, with its rim and texture in the colour of :func:`_ink`.

    ``middle`` (x, y) and ``radius`` are in picture sides; ``turn`` rotates the outline, in radians.
    """
    side = canvas.width
    points = _OUTLINES[shape]
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    placed = points @ np.array(((cos, sin), (-sin, cos)))
    corner = [round(side * (part - radius - 2 * _RIM)) for part in middle]
    edge = round(2 * side * (radius + 2 * _RIM))
    pixels = placed * (radius * side) + np.array(middle) * side - corner
    flat: list[float] = pixels.ravel().tolist()
    mask = Image.new("L", (edge, edge), 0)
    pen = ImageDraw.Draw(mask)
    pen.polygon(flat, fill=255)
    ink = _ink(color)
    rim = round(_RIM * side)
    outer = mask.copy()
    ImageDraw.Draw(outer).line([*flat, *flat[:4]], fill=255, width=rim, joint="curve")
    left, top = corner
    canvas.paste(ink, (left, top, left + edge, top + edge), outer)
    canvas.paste(color, (left, top, left + edge, top + edge), mask)
    if texture != "plain":
        marks = ImageChops.multiply(_marks(texture, edge, side), mask)
        canvas.paste(ink, (left, top, left + edge, top + edge), marks)


def _ink(color: RGB) -> RGB:
    """Return the colour of rims and textures: near black, or near white on dark colours."""
    return (236, 236, 232) if luma(color) < 90 else (24, 24, 28)


def _ring(corners: int, start: float) -> Points:
    angles = start + np.arange(corners) * 2 * np.pi / corners
    return np.stack((np.cos(angles), np.sin(angles)), axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    down = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    return np.stack((16 * np.sin(t) ** 3, down), axis=1) / 16 + (0.0, -0.12)


def _cross() -> Points:
    arm = np.array([(0.98, -0.34), (0.98, 0.34), (0.34, 0.34)])
    turn = np.array(((0, 1), (-1, 0)))
    return np.concatenate([arm @ np.linalg.matrix_power(turn, turns) for turns in range(4)])


_OUTLINES: Mapping[str, Points] = {
    "circle": 0.9 * _ring(24, 0.0),
    "square": 1.12 * _ring(4, np.pi / 4),
    "triangle": 1.15 * _ring(3, -np.pi / 2) + (0.0, 0.18),
    "star": 1.15 * _ring(10, -np.pi / 2) * np.where(np.arange(10) % 2, 0.44, 1.0)[:, None],
    "heart": _heart(),
    "cross": _cross(),
}
"""Shape -> its corners in the unit circle; all shapes have about the same area."""


@lru_cache(maxsize=64)
def _marks(texture: str, edge: int, side: int) -> Image.Image:
    """Return the mask of a texture's ink, [edge, edge] pixels, for a canvas of ``side`` pixels."""
    marks = Image.new("L", (edge, edge), 0)
    pen = ImageDraw.Draw(marks)
    if texture == "striped":
        step = 0.046 * side
        for y in np.arange(step / 2, edge, step):
            pen.rectangle((0, y, edge, y + 0.42 * step), fill=255)
    else:
        step, dot = 0.044 * side, 0.0125 * side
        for row, y in enumerate(np.arange(step / 2, edge, step)):
            for x in np.arange(step / 2 * (1 + row % 2), edge, step):
                pen.ellipse((x - dot, y - dot, x + dot, y + dot), fill=255)
    return marks


@lru_cache(maxsize=64)
def _background(name: str, view: int, side: int) -> Image.Image:
    """Return drawing number ``view`` of the background ``name``, ``side`` x ``side`` pixels."""
    rng = np.random.default_rng((view, sorted(_BACKGROUNDS).index(name)))
    return _BACKGROUNDS[name](rng, side)


def _ramp(above: RGB, below: RGB, side: int) -> Image.Image:
    down = np.linspace(0, 1, side)[:, None, None]
    pixels = np.array(above) * (1 - down) + np.array(below) * down
    return Image.fromarray(np.broadcast_to(pixels, (side, side, 3)).astype(np.uint8))


def _sky(rng: np.random.Generator, side: int) -> Image.Image:
    image = _ramp((122, 190, 236), (206, 232, 246), side)
    pen = ImageDraw.Draw(image)
    for x, y in rng.uniform(0, side, (4, 2)):
        for dx in (-0.09, 0.0, 0.09):
            reach = side * (0.10 if dx == 0 else 0.07)
            pen.ellipse(
                (x + dx * side - reach, y - reach / 2, x + dx * side + reach, y + reach / 2), "#dcecf6"
            )
    return image


def _grass(rng: np.random.Generator, side: int) -> Image.Image:
    image = _ramp((156, 206, 122), (120, 182, 92), side)
    pen = ImageDraw.Draw(image)
    for x, y, lean in rng.uniform((0, 0, -1), (side, side, 1), (150, 3)):
        pen.line(
            (x, y, x + 0.015 * lean * side, y - 0.04 * side), fill=(92, 156, 70), width=max(1, side // 96)
        )
    return image


def _grainy(above: RGB, below: RGB, grains: int, fill: RGB) -> Background:
    def drawn(rng: np.random.Generator, side: int) -> Image.Image:
        image = _ramp(above, below, side)
        pen = ImageDraw.Draw(image)
        grain = max(1, side // 128)
        for x, y in rng.uniform(0, side, (grains, 2)):
            pen.rectangle((x, y, x + grain, y + grain), fill=fill)
        return image

    return drawn


def _paper(rng: np.random.Generator, side: int) -> Image.Image:
    image = Image.new("RGB", (side, side), (226, 226, 230))
    pen = ImageDraw.Draw(image)
    step, start = side / 9, rng.uniform(0, side / 9)
    for line in np.arange(start, side, step):
        pen.line((0, line, side, line), fill=(176, 190, 214), width=max(1, side // 96))
        pen.line((line, 0, line, side), fill=(176, 190, 214), width=max(1, side // 96))
    return image


def _bricks(rng: np.random.Generator, side: int) -> Image.Image:
    image = Image.new("RGB", (side, side), (206, 196, 190))
    pen = ImageDraw.Draw(image)
    high, wide, gap = side / 10, side / 5, max(1, side // 80)
    for row in range(11):
        for brick in range(-1, 6):
            x, y = (brick + row % 2 / 2) * wide, row * high - high / 3
            tone = rng.uniform(-10, 10)
            fill = (round(182 + tone), round(122 + tone), round(104 + tone))
            pen.rectangle((x, y, x + wide - gap, y + high - gap), fill=fill)
    return image


_BACKGROUNDS: Mapping[str, Background] = {
    "sky": _sky,
    "grass": _grass,
    "sand": _grainy((236, 214, 166), (222, 194, 142), 420, (196, 164, 112)),
    "night": _grainy((34, 38, 74), (70, 72, 112), 40, (190, 190, 214)),
    "paper": _paper,
    "bricks": _bricks,
}

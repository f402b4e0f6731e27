"""Draw garments with Pillow: cloth, cut, light and background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dqecir.synthetic.drawn_catalogue import check_size
from dqecir.synthetic.garment_cuts import Cut, cut_of
from dqecir.synthetic.garment_vectors import check_vector
from dqecir.synthetic.paints import RGB, luma, shade

Field = NDArray[np.float32]  # [size, size]

PAINTS: Mapping[str, RGB] = {
    "black": (30, 30, 34),
    "white": (243, 242, 239),
    "grey": (134, 136, 140),
    "red": (206, 32, 40),
    "pink": (246, 150, 188),
    "orange": (242, 126, 26),
    "yellow": (248, 210, 48),
    "green": (50, 142, 60),
    "teal": (18, 158, 158),
    "blue": (38, 84, 200),
    "purple": (124, 56, 170),
    "brown": (112, 70, 40),
}
_BACKGROUNDS: tuple[RGB, ...] = (
    *((214, 216, 220), (224, 217, 207), (200, 209, 217), (206, 214, 204)),
    *((219, 207, 211), (190, 190, 194), (228, 226, 222), (196, 202, 212)),
)
_WORDS = ("NOVA", "LUMO", "VELA", "KITE", "MIRA", "ORBIT", "DUNE", "ECHO", "HALO", "PIXEL")
_TONES = {"seam": 0.26, "trim": 0.34, "inside": 0.46, "raised": 0.10, "button": 0.72}
"""Tone of a stroke -> share of ink (:func:`_towards_ink`) in it: 0 is the garment's colour, 1 its ink."""

_SUPERSAMPLING = 2
_CLOTH = 1.6
"""Side of a piece of patterned cloth, in picture sides."""
_FOLDS = 12


def render_garment(attributes: Mapping[str, str], rng: np.random.Generator, size: int = 64) -> Image.Image:
    """Draw a garment with these attributes: RGB, ``size`` x ``size`` pixels (64 to 512).

    ``rng`` decides everything that no attribute names: pose, shades, letters, folds, light and background.
    Raises ``DataError`` for an invalid vector or size.
    """
    check_vector(attributes)
    check_size("garments", size)
    chance = rng.random(24).tolist()
    side = size * _SUPERSAMPLING
    cut = cut_of(*(attributes[column] for column in ("garment", "sleeves", "neck", "length", "fit")))
    pose = _Pose(side, chance[:4])
    base = shade(PAINTS[attributes["color"]], chance[4:8])
    tones = {tone: _towards_ink(base, share) for tone, share in _TONES.items()}
    cloth = Image.new("RGB", (side, side), base)
    if attributes["pattern"] != "plain":
        color = shade(PAINTS[attributes["pattern_color"]], chance[8:12])
        _print_pattern(cloth, attributes["pattern"], color, pose, chance[12:15])
    mask = _sew(cloth, cut, pose, tones)
    if attributes["print"] == "yes":
        _letter(cloth, cut, pose, base, _WORDS[int(chance[15] * len(_WORDS))])
    return _lit(cloth.reduce(_SUPERSAMPLING), mask.reduce(_SUPERSAMPLING), chance[16:])


class _Pose:
    """A small rotation, scaling and shift that maps points of a cut to pixels."""

    def __init__(self, side: int, chance: Sequence[float]) -> None:
        self.side = side
        self.angle = 0.20 * (chance[0] - 0.5)
        self.scale = side * (0.95 + 0.07 * chance[1])
        cos, sin = float(np.cos(self.angle)), float(np.sin(self.angle))
        self.matrix = self.scale * np.array(((cos, sin), (-sin, cos)))
        self.shift = side * (0.5 + 0.04 * (np.array(chance[2:4]) - 0.5))

    def place(self, points: NDArray[np.float64]) -> list[float]:
        """Return points of a cut [N, 2] as a flat list of pixel coordinates."""
        placed = (points - (0.0, 0.5)) @ self.matrix + self.shift
        flat: list[float] = placed.ravel().tolist()
        return flat


def _sew(cloth: Image.Image, cut: Cut, pose: _Pose, tones: Mapping[str, RGB]) -> Image.Image:
    """Paint the details of a cut on the cloth; return its silhouette as a mask of 0 and 255.

    ``tones``: tone of a stroke -> its colour.
    """
    mask = Image.new("L", cloth.size, 0)
    shears, brush = ImageDraw.Draw(mask), ImageDraw.Draw(cloth)
    flat = pose.place(cut.points)
    for stroke in cut.strokes:
        run = flat[2 * stroke.start : 2 * stroke.stop]
        if stroke.tone == "outline":
            shears.polygon(run, fill=255)
        elif stroke.width:
            brush.line(run, fill=tones[stroke.tone], width=max(1, round(stroke.width * pose.scale)))
        else:
            brush.polygon(run, fill=tones[stroke.tone])
    return mask


def _print_pattern(
    cloth: Image.Image, pattern: str, color: RGB, pose: _Pose, chance: Sequence[float]
) -> None:
    """Paint a random part of a pattern on the whole cloth, rotated like the garment.

    ``chance`` are three random numbers from 0 to 1.
    """
    swatch = _swatch(pattern, pose.side)
    zoom = 0.92 + 0.16 * chance[0]
    cos, sin = zoom * np.cos(pose.angle), zoom * np.sin(pose.angle)
    middle = pose.side / 2
    spare = (_CLOTH - 1.0) / 2 * pose.side
    x, y = (pose.side * _CLOTH / 2 + 0.5 * spare * (2 * c - 1) for c in chance[1:3])
    back = (cos, -sin, x - cos * middle + sin * middle, sin, cos, y - sin * middle - cos * middle)
    where = swatch.transform(cloth.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    cloth.paste(color, (0, 0), where)


def _letter(cloth: Image.Image, cut: Cut, pose: _Pose, base: RGB, word: str) -> None:
    """Paint a word across the chest, on a patch of the garment's own colour."""
    height, width = cut.chest
    width = min(width, 0.36)
    patch = np.array([(x * width / 2, height + y * 0.062) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    ImageDraw.Draw(cloth).polygon(pose.place(patch), fill=base)
    letters = _lettering(word, round(0.92 * width * pose.scale), round(0.10 * pose.scale))
    turned = letters.rotate(np.degrees(pose.angle), Image.Resampling.BILINEAR, expand=True)
    x, y = pose.place(np.array([(0.0, height)]))
    ink = _towards_ink(base, 0.92)
    cloth.paste(ink, (round(x - turned.width / 2), round(y - turned.height / 2)), turned)


def _lit(cloth: Image.Image, mask: Image.Image, chance: Sequence[float]) -> Image.Image:
    """Return a picture of the garment on a background, with folds, a rounded body and a soft shadow.

    ``mask`` is the garment's silhouette on ``cloth``; ``chance`` are eight random numbers from 0 to 1.
    """
    size = cloth.width
    small = mask.reduce(max(1, size // 16))
    soft = np.asarray(small.resize(mask.size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
    alpha = np.asarray(mask, dtype=np.float32) / 255
    across, down = _slopes(size)
    lean = chance[0] - 0.5
    light = _folds(size)[int(chance[1] * _FOLDS)] * (0.7 + 0.6 * chance[2])
    light += 0.10 * lean * across - 0.04 * down
    light += 0.30 * np.minimum(soft, 0.95) - 0.27
    front = np.asarray(cloth, dtype=np.float32)
    front = front * (1 + light)[..., None] + (26 * light)[..., None]
    lift = max(1, size // 32)
    shadow = np.roll(soft, (lift, -lift if lean > 0 else lift), (0, 1))
    wall = np.array(_BACKGROUNDS[int(chance[3] * len(_BACKGROUNDS))], dtype=np.float32)
    wall += np.float32(14) * (np.array(chance[4:7], dtype=np.float32) - np.float32(0.5))
    glow = 1.0 + 0.05 * lean * across - (0.04 + 0.07 * chance[7]) * down - 0.26 * shadow
    back = glow[..., None] * wall
    back += (front - back) * alpha[..., None]
    return Image.fromarray(np.clip(back, 0, 255).astype(np.uint8))


@lru_cache(maxsize=8)
def _slopes(size: int) -> tuple[Field, Field]:
    """Return two planes [size, size] from -1 to 1: one rises to the right, one downwards."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    down, across = np.meshgrid(ramp, ramp, indexing="ij")
    return across, down


@lru_cache(maxsize=8)
def _folds(size: int) -> Field:
    """Return the light on folded cloth, about -0.08 to 0.08: [folds, size, size]."""
    across, down = _slopes(size)
    fields = []
    for number in range(_FOLDS):
        rng = np.random.default_rng(number)
        field = np.zeros((size, size), dtype=np.float32)
        for _ in range(3):
            angle, rate, phase, bend = rng.uniform((-0.5, 5, 0, -1.2), (0.5, 13, 6.3, 1.2))
            along = across * np.cos(angle) + down * np.sin(angle)
            field += np.sin(rate * along + phase + bend * np.sin(2 * down + phase)).astype(np.float32)
        fields.append(field * np.float32(0.032))
    return np.stack(fields)


@lru_cache(maxsize=16)
def _swatch(pattern: str, side: int) -> Image.Image:
    """Return a mask (0 to 255) of where a pattern's colour is on cloth, for a picture of ``side`` pixels."""
    fine = 2
    edge = round(_CLOTH * side)
    swatch = Image.new("L", (fine * edge, fine * edge), 0)
    _PATTERNS[pattern](ImageDraw.Draw(swatch), fine * side, fine * edge)
    return swatch.reduce(fine)


def _stripes(brush: ImageDraw.ImageDraw, unit: int, edge: int) -> None:
    for y in np.arange(0, edge, 0.094 * unit):
        brush.rectangle((0, y, edge, y + 0.045 * unit), fill=255)


def _checks(brush: ImageDraw.ImageDraw, unit: int, edge: int) -> None:
    steps = np.arange(0, edge, 0.122 * unit)
    wide = 0.056 * unit
    for step in steps:
        brush.rectangle((0, step, edge, step + wide), fill=165)
        brush.rectangle((step, 0, step + wide, edge), fill=165)
    for x in steps:
        for y in steps:
            brush.rectangle((x, y, x + wide, y + wide), fill=255)


def _dots(brush: ImageDraw.ImageDraw, unit: int, edge: int) -> None:
    radius = 0.027 * unit
    for row, y in enumerate(np.arange(0, edge, 0.078 * unit)):
        for x in np.arange(0.045 * unit * (row % 2), edge, 0.09 * unit):
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def _flowers(brush: ImageDraw.ImageDraw, unit: int, edge: int) -> None:
    rng = np.random.default_rng(5)
    for row, y in enumerate(np.arange(0, edge, 0.148 * unit)):
        for x in np.arange(0.085 * unit * (row % 2), edge, 0.17 * unit):
            dx, dy, turn, grow = rng.uniform((-0.02, -0.02, 0, 0.9), (0.02, 0.02, 6.3, 1.15))
            _flower(brush, x + dx * unit, y + dy * unit, 0.040 * unit * grow, turn)


def _flower(brush: ImageDraw.ImageDraw, x: float, y: float, reach: float, turn: float) -> None:
    petal = 0.62 * reach
    for angle in turn + np.arange(5) * 2 * np.pi / 5:
        px, py = x + reach * np.cos(angle), y + reach * np.sin(angle)
        brush.ellipse((px - petal, py - petal, px + petal, py + petal), fill=255)
    heart = 0.48 * reach
    brush.ellipse((x - heart, y - heart, x + heart, y + heart), fill=0)


_PATTERNS = {"striped": _stripes, "checked": _checks, "dotted": _dots, "floral": _flowers}


@lru_cache(maxsize=2048)
def _lettering(word: str, width: int, height: int) -> Image.Image:
    """Return a mask of a word in heavy letters: ``width`` x ``height`` pixels, and a margin of 1 pixel."""
    font = ImageFont.load_default(96)
    left, top, right, bottom = font.getbbox(word, stroke_width=4)
    large = Image.new("L", (round(right - left), round(bottom - top)), 0)
    ImageDraw.Draw(large).text((-left, -top), word, fill=255, font=font, stroke_width=4)
    letters = Image.new("L", (width + 2, height + 2), 0)
    letters.paste(large.resize((width, height), Image.Resampling.BOX), (1, 1))
    return letters


def _towards_ink(color: RGB, share: float) -> RGB:
    """Return a colour mixed with ``share`` of its ink, which is black, or white on dark garments."""
    ink, share = (235, share * 0.8) if luma(color) < 60 else (18, share)
    red, green, blue = (round(part + share * (ink - part)) for part in color)
    return red, green, blue

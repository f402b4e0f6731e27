"""The cuts of drawn garments: their outlines and details as points.

Points are (x, y) in units of the picture's side: x is 0 on the garment's axis and grows to the right, y is 0
at the top of the picture and grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [points, 2]
Tone = Literal["outline", "fabric", "seam", "trim", "inside", "raised", "button"]


@dataclass(frozen=True, slots=True)
class Stroke:
    """Points ``start`` to ``stop`` of a cut: a filled polygon, or a line if ``width`` is above 0.

    ``width`` is in picture sides. The tone ``outline`` is the garment's silhouette; other tones are painted
    on it.
    """

    tone: Tone
    start: int
    stop: int
    width: float


@dataclass(frozen=True)
class Cut:
    """The points of a garment, and its strokes in the order of painting."""

    points: Points
    strokes: tuple[Stroke, ...]
    chest: tuple[float, float]
    """Height (y) of the middle of the chest, and the largest width of letters there."""


@dataclass(frozen=True)
class _Block:
    """The measures of a kind of garment: heights, and half widths from the axis."""

    top: float
    shoulder: float
    neck: float
    pit: float
    heights: tuple[float, ...]
    """Heights at which the sides are measured, from the armpit down."""
    sides: dict[str, tuple[float, ...]]
    """Fit -> half width at each of ``heights``."""
    hems: dict[str, float]
    """Length -> height of the hem at the sides."""
    hem_drop: float
    arm: float
    """Length of a long sleeve."""


_BLOCKS = {
    "dress": _Block(
        *(0.09, 0.195, 0.095, 0.29),
        heights=(0.29, 0.45, 0.57, 0.66, 0.80, 0.94),
        sides={
            "tight": (0.150, 0.110, 0.158, 0.160, 0.140, 0.132),
            "regular": (0.168, 0.140, 0.185, 0.215, 0.250, 0.275),
            "loose": (0.200, 0.195, 0.265, 0.310, 0.355, 0.385),
        },
        hems={"short": 0.62, "knee": 0.77, "long": 0.94},
        hem_drop=0.022,
        arm=0.49,
    ),
    "shirt": _Block(
        *(0.13, 0.250, 0.110, 0.37),
        heights=(0.37, 0.54, 0.72, 0.92),
        sides={
            "tight": (0.192, 0.160, 0.190, 0.205),
            "regular": (0.222, 0.215, 0.226, 0.235),
            "loose": (0.265, 0.280, 0.295, 0.310),
        },
        hems={"short": 0.53, "knee": 0.70, "long": 0.88},
        hem_drop=0.045,
        arm=0.56,
    ),
    "top": _Block(
        *(0.13, 0.245, 0.115, 0.36),
        heights=(0.36, 0.54, 0.72, 0.92),
        sides={
            "tight": (0.185, 0.152, 0.180, 0.192),
            "regular": (0.212, 0.208, 0.216, 0.226),
            "loose": (0.255, 0.285, 0.315, 0.345),
        },
        hems={"short": 0.54, "knee": 0.72, "long": 0.91},
        hem_drop=0.006,
        arm=0.55,
    ),
}
_SLEEVE_WIDTHS = {"tight": 0.84, "regular": 1.0, "loose": 1.28}
_NECK_DEPTHS = {"round": 0.115, "v": 0.19, "collar": 0.12, "high": 0.03, "square": 0.125}
_NECK_WIDTHS = {"round": 1.0, "v": 0.95, "collar": 0.82, "high": 0.80, "square": 1.12}


@lru_cache(maxsize=1024)
def cut_of(garment: str, sleeves: str, neck: str, length: str, fit: str) -> Cut:
    """Return the cut of a garment that stands upright, with the middle of its height at y = 0.5.

    The arguments are values of ``GARMENT_ATTRIBUTES``.
    """
    tailor = _Tailor(garment, sleeves, neck, length, fit)
    tailor.cut_body()
    tailor.cut_sleeves()
    tailor.cut_skirt()
    tailor.cut_hem()
    tailor.cut_neck()
    return tailor.finished()


class _Tailor:
    """Collects the strokes of one garment."""

    def __init__(self, garment: str, sleeves: str, neck: str, length: str, fit: str) -> None:
        self.block = _BLOCKS[garment]
        self.garment, self.sleeves, self.neck, self.fit = garment, sleeves, neck, fit
        self.hem = self.block.hems[length]
        self.throat = self.block.neck * _NECK_WIDTHS[neck]
        self.depth = self.block.top + _NECK_DEPTHS[neck]
        outer = 0.80 if sleeves == "sleeveless" else 1.0
        self.shoulder = np.array((self.block.shoulder * outer, self.block.top + 0.055 * outer))
        self.pit = np.array((self.side(self.block.pit), self.block.pit))
        self.points: list[Points] = []
        self.strokes: list[Stroke] = []

    def side(self, height: float) -> float:
        return float(np.interp(height, self.block.heights, self.block.sides[self.fit]))

    def both(self, tone: Tone, points: Points, width: float = 0.0) -> None:
        """Add a stroke on the right side, and mirrored on the left side; arguments as in :meth:`add`."""
        for side in (1, -1):
            self.add(tone, points * (side, 1), width)

    def add(self, tone: Tone, points: Points, width: float = 0.0) -> None:
        """Add a stroke of a tone: a polygon, or a line if ``width`` (in picture sides) is above 0."""
        start = sum(len(run) for run in self.points)
        self.points.append(points)
        self.strokes.append(Stroke(tone, start, start + len(points), width))

    def cut_body(self) -> None:
        back = _points((0, self.block.top + 0.02), (self.throat, self.block.top))
        armhole = _spline(self.shoulder, self._armhole_middle(), self.pit)
        heights = [height for height in self.block.heights if self.block.pit < height < self.hem - 0.02]
        side = _spline(self.pit, *((self.side(height), height) for height in heights), self._hem_corner())
        self.add("outline", _mirrored(back, armhole, side, self._hem_curve()))
        if self.sleeves == "sleeveless":
            self.both("trim", armhole, 0.022)

    def _armhole_middle(self) -> tuple[float, float]:
        x, y = self.shoulder
        inset = 0.035 if self.sleeves == "sleeveless" else 0.012
        return min(x, float(self.pit[0])) - inset, 0.4 * y + 0.6 * float(self.pit[1])

    def _hem_corner(self) -> tuple[float, float]:
        return self.side(self.hem), self.hem - (0.03 if self.garment == "shirt" else 0.0)

    def _hem_curve(self) -> Points:
        x, y = self._hem_corner()
        drop = self.hem + self.block.hem_drop
        bulge = 0.72 if self.garment == "shirt" else 0.55
        return _spline((x, y), (bulge * x, 0.25 * y + 0.75 * drop), (0, drop))

    def cut_sleeves(self) -> None:
        if self.sleeves == "sleeveless":
            return
        is_long = self.sleeves == "long"
        angle, reach = (0.36, self.block.arm) if is_long else (0.66, 0.40 * self.block.arm)
        along = np.array((np.sin(angle), np.cos(angle)))
        across = np.array((-along[1], along[0]))
        width = (0.088 if is_long else 0.150) * _SLEEVE_WIDTHS[self.fit]
        end = self.shoulder + reach * along
        inner = end + width * across
        slack = (end + self.shoulder) / 2 + (0.012 if is_long else 0.006) * -across
        outer_edge = _spline(self.shoulder, slack, end)
        elbow = 0.55 * inner + 0.45 * self.pit + (0.018 * _SLEEVE_WIDTHS[self.fit] * across if is_long else 0)
        inner_edge = _spline(inner, elbow, self.pit)
        seam = _spline(self.shoulder, self._armhole_middle(), self.pit)
        sleeve = np.concatenate((outer_edge, inner_edge, seam[::-1]))
        self.both("outline", sleeve)
        self.both("seam", seam, 0.012)
        if self.side(self.block.pit + 0.2) > inner[0] - 0.05:
            self.both("seam", inner_edge, 0.010)
        cuff = (0.045 if is_long and self.garment != "dress" else 0.026) * along
        self.both("trim", np.stack((end, inner, inner - cuff, end - cuff)))

    def cut_skirt(self) -> None:
        """Add the waist and pleats of a dress, or the placket, pocket and buttons of a shirt."""
        if self.garment == "dress":
            waist = 0.45
            x = self.side(waist)
            self.add("trim", _spline((-x, waist), (0, waist + 0.012), (x, waist)), 0.020)
            flare = self.side(self.hem) / x
            for at in (0.25, 0.68) if self.fit != "tight" else ():
                foot = 0.93 * self.hem + 0.07 * waist
                self.both("seam", _spline((at * x, waist + 0.05), (at * x * flare, foot)), 0.009)
        if self.garment == "shirt":
            foot = self.hem + self.block.hem_drop - 0.004
            strip = _points((0.026, self.depth), (0.026, foot), (-0.026, foot), (-0.026, self.depth))
            self.add("raised", strip)
            self.both("seam", strip[:2], 0.008)
            for y in np.arange(self.depth + 0.045, self.hem, 0.085):
                self.add("button", _disc(0, float(y), 0.0155))

    def cut_hem(self) -> None:
        rise = {"dress": 0.018, "shirt": 0.020, "top": 0.040}[self.garment]
        curve = self._hem_curve() - (0, rise)
        edge = np.concatenate((curve, curve[-2::-1] * (-1, 1)))
        if self.garment == "top":
            self.add("raised", np.concatenate((edge, edge[::-1] + (0, 2 * rise))))
            self.add("seam", edge, 0.010)
        else:
            self.add("seam", edge, 0.009)

    def cut_neck(self) -> None:
        top, x, depth = self.block.top, self.throat, self.depth
        if self.neck == "high":
            self._cut_high_neck()
            return
        half = {
            "round": lambda: _arc(x, top, depth - top),
            "v": lambda: _points((0, depth), (x, top)),
            "square": lambda: _points((0, depth), (0.86 * x, depth), (x, top)),
            "collar": lambda: _points((0, depth), (x, top)),
        }[self.neck]()
        front = np.concatenate((half[:0:-1] * (-1, 1), half))
        self.add("inside", np.concatenate((front, _points((0, top + 0.02)))))
        self.add("seam", _spline((-x, top + 0.02), (0, top + 0.042), (x, top + 0.02)), 0.008)
        if self.neck != "collar":
            self.add("trim", front, 0.026)
            return
        wing = _points(
            *((0.0, depth - 0.012), (0.6 * x, depth + 0.075), (x + 0.062, top + 0.088)),
            *((x + 0.012, top - 0.012), (x - 0.022, top - 0.018)),
        )
        self.both("outline", wing)
        self.both("raised", wing)
        self.both("trim", np.concatenate((wing, wing[:1])), 0.013)

    def _cut_high_neck(self) -> None:
        top, x = self.block.top, self.throat
        low = _spline((x + 0.008, top + 0.012), (0, top + 0.052))
        base = np.concatenate((low[:-1], low[::-1] * (-1, 1)))
        rim = _points((-0.90 * x, top - 0.075), (0.90 * x, top - 0.075))
        roll = np.concatenate((base, rim))
        self.add("outline", roll)
        self.add("raised", roll)
        self.add("trim", base, 0.018)
        self.add("trim", rim + (0, 0.006), 0.014)
        self.add("seam", (base[0] * 0.96 + rim[1] * 0.04)[None] * ((1, 1), (-1, 1)) - (0, 0.045), 0.010)

    def finished(self) -> Cut:
        points = np.concatenate(self.points)
        silhouette = [points[s.start : s.stop, 1] for s in self.strokes if s.tone == "outline"]
        high = min(float(run.min()) for run in silhouette)
        low = max(float(run.max()) for run in silhouette)
        shift = 0.5 - (high + low) / 2
        chest = max(self.block.pit - 0.005, self.depth + 0.075)
        return Cut(points + (0, shift), tuple(self.strokes), (chest + shift, 1.55 * self.side(chest)))


def _points(*pairs: Sequence[float] | Points) -> Points:
    return np.array(pairs, dtype=np.float64)


def _mirrored(*right: Points) -> Points:
    """Return a closed outline, given the consecutive parts of its right half.

    That half begins and ends on the axis.
    """
    half = np.concatenate(right)
    return np.concatenate((half, half[::-1] * (-1, 1)))


def _spline(*knots: Sequence[float] | Points, steps: int = 7) -> Points:
    """Return a smooth curve through the knots (Catmull-Rom), with ``steps`` points from one to the next."""
    inner = _points(*knots)
    padded = np.concatenate((2 * inner[:1] - inner[1:2], inner, 2 * inner[-1:] - inner[-2:-1]))
    a, b, c, d = (padded[i : i + len(inner) - 1, None] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    runs = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve: Points = np.concatenate((runs.reshape(-1, 2), inner[-1:]))
    return curve


def _arc(x: float, top: float, depth: float) -> Points:
    """Return the right half of a round neckline, from its lowest point up.

    ``x`` is its half width, ``top`` the height (y) of its upper end, and ``depth`` how far it goes down.
    """
    angles = np.linspace(0, np.pi / 2, 9)
    return np.stack((x * np.sin(angles), top + depth * np.cos(angles)), axis=1)


def _disc(x: float, y: float, radius: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    return np.stack((x + radius * np.cos(angles), y + radius * np.sin(angles)), axis=1)

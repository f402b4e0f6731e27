"""Attribute vectors of procedural garments: the values there are, edits, and families of neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from dqecir.errors import DataError
from dqecir.settings import nearest

Vector = dict[str, str]
"""One garment: a value for every column of ``GARMENT_ATTRIBUTES``, in its order."""

_COLORS = (
    *("black", "white", "grey", "red", "pink", "orange"),
    *("yellow", "green", "teal", "blue", "purple", "brown"),
)
GARMENT_ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "garment": ("dress", "shirt", "top"),
        "color": _COLORS,
        "pattern": ("plain", "striped", "checked", "dotted", "floral"),
        "pattern_color": _COLORS,
        "sleeves": ("sleeveless", "short", "long"),
        "neck": ("round", "v", "collar", "high", "square"),
        "length": ("short", "knee", "long"),
        "fit": ("tight", "regular", "loose"),
        "print": ("yes", "no"),
    }
)
"""Column -> values. ``pattern_color`` is ``""`` on plain garments and never equals ``color``; on
shirts and tops ``length`` is that of the hem: cropped, normal, tunic."""

_EDITED = tuple(column for column in GARMENT_ATTRIBUTES if column != "garment")


@dataclass(frozen=True, slots=True)
class FamilyShape:
    """How families are made.

    The knobs decide how hard retrieval is: larger families and fewer edits put more near neighbours
    around an image (so that the image alone says less), more renders add right answers.
    """

    members: int = 20
    """Attribute vectors in a family."""
    edit_weights: tuple[float, ...] = (7.0, 1.0, 0.6)
    """Weights of 1, 2, ... edits between a new member and the member that it is made from."""
    render_weights: tuple[float, ...] = (1.0, 1.0, 2.0, 2.0)
    """Weights of 1, 2, ... images of one vector."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise DataError(f"a family needs at least one member, not {self.members}")
        for name in ("edit_weights", "render_weights"):
            weights = getattr(self, name)
            if not weights or min(weights) < 0 or sum(weights) <= 0:
                raise DataError(
                    f"{name} {weights} must be weights of which none is negative and one positive"
                )
        if len(self.edit_weights) > 3:
            raise DataError(
                f"edit_weights {self.edit_weights} has {len(self.edit_weights)} entries; at most 3"
            )


@dataclass(frozen=True, slots=True)
class GarmentItem:
    """One image to be: its attribute vector and the number of its family."""

    attributes: Vector
    family: int


def check_vector(attributes: Mapping[str, str]) -> None:
    """Raise ``DataError`` where a mapping is no valid attribute vector, saying which column is wrong."""
    for column, values in GARMENT_ATTRIBUTES.items():
        if column not in attributes:
            raise DataError(f"a garment needs the attribute {column!r}{nearest(column, attributes)}")
        value = attributes[column]
        if value not in values and not (value == "" and column == "pattern_color"):
            raise DataError(f"{value!r} is no {column} of a garment{nearest(value, values)}")
    pattern, color = attributes["pattern"], attributes["pattern_color"]
    if (pattern == "plain") != (color == ""):
        raise DataError(
            f"the pattern {pattern!r} does not go with the pattern_color {color!r}: only plain has none"
        )
    if color == attributes["color"]:
        raise DataError(f"color and pattern_color are both {color!r}: a pattern needs a colour of its own")


def edits_between(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    """Number of attributes that differ; a pattern colour that comes or goes with its pattern counts not."""
    return sum(
        one[column] != other[column] and bool(one[column] and other[column]) for column in GARMENT_ATTRIBUTES
    )


def random_vector(garment: str, rng: np.random.Generator) -> Vector:
    """A valid vector, every attribute drawn evenly and independently of the others."""
    vector = {column: _any(values, rng) for column, values in GARMENT_ATTRIBUTES.items()}
    vector["garment"] = garment
    if vector["pattern"] == "plain":
        vector["pattern_color"] = ""
    else:
        vector["pattern_color"] = _any(_without(_COLORS, vector["color"]), rng)
    return vector


def edited(vector: Mapping[str, str], edits: int, rng: np.random.Generator) -> Vector:
    """A valid vector that is exactly ``edits`` (1 to 3) edits away and of the same garment."""
    while True:
        child = dict(vector)
        for place in rng.permutation(len(_EDITED))[:edits]:
            column = _EDITED[place]
            if child[column]:
                child[column] = _any(_without(GARMENT_ATTRIBUTES[column], child[column]), rng)
        if child["pattern"] == "plain":
            child["pattern_color"] = ""
        elif not child["pattern_color"]:
            child["pattern_color"] = _any(_without(_COLORS, child["color"]), rng)
        if child["pattern_color"] != child["color"] and edits_between(vector, child) == edits:
            return child


def garment_families(
    items: int,
    garment: str,
    rng: np.random.Generator,
    shape: FamilyShape | None = None,
    first_family: int = 0,
) -> list[GarmentItem]:
    """Items of one garment in families, numbered from ``first_family``; the last family may be cut short.

    A family starts from a random vector; every further member is some edits away from a member that
    was there before, and unlike all of them.
    """
    shape = shape or FamilyShape()
    found: list[GarmentItem] = []
    family = first_family
    while len(found) < items:
        for vector in _family(garment, rng, shape):
            renders = 1 + _weighted(shape.render_weights, rng)
            found.extend(GarmentItem(dict(vector), family) for _ in range(renders))
        family += 1
    return found[:items]


def independent_garments(
    items: int, garment: str, rng: np.random.Generator, first_family: int = 0
) -> list[GarmentItem]:
    """Items of one garment, each with a random vector and a family of its own."""
    return [GarmentItem(random_vector(garment, rng), first_family + i) for i in range(items)]


def _family(garment: str, rng: np.random.Generator, shape: FamilyShape) -> list[Vector]:
    members = [random_vector(garment, rng)]
    while len(members) < shape.members:
        parent = members[int(rng.integers(len(members)))]
        child = edited(parent, 1 + _weighted(shape.edit_weights, rng), rng)
        if child not in members:
            members.append(child)
    return members


def _weighted(weights: Sequence[float], rng: np.random.Generator) -> int:
    return int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))


def _any(values: Sequence[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


def _without(values: Sequence[str], value: str) -> list[str]:
    return [other for other in values if other != value]

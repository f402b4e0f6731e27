"""Attribute vectors of drawn garments: possible values, edits, and families of similar vectors.

The numbers below decide how hard retrieval is. Larger families and fewer edits give a picture more near
neighbours, so that the reference alone helps less; more pictures of a vector mean more right answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from dqecir.errors import DataError
from dqecir.synthetic.attribute_vectors import Vector, any_of, check_values, edits_between, without

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
"""Column -> its values. ``pattern_color`` is empty for plain garments, and never equals ``color``. For shirts
and tops ``length`` is that of the hem: cropped, normal, tunic."""

_EDITED = tuple(column for column in GARMENT_ATTRIBUTES if column != "garment")


MEMBERS = 20
"""Number of attribute vectors in a family."""
_EDITS = (7.0, 1.0, 0.6)
"""Relative frequency of 1, 2 and 3 edits between a new member of a family and the member it comes from."""
_RENDERS = (1.0, 1.0, 2.0, 2.0)
"""Relative frequency of 1 to 4 pictures of one vector."""


def check_vector(attributes: Mapping[str, str]) -> None:
    """Raise ``DataError``, which names the column, if a mapping is no valid attribute vector."""
    check_values("garment", attributes, GARMENT_ATTRIBUTES, "pattern_color")
    pattern, color = attributes["pattern"], attributes["pattern_color"]
    if (pattern == "plain") != (color == ""):
        raise DataError(
            f"the pattern {pattern!r} does not fit the pattern_color {color!r}: leave pattern_color empty "
            "for the pattern plain, and only for it"
        )
    if color == attributes["color"]:
        raise DataError(f"color and pattern_color are both {color!r}: a pattern needs a colour of its own")


def random_vector(garment: str, rng: np.random.Generator) -> Vector:
    """Return a random valid vector of a garment; the other attributes are uniform and independent.

    Only ``pattern_color`` depends on others.
    """
    vector = {column: any_of(values, rng) for column, values in GARMENT_ATTRIBUTES.items()}
    vector["garment"] = garment
    if vector["pattern"] == "plain":
        vector["pattern_color"] = ""
    else:
        vector["pattern_color"] = any_of(without(_COLORS, vector["color"]), rng)
    return vector


def edited(vector: Mapping[str, str], edits: int, rng: np.random.Generator) -> Vector:
    """Return a random valid vector of the same garment that differs in ``edits`` (1 to 3) attributes."""
    while True:
        child = dict(vector)
        for place in rng.permutation(len(_EDITED))[:edits]:
            column = _EDITED[place]
            if child[column]:
                child[column] = any_of(without(GARMENT_ATTRIBUTES[column], child[column]), rng)
        if child["pattern"] == "plain":
            child["pattern_color"] = ""
        elif not child["pattern_color"]:
            child["pattern_color"] = any_of(without(_COLORS, child["color"]), rng)
        if child["pattern_color"] != child["color"] and edits_between(vector, child) == edits:
            return child


def garment_families(items: int, garment: str, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Return random vectors of ``items`` pictures of one garment, each with the number of its family.

    A family begins with a random vector; every other member differs in a few attributes from an earlier one,
    and in at least one from all. Each member occurs one to four times in a row, for as many pictures. The
    last family may be smaller.
    """
    found: list[tuple[Vector, int]] = []
    family = 0
    while len(found) < items:
        for vector in _family(garment, rng):
            found.extend([(vector, family)] * _one_of(_RENDERS, rng))
        family += 1
    return found[:items]


def independent_garments(items: int, garment: str, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Return ``items`` random vectors of one garment, each in a family of its own."""
    return [(random_vector(garment, rng), family) for family in range(items)]


def _family(garment: str, rng: np.random.Generator) -> list[Vector]:
    members = [random_vector(garment, rng)]
    while len(members) < MEMBERS:
        parent = members[int(rng.integers(len(members)))]
        child = edited(parent, _one_of(_EDITS, rng), rng)
        if child not in members:
            members.append(child)
    return members


def _one_of(weights: tuple[float, ...], rng: np.random.Generator) -> int:
    """Return a random number 1, 2, ..., with these weights."""
    return 1 + int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))

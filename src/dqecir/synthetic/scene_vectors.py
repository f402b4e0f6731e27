"""Attribute vectors of drawn scenes: possible values, and sets of nearly equal scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType

import numpy as np

from dqecir.errors import DataError
from dqecir.synthetic.attribute_vectors import Vector, any_of, check_values, edits_between, without

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = ("black", "white", "red", "orange", "yellow", "green", "blue", "purple")
ALONE = "none"
"""Value of ``other`` for a scene without another object."""

SCENE_ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "figure": SHAPES,
        "figure_colour": COLOURS,
        "figure_count": ("1", "2", "3", "4", "5"),
        "figure_size": ("small", "medium", "big"),
        "figure_texture": ("plain", "striped", "dotted"),
        "figure_place": ("left", "right", "top", "bottom", "centre"),
        "other": (ALONE, *SHAPES),
        "other_colour": COLOURS,
        "background": ("sky", "grass", "sand", "night", "paper", "bricks"),
    }
)
"""Column -> its values. The figures are a group of the same shape; ``other`` is a single object of another
shape, and ``other_colour`` is empty if there is none."""

SET_SIZE = 6
"""Number of scenes in a set, as in CIRR (arXiv 2108.04024)."""

_SETS = 9
"""Number of sets of a theme; with more sets, scenes recur more often, which gives more right answers."""
_VARYING = 4
"""Number of columns in which the scenes of a theme differ."""
_MOST_CHANGES = 3
"""Largest number of columns in which two scenes of a set differ."""
_ALTERNATIVES = (2, 3)
"""Smallest and largest number of values that a varying column has within a theme."""


def check_vector(attributes: Mapping[str, str]) -> None:
    """Raise ``DataError``, which names the column, if a mapping is no valid attribute vector."""
    check_values("scene", attributes, SCENE_ATTRIBUTES, "other_colour")
    if (attributes["other"] == ALONE) != (attributes["other_colour"] == ""):
        raise DataError(
            f"the other object {attributes['other']!r} does not fit the other_colour "
            f"{attributes['other_colour']!r}: leave other_colour empty for {ALONE!r}, and only for it"
        )
    if attributes["other"] == attributes["figure"]:
        raise DataError(f"figure and other are both {attributes['other']!r}: their shapes must differ")


def random_vector(rng: np.random.Generator) -> Vector:
    """Return a random valid vector; the attributes are uniform and independent.

    Only ``other`` and ``other_colour`` depend on others.
    """
    vector = {column: any_of(values, rng) for column, values in SCENE_ATTRIBUTES.items()}
    vector["other"] = any_of(without(SCENE_ATTRIBUTES["other"], vector["figure"]), rng)
    return _settled(vector)


def independent_scenes(items: int, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Return ``items`` random vectors, each with the number of a theme of its own."""
    return [(random_vector(rng), number) for number in range(items)]


def scene_sets(items: int, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Return ``items`` scene vectors, each with the number of its theme; the column ``set`` names its set.

    A set has six scenes; the last may be smaller. A theme is a random vector and alternative values of a few
    columns. Each set of the theme varies at most three of these columns, so that any two of its scenes differ
    in one to three attributes. The sets of a theme overlap, so that scenes occur in several sets.
    """
    found: list[tuple[Vector, int]] = []
    number = theme = 0
    while len(found) < items:
        base, alternatives = _theme(rng)
        for _ in range(_SETS):
            vectors = _set(base, alternatives, rng)
            found.extend(({"set": f"{number:06d}", **vector}, theme) for vector in vectors)
            number += 1
        theme += 1
    return found[:items]


def _theme(rng: np.random.Generator) -> tuple[Vector, dict[str, list[str]]]:
    """Return a random vector, and column -> its alternative values, which begin with that of the vector.

    The vector always has a colour of the other object, even if there is none.
    """
    base = random_vector(rng)
    base["other_colour"] = base["other_colour"] or any_of(COLOURS, rng)
    columns = [c for c in SCENE_ATTRIBUTES if c != "other_colour" or base["other"] != ALONE]
    alternatives: dict[str, list[str]] = {}
    for place in rng.permutation(len(columns))[:_VARYING]:
        column = columns[place]
        values = _free(column, base, alternatives)
        count = int(rng.integers(_ALTERNATIVES[0], _ALTERNATIVES[1] + 1))
        drawn = [values[i] for i in rng.permutation(len(values))[: count - 1]]
        alternatives[column] = [base[column], *drawn]
    return base, alternatives


def _free(column: str, base: Vector, alternatives: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the values that a column of a theme may have besides that of ``base``.

    Figures and the other object must differ in shape, also in all ``alternatives``: column -> its values.
    """
    taken = {base[column]}
    if column in ("figure", "other"):
        rival = "other" if column == "figure" else "figure"
        taken |= {base[rival], *alternatives.get(rival, ())}
    return [value for value in SCENE_ATTRIBUTES[column] if value not in taken]


def _set(base: Vector, alternatives: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[Vector]:
    """Return six different vectors of a theme that differ in at most three columns."""
    columns = list(alternatives)
    while True:
        order = rng.permutation(len(columns))
        varying = [columns[place] for place in order[:_MOST_CHANGES]]
        fixed = {columns[place]: any_of(alternatives[columns[place]], rng) for place in order[_MOST_CHANGES:]}
        scenes: list[Vector] = []
        for values in product(*(alternatives[column] for column in varying)):
            scene = _settled(base | fixed | dict(zip(varying, values, strict=True)))
            if scene not in scenes:
                scenes.append(scene)
        if len(scenes) >= SET_SIZE:
            chosen = [scenes[place] for place in rng.permutation(len(scenes))[:SET_SIZE]]
            # Two scenes may differ only in the colour of an object that neither has.
            if all(edits_between(a, b) for i, a in enumerate(chosen) for b in chosen[:i]):
                return chosen


def _settled(vector: Vector) -> Vector:
    return vector | {"other_colour": "" if vector["other"] == ALONE else vector["other_colour"]}

"""Attribute vectors of procedural scenes: their values, and sets of near-identical scenes."""

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
"""The value of ``other`` for a scene without another object."""

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
"""Column -> values. The figures are a group of one shape; ``other`` is a single object of another shape,
and ``other_colour`` is ``""`` if there is none."""

SET_SIZE = 6
"""Scenes in a set (as in CIRR, arXiv 2108.04024)."""

_SETS = 9
"""Number of sets of a theme; more sets repeat vectors more often, and give more right answers."""
_VARYING = 4
"""Columns in which the scenes of a theme differ."""
_MOST_CHANGES = 3
"""Columns in which the scenes of a set differ."""
_ALTERNATIVES = (2, 3)
"""Least and largest number of values of a varying column within a theme."""


def check_vector(attributes: Mapping[str, str]) -> None:
    """Raise ``DataError`` that names the wrong column if a mapping is no valid attribute vector."""
    check_values("scene", attributes, SCENE_ATTRIBUTES, "other_colour")
    if (attributes["other"] == ALONE) != (attributes["other_colour"] == ""):
        raise DataError(
            f"the other object {attributes['other']!r} does not fit the other_colour "
            f"{attributes['other_colour']!r}: the object none, and no other, has the colour none"
        )
    if attributes["other"] == attributes["figure"]:
        raise DataError(f"figure and other are both {attributes['other']!r}: their shapes must differ")


def random_vector(rng: np.random.Generator) -> Vector:
    """Draw a valid vector, every attribute uniformly and independently."""
    vector = {column: any_of(values, rng) for column, values in SCENE_ATTRIBUTES.items()}
    vector["other"] = any_of(without(SCENE_ATTRIBUTES["other"], vector["figure"]), rng)
    return _settled(vector)


def independent_scenes(items: int, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Draw scenes with random vectors, each with its own theme."""
    return [(random_vector(rng), number) for number in range(items)]


def scene_sets(items: int, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Draw scenes with the themes of their sets. ``set`` numbers sets of six; the last may be smaller.

    A theme is a random vector and, for each of a few columns, a few alternative values. Every set of
    a theme varies at most three of those columns: any two of its scenes differ in one to three
    attributes. The sets of a theme overlap, so that scenes recur in other sets.
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
    """Draw a vector (with a colour of the other object even without one), and the columns' alternatives."""
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
    """Return a column's possible values besides the base's; figures and the other object differ in shape."""
    taken = {base[column]}
    if column in ("figure", "other"):
        rival = "other" if column == "figure" else "figure"
        taken |= {base[rival], *alternatives.get(rival, ())}
    return [value for value in SCENE_ATTRIBUTES[column] if value not in taken]


def _set(base: Vector, alternatives: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[Vector]:
    """Six different vectors of a theme that differ in at most three columns."""
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

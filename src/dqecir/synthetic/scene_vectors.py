"""Attribute vectors of procedural scenes: the values there are, and sets of near-identical scenes."""

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
"""The value of ``other`` where a scene holds nothing but its figures."""

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
and ``other_colour`` is ``""`` where there is none."""

SET_SIZE = 6
"""Scenes in a set (as in CIRR, arXiv 2108.04024)."""

_SETS = 9
"""Sets of one theme: the more, the more often a vector recurs, and the more right answers there are."""
_VARYING = 4
"""Columns in which the scenes of a theme differ."""
_MOST_CHANGES = 3
"""Columns in which the scenes of a set differ."""
_ALTERNATIVES = (2, 3)
"""Values that a varying column takes within a theme: at least and at most."""


def check_vector(attributes: Mapping[str, str]) -> None:
    """Raise ``DataError`` where a mapping is no valid attribute vector, saying which column is wrong."""
    check_values("scene", attributes, SCENE_ATTRIBUTES, "other_colour")
    if (attributes["other"] == ALONE) != (attributes["other_colour"] == ""):
        raise DataError(
            f"the other object {attributes['other']!r} does not go with the other_colour "
            f"{attributes['other_colour']!r}: only none has none"
        )
    if attributes["other"] == attributes["figure"]:
        raise DataError(f"figure and other are both {attributes['other']!r}: their shapes must differ")


def random_vector(rng: np.random.Generator) -> Vector:
    """Return a valid vector, every attribute drawn evenly and independently of the others."""
    vector = {column: any_of(values, rng) for column, values in SCENE_ATTRIBUTES.items()}
    vector["other"] = any_of(without(SCENE_ATTRIBUTES["other"], vector["figure"]), rng)
    return _settled(vector)


def independent_scenes(items: int, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Return scenes with random vectors, each with a theme of its own."""
    return [(random_vector(rng), number) for number in range(items)]


def scene_sets(items: int, rng: np.random.Generator) -> list[tuple[Vector, int]]:
    """Scenes, each with the theme of its set. ``set`` numbers sets of six; the last may be cut short.

    A theme is a random vector and, for each of a few columns, a few alternative values. Every set of
    a theme lets at most three of those columns vary: its scenes are all different, any two in one to
    three attributes. The sets of a theme overlap, so that scenes recur in other sets.
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
    """Return a vector (with a colour for the other object even where there is none) and what varies."""
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
    """Return values that a column may take beside the base's: no scene has figures and other of one shape."""
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
            # Where colours go with their objects two scenes may differ in nothing that is compared.
            if all(edits_between(a, b) for i, a in enumerate(chosen) for b in chosen[:i]):
                return chosen


def _settled(vector: Vector) -> Vector:
    return vector | {"other_colour": "" if vector["other"] == ALONE else vector["other_colour"]}

"""Decide what each column of a shop's table is used for: an attribute, a number, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import UNKNOWN, has_value, number_in
from dqecir.errors import DataError
from dqecir.language.number_words import names_a_number
from dqecir.questions.comparatives import Numbers
from dqecir.training.pretraining_data import MAX_VALUES

FEW = 5
"""A value is learned only if at least this many train pictures have it."""
MANY = 12
"""A column with more different numbers than this is not classified; texts compare its numbers."""
_LISTED = 20
"""A column with more different values than this may hold ids or names, which are not learned."""
_ID = re.compile(r"(?:^|[_\s-])(?:id|sku|ean|gtin|code|number|url)$", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnUse:
    """What a column is used for, with a note.

    ``values`` are those that are learned (empty for other uses).
    """

    column: str
    kind: Literal["attribute", "number", "left out"]
    note: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnPlan:
    """The catalogue for training, and what each column of the table is used for.

    ``catalogue`` has only columns that are learned, with rare values as ``UNKNOWN``; ``numbers``: column -> a
    number for each image.
    """

    catalogue: Catalogue
    uses: tuple[ColumnUse, ...]
    numbers: Mapping[str, Numbers]

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Column -> the values that are learned."""
        return {use.column: use.values for use in self.uses if use.values}


def plan_columns(catalogue: Catalogue, known: Mapping[str, Sequence[str]], largest: int) -> ColumnPlan:
    """Decide what each column of a catalogue is used for, and return that with the catalogue for training.

    ``known``: column -> the values that the model's heads predict. At most ``largest`` values of a column are
    learned, the commonest. Raises ``DataError`` if no column can be learned, or if train has no images.
    """
    if not catalogue.splits["train"].size:
        raise DataError(
            f"the catalogue {catalogue.folder} has no images to learn from (split train): add more images"
        )
    train = set(catalogue.split("train").tolist())
    uses, attributes, numbers = [], {}, {}
    for column, cells in catalogue.comparable.items():
        role = catalogue.roles.get(column, "attribute")
        several = len(catalogue.several.get(column, ()))
        if role == "attribute" and 2 * several > sum(cell != "" for cell in cells):
            use = ColumnUse(column, "left out", "most products have several of its values")
        elif role in ("attribute", "price"):
            use = _use(column, cells, train, known.get(column, ()), min(largest, MAX_VALUES))
        else:
            use = ColumnUse(column, "left out", f"it is the {role} of a product")
        uses.append(use)
        if use.kind == "attribute":
            allowed = {*use.values, ""}
            attributes[column] = tuple(cell if cell in allowed else UNKNOWN for cell in cells)
        if use.kind == "number":
            numbers[column] = np.array([_number(cell) for cell in cells])
    if not attributes:
        raise DataError(
            f"no column of the catalogue {catalogue.folder} can be learned from its pictures: add a column "
            "such as color whose values differ, or search without fitting, with dqecir index build\n- "
            + "\n- ".join(f"{use.column}: {use.note}" for use in uses)
        )
    return ColumnPlan(replace(catalogue, attributes=attributes), tuple(uses), numbers)


def _use(column: str, cells: Sequence[str], train: set[int], known: Sequence[str], largest: int) -> ColumnUse:
    given = [cell for cell in cells if has_value(cell)]
    counts = Counter(given)
    figures = [number_in(value) for value in counts]
    numeric = bool(counts) and None not in figures
    if len(counts) < 2:
        return ColumnUse(column, "left out", "it has fewer than two values")
    whole = all(figure is not None and figure == int(figure) for figure in figures)
    every_other = len(counts) == len(given) > _LISTED
    if _ID.search(column) or (every_other and (whole or not numeric) and not names_a_number(column)):
        return ColumnUse(column, "left out", "it looks like an id: nearly every value occurs only once")
    if numeric and (len(counts) > MANY or names_a_number(column)):
        note = (
            "no picture shows it; training teaches the model to ignore comparisons of it, and the row "
            "'numbers filtered' filters by them, as a search does"
        )
        return ColumnUse(column, "number", note)
    if len(counts) > max(_LISTED, len(given) / 2):
        return ColumnUse(column, "left out", f"{len(counts)} values in {len(given)} rows are names")
    seen = Counter(cells[image] for image in train)
    applies = [""] if seen[""] else []
    if set(counts) <= set(known):
        return ColumnUse(column, "attribute", f"{len(counts)} values that the model knew", tuple(known))
    common = [value for value, count in seen.most_common() if count >= FEW and has_value(value)]
    kept = common[: largest - 1]
    rare = sorted(set(counts) - set(kept))
    if len(kept) < 2:
        return ColumnUse(column, "left out", f"fewer than two of its values are on {FEW} pictures of train")
    note = f"{len(kept)} values learned from the pictures"
    if rare:
        shown = ", ".join(rare[:5]) + (", …" if len(rare) > 5 else "")
        note += f"; {len(rare)} rare ones count as unknown ({shown})"
    return ColumnUse(column, "attribute", note, tuple(sorted([*kept, *applies])))


def _number(cell: str) -> float:
    found = number_in(cell)
    return float("nan") if found is None else found

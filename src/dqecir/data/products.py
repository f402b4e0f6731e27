"""Group the rows of a table by product: which rows are variants, and which pictures show the product.

A view is a picture of a product. Its attributes come from the rows that name the picture, and from rows
without a picture that are most like these. If the cells of the rows that name it are empty, they come from
all rows of the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dqecir.data.availability import best_availability
from dqecir.data.cells import has_value, number_in
from dqecir.data.column_roles import Role, spaced
from dqecir.data.row_pictures import RowPicture
from dqecir.errors import counted

SEPARATOR = "\x1f"
"""Separates several values in a cell; no table contains this character."""

_PRODUCT = ("item group id", "handle", "parent", "product id", "id", "sku")
"""Names of columns that say which product a row belongs to, the best first."""
_SHOWN = 5
_LISTED = 10


@dataclass(frozen=True)
class View:
    """A picture of a product. Rows are given by their positions in the table."""

    id: str
    """Path of the file; if several products share a file, ``@`` and the product's id are appended for all but
    the first."""
    file: str
    """Path of the file relative to the folder."""
    product: str
    """Id of the product, or else of its first picture."""
    rows: tuple[int, ...]
    """The rows that name the picture."""
    variants: tuple[int, ...]
    """All rows of the product."""
    alike: tuple[int, ...] = ()
    """Rows of the product without a picture that are more like ``rows`` than like the rows of other views."""


@dataclass(frozen=True)
class Views:
    """All views, product by product, with the problems and warnings of their rows."""

    views: tuple[View, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def product_ids(names: Sequence[str], roles: Sequence[Role], columns: Sequence[Sequence[str]]) -> list[str]:
    """Return the product's id in each row; empty if the table has no such column.

    It is the first id that is not empty. A column ``parent`` counts only if it names other rows. ``names``,
    ``roles`` and ``columns`` (their cells) describe the table's columns, in order.
    """
    ids = {spaced(name): columns[place] for place, name in enumerate(names) if roles[place] == "id"}
    parents = ids.pop("parent", ())
    ordered = [ids[name] for name in _PRODUCT if name in ids]
    rows = range(len(columns[0])) if columns else range(0)
    own = [next((cells[row] for cells in ordered if has_value(cells[row])), "") for row in rows]
    called = {cells[row]: own[row] for cells in reversed(ordered) for row in rows if has_value(cells[row])}
    if not any(parent in called for parent in parents):
        return own
    return [
        called.get(parent, parent) if has_value(parent) else its
        for parent, its in zip(parents, own, strict=True)
    ]


def views_of(
    pictures: Sequence[RowPicture],
    products: Sequence[str],
    lines: Sequence[int],
    attributes: Sequence[Sequence[str]],
) -> Views:
    """Group the pictures of rows by product; a row without a product's id is a product of its own.

    ``products`` are the rows' product ids, ``lines`` their lines in the file, ``attributes`` the cells of
    each attribute's column. A missing picture is a problem if its product has no other, otherwise a warning.
    A row without a picture belongs to the picture of its product whose rows share the most attributes with
    it.
    """
    rows_of: dict[str | int, list[int]] = {}
    for row, product in enumerate(products):
        rows_of.setdefault(product if has_value(product) else row, []).append(row)
    pictures_of: dict[int, list[RowPicture]] = {}
    for picture in pictures:
        pictures_of.setdefault(picture.row, []).append(picture)
    problems = [*_claimed_twice(pictures_of, products, lines)]
    missing: list[str] = []
    shown_by: dict[str, list[str]] = {}
    views: list[View] = []
    for key, rows in rows_of.items():
        named = [picture for row in rows for picture in pictures_of[row]]
        found = [picture for picture in named if not picture.problem]
        unseen: dict[str, str] = {}
        for picture in named:
            if picture.problem and not (found and picture.is_missing):
                problems.append((picture.row, picture.problem))
            elif picture.problem and picture.file:
                unseen.setdefault(picture.file, picture.problem)
        missing += unseen.values()
        rows_by_file: dict[str, list[int]] = {}
        for picture in found or named[:1]:
            rows_by_file.setdefault(picture.file, []).append(picture.row)
        product = key if isinstance(key, str) else next(iter(rows_by_file))
        alike = _most_alike(rows, rows_by_file, attributes)
        for file, own in rows_by_file.items():
            others = shown_by.setdefault(file, [])
            view_id = f"{file}@{product}" if others else file
            others.append(product)
            views.append(View(view_id, file, product, tuple(dict.fromkeys(own)), tuple(rows), alike[file]))
    warnings = [f"{problem}; the product keeps its other pictures" for problem in missing[:_LISTED]]
    if len(missing) > _LISTED:
        warnings.append(f"{len(missing) - _LISTED} more further pictures are not in the folder")
    if shared := {file: owners for file, owners in shown_by.items() if len(set(owners)) > 1}:
        file, owners = next(iter(shared.items()))
        warnings.append(
            f"{counted(len(shared), 'picture')} of several products, such as {file!r} of {_listed(owners)}"
        )
    return Views(tuple(views), tuple(problem for _, problem in sorted(problems)), tuple(warnings))


def _most_alike(
    rows: Sequence[int], rows_by_file: Mapping[str, Sequence[int]], attributes: Sequence[Sequence[str]]
) -> dict[str, tuple[int, ...]]:
    """Return file -> the rows without a picture that are most like its rows.

    Of several equally good files, the first gets the row.
    """
    found: dict[str, list[int]] = {file: [] for file in rows_by_file}

    def common(row: int, file: str) -> int:
        return max(
            sum(has_value(cells[row]) and cells[row] == cells[own] for cells in attributes)
            for own in rows_by_file[file]
        )

    shown = {row for own in rows_by_file.values() for row in own}
    for row in rows:
        if row not in shown:
            found[max(rows_by_file, key=lambda file: common(row, file))].append(row)
    return {file: tuple(own) for file, own in found.items()}


def _claimed_twice(
    pictures_of: Mapping[int, Sequence[RowPicture]], products: Sequence[str], lines: Sequence[int]
) -> Iterator[tuple[int, str]]:
    """Yield (row, problem) for rows that share a main picture although not all have a product's id."""
    rows_of: dict[str, list[int]] = {}
    for row, pictures in pictures_of.items():
        if pictures[0].file:
            rows_of.setdefault(pictures[0].file, []).append(row)
    for file, rows in rows_of.items():
        if len(rows) > 1 and not all(has_value(products[row]) for row in rows):
            where = _listed([str(lines[row]) for row in rows])
            yield rows[0], f"image {file!r} is in {len(rows)} rows (lines {where}): keep one of them"


def view_cells(views: Sequence[View], cells: Sequence[str], name: str, role: Role) -> list[tuple[str, ...]]:
    """Return the values of a column for each view: none, one, or several from its variants.

    Prices are those of all variants, the lowest first; a product is available if any variant is. Attributes
    and ids come from the rows that name the picture and those most like them; if the cells of the rows that
    name it are empty, from all variants. Other columns have one value. ``cells`` are those of the column
    ``name`` with this role, one for each row.
    """
    if role == "price":
        return [prices(cells[row] for row in view.variants) for view in views]
    if role == "availability":
        told = (list(filter(None, (cells[row] for row in view.variants))) for view in views)
        return [tuple(filter(None, (best_availability(name, own),))) for own in told]
    most = None if role in ("attribute", "id") else 1
    found = []
    for view in views:
        named = any(cells[row] for row in view.rows)
        rows = (*view.rows, *view.alike) if named else view.variants
        found.append(_values(cells[row] for row in rows)[:most])
    return found


def prices(cells: Iterable[str]) -> tuple[str, ...]:
    """Return the different prices of variants, the lowest first.

    Cells without a number are returned only if no cell has one.
    """
    numbers: dict[str, float] = {}
    for cell in _values(cells):
        number = number_in(cell, is_money=True)
        numbers.setdefault(cell, math.inf if number is None else number)
    by_number = {number: cell for cell, number in reversed(numbers.items()) if number < math.inf}
    without = [cell for cell, number in numbers.items() if number == math.inf]
    return tuple(by_number[number] for number in sorted(by_number)) or tuple(without)


def _values(cells: Iterable[str]) -> tuple[str, ...]:
    """Return the different values in some cells; if there are none, ``?`` if some cell is unknown."""
    found = dict.fromkeys(part for cell in cells for part in cell.split(SEPARATOR) if part)
    known = tuple(filter(has_value, found))
    return known or tuple(found)


def product_conflicts(views: Sequence[View], cells: Sequence[str], lines: Sequence[int]) -> list[str]:
    """Return a sentence for each product whose rows differ in a column that should have one value.

    ``cells`` are those of the column, one for each row; ``lines`` the rows' lines in the file.
    """
    said = []
    for product, rows in {view.product: view.variants for view in views}.items():
        first: dict[str, int] = {}
        for row in rows:
            if has_value(cells[row]):
                first.setdefault(cells[row], lines[row])
        if len(first) > 1:
            listed = _listed([f"{cell!r} (line {line})" for cell, line in first.items()])
            said.append(f"{product!r}: {listed}")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")

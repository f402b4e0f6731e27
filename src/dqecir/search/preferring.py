"""Numbers that a search adds to the scores of items because of their cells and words.

A cell is an item's value in a column; a preference rewards and penalises cells. All numbers here are in
standard deviations of the query's scores over a sample of items, so that they mean the same for every model
and score rule. ``SearchRequest.strictness`` multiplies those of cells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from dqecir.index.item_preferences import CellPreference, Preference
from dqecir.index.payload_columns import values_in
from dqecir.language.reader import Ask
from dqecir.methods.method import Query
from dqecir.search.search_request import PreparedRequest

WORDS = 8.0
"""Added to the score of an item whose texts have all searched words. It is twice the largest difference that
the reference's garment makes (from -2 to 2), because the text names the words and not the garment. On the dev
queries of ``products``, numbers from 4 to 10 find right results equally well, and larger ones keep fewer
garments (``benchmarks/word_weight.py``)."""

ASKED = 3.0
"""Added to the score of an item whose value in a requested column is a requested one; subtracted for any
other."""

GARMENT = 6.0
"""Added to the score of an item of the garment that the text names; subtracted for another garment."""

KEPT = 2.0
"""Added to the score of an item of the reference's garment if the text names no garment; subtracted for
another garment (``benchmarks/garments_kept.py``)."""


SURE = 0.99
"""Least probability, by the model, that a text requests a column, at which the column's values are preferred
as requested ones."""

Shares = Mapping[str, Mapping[str, float]]
"""Column -> value -> its probability."""


def preferences(
    query: Query, prepared: Sequence[PreparedRequest], values: Mapping[str, Sequence[str]]
) -> list[Preference]:
    """Return what the search of each prepared request adds to scores, in standard deviations of its scores.

    ``query`` holds the queries of the requests, in the same order; ``values``: column -> its values, in the
    order of the model's attribute heads.
    """
    found = []
    for row, one in enumerate(prepared):
        cells = [
            cell
            for cell in _cells(query, row, one, values)
            if cell and any(cell.column in part for part in one.columns)
        ]
        found.append(Preference(tuple(cells), one.said.searched, WORDS))
    return found


def _cells(
    query: Query, row: int, prepared: PreparedRequest, values: Mapping[str, Sequence[str]]
) -> list[CellPreference]:
    """Return the preferences of query ``row`` for cells: requested values, and the reference's garment."""
    said, strictness = prepared.said, prepared.request.strictness
    read, seen = _values_by_model(query, row, values)
    asks = [ask for ask in said.read.asks if ask not in said.table]
    asks += _of_model(read, {ask.column for ask in said.read.asks})
    found = of_requests(asks, said.garments, strictness)
    if not prepared.references or any(ask.column in said.garments for ask in (*said.read.asks, *asks)):
        return found
    shown = mixed_cells(
        [_cells_of(payload or {}, said.garments) for payload in prepared.payloads],
        [one.weight for one in prepared.references],
    )
    # A reference that is not an item has no cells; then use the model's values for all references.
    shown = shown or {column: shares for column, shares in seen.items() if column in said.garments}
    return found + of_reference(shown, strictness)


def _values_by_model(query: Query, row: int, values: Mapping[str, Sequence[str]]) -> tuple[Shares, Shares]:
    """Return two maps column -> value -> probability, as the model reads them for the query in ``row``.

    The first has the columns that the text requests with a probability of at least :data:`SURE`; the second
    has all other columns, whose values describe the reference. Both are empty if the method predicts no
    values.
    """
    parts = query.parts
    if parts is None or parts.asked is None or not parts.wanted:
        return {}, {}
    read: dict[str, Mapping[str, float]] = {}
    seen: dict[str, Mapping[str, float]] = {}
    for place, column in enumerate(parts.columns):
        shares = dict(zip(values[column], parts.wanted[place][row].tolist(), strict=True))
        (read if float(parts.asked[row, place]) >= SURE else seen)[column] = shares
    return read, seen


def _of_model(read: Shares, known: Collection[str]) -> list[Ask]:
    """Turn requested values that the model read into requests, except for the columns in ``known``.

    Every probable value of a column becomes one request.
    """
    return [
        Ask(column, "is", value, "")
        for column, shares in read.items()
        if column not in known
        for value, share in shares.items()
        if value and share > max(shares.values()) / 2
    ]


def of_requests(asks: Iterable[Ask], garments: Collection[str], strictness: float) -> list[CellPreference]:
    """Return a preference for each requested column.

    An item's cell with a requested value adds ``strictness * GARMENT`` to its score if the column is in
    ``garments``, else ``strictness * ASKED``; a cell with another value subtracts as much. If a text requests
    several values of a column, all count the same. A cell with a refused value ("is not", "less") subtracts
    as much; if a column has only refused values, its other cells add nothing.
    """
    wanted: dict[str, dict[str, float]] = {}
    for ask in asks:
        if ask.value is not None:
            unit = strictness * (GARMENT if ask.column in garments else ASKED)
            sign = 1 if ask.operation in ("is", "more") else -1
            wanted.setdefault(ask.column, {})[ask.value] = sign * unit
    return [
        CellPreference(column, values, -max(max(values.values()), 0.0)) for column, values in wanted.items()
    ]


def of_reference(shown: Shares, strictness: float) -> list[CellPreference]:
    """Return a preference for each column of ``shown``, which describes the reference.

    ``shown``: column -> value -> its probability p. A cell with that value adds ``KEPT * strictness * (2p -
    1)``; a cell with a value that ``shown`` lacks subtracts ``KEPT * strictness``.
    """
    unit = strictness * KEPT
    return [
        CellPreference(column, {value: unit * (2 * share - 1) for value, share in shares.items()}, -unit)
        for column, shares in shown.items()
    ]


def mixed_cells(cells: Sequence[Shares], weights: Sequence[float]) -> Shares:
    """Return the weighted mean of several references' probabilities, in the columns that all of them have.

    ``cells``: for each reference, column -> value -> probability; ``weights`` are their weights.
    """
    total = sum(weights)
    columns = [column for column in cells[0] if all(column in own for own in cells)] if cells else []
    return {
        column: {
            value: sum(w * own[column].get(value, 0.0) for own, w in zip(cells, weights, strict=True)) / total
            for value in dict.fromkeys(value for own in cells for value in own[column])
        }
        for column in columns
    }


def _cells_of(payload: Mapping[str, object], columns: Iterable[str]) -> Shares:
    """Return column -> value -> 1.0 for the values that an item's ``payload`` has in ``columns``."""
    found = {column: {str(one): 1.0 for one in values_in(payload.get(column))} for column in columns}
    return {column: values for column, values in found.items() if values}

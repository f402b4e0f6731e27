"""Find out whether a product can be ordered, from cells such as ``in stock``, ``out_of_stock`` and 0."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dqecir.data.cells import folded, has_value, number_in
from dqecir.data.payload_fields import SOLD_OUT


def _squeezed(text: str) -> str:
    """Return only the letters and digits of a text, in lower case: ``outofstock`` for ``Out_of-Stock!``."""
    return "".join(filter(str.isalnum, folded(text)))


def _words(listed: str) -> frozenset[str]:
    return frozenset(map(_squeezed, listed.split(", ")))


_AVAILABLE = _words(
    "in stock, available, available for order, available to order, preorder, presale, backorder, "
    "backordered, on backorder, made to order, limited availability, limited stock, low stock, online only, "
    "in store only, ready to ship, auf Lager, lieferbar, sofort lieferbar, verfügbar, sofort verfügbar, "
    "vorrätig, vorbestellbar, en stock, disponible, disponibile, op voorraad, i lager"
)
_NOT_AVAILABLE = _words(
    "out of stock, oos, sold out, sold, mark as sold, unavailable, not available, currently unavailable, "
    "temporarily out of stock, temporarily unavailable, no longer available, not in stock, no stock, "
    "coming soon, discontinued, ausverkauft, vergriffen, nicht auf Lager, nicht lieferbar, nicht verfügbar, "
    "nicht mehr lieferbar, nicht mehr verfügbar, derzeit nicht lieferbar, derzeit nicht verfügbar, "
    "rupture de stock, en rupture de stock, en rupture, épuisé, indisponible, non disponible, agotado, "
    "sin stock, sin existencias, no disponible, esaurito, non disponibile, esgotado, uitverkocht, "
    "niet op voorraad"
)
_YES = _words("yes, y, true, ja, wahr, oui, vrai, sí, si, verdadero, vero")
_NO = _words("no, n, false, nein, falsch, non, faux, falso")
_NAMES = _words(
    "availability, availability status, available, is available, in stock, is in stock, stock, stock status, "
    "stock level, stock quantity, stock qty, stock count, stock on hand, quantity in stock, qty in stock, "
    "inventory, inventory status, inventory quantity, inventory qty, inventory level, variant inventory qty, "
    "variant inventory quantity, available quantity, quantity available, on hand, Verfügbarkeit, verfügbar, "
    "lieferbar, Bestand, Lagerbestand, Lagermenge, disponibilité, disponibilidad, disponibilità"
)
_OPPOSITE_NAMES = _words(
    "sold out, is sold out, sold, out of stock, is out of stock, unavailable, ausverkauft, vergriffen"
)
_COUNTING_NAMES = _words("quantity, qty")
"""Names of columns that count stock if some cell is 0; otherwise they are quantities of a pack, which are
never 0."""
_COUNT = re.compile(r"(?:only |just |nur |noch |over |more than |[<>≥~] ?)*(\d{1,9}) ?\+?(?: [^\W\d]+){0,2}")
_WORD_AND_COUNT = re.compile(r"(.+?)\s*[:(]\s*(\d{1,9})\s*\)?")
"""A word and a number, such as ``in stock (5)`` and ``In stock: 5``."""
_MOST = 0.8
"""Share of a column's cells that must state availability for the column to count."""
_MANY = 0.5
"""The same share for a column whose name means availability."""
_LONGEST = 60
"""Longest cell that may state availability, in characters."""


def is_sold_out(cells: Mapping[str, str]) -> bool:
    """Return whether a product is sold out, by its cells (column -> cell) in columns of availability.

    Words count before numbers. If nothing is known, it is not sold out.

    >>> is_sold_out({"stock": "0", "availability": "preorder"}), is_sold_out({"stock": "0"})
    (False, True)
    """
    told = sorted(cells.items(), key=lambda cell: number_in(cell[1]) is not None)
    says = [says_available(name, cell) for name, cell in told]
    return next((not available for available in says if available is not None), False)


def marked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``attributes``, with :data:`SOLD_OUT`: True added if they say that it is sold out.

    Only attributes whose names mean availability count; :func:`is_sold_out` decides.
    """
    told = {name: str(value) for name, value in attributes.items() if _is_name(_squeezed(name))}
    return {**attributes, **({SOLD_OUT: True} if is_sold_out(told) else {})}


def says_available(name: str, cell: str) -> bool | None:
    """Return whether a cell says that a product can be ordered; None if it says nothing about that.

    ``name`` is the column: in a column ``sold out``, yes means that it cannot be ordered.
    """
    word = _word(cell)
    if counted := _WORD_AND_COUNT.fullmatch(cell):
        word = _squeezed(counted[1])
        if word in _AVAILABLE:
            return int(counted[2]) > 0
    if word in _AVAILABLE:
        return True
    if word in _NOT_AVAILABLE:
        return False
    says = True if word in _YES else False if word in _NO else _counted(cell)
    if _squeezed(name) not in _OPPOSITE_NAMES:
        return says
    # A column "sold" may count the pieces that were sold.
    return None if says is None or word not in {"0", "1", *_YES, *_NO} else not says


def tells_availability(name: str, cells: Sequence[str]) -> bool:
    """Return whether a column states availability, by its cells and its name, or by its cells alone."""
    given = [cell for cell in cells if has_value(cell)]
    plain = _squeezed(name)
    if not given or max(map(len, given)) > _LONGEST:
        return False
    says = {cell: says_available(name, cell) for cell in set(given)}
    if plain in _COUNTING_NAMES:
        return False in says.values() and all(number_in(cell) is not None for cell in given)
    if not _is_name(plain):
        # Many columns hold yes, no and numbers; only columns of availability hold these words.
        says = {cell: says[cell] if _word(cell) in _AVAILABLE | _NOT_AVAILABLE else None for cell in says}
        if False not in says.values():
            return False
    least = 1.0 if plain in _OPPOSITE_NAMES else _MANY if _is_name(plain) else _MOST
    return sum(says[cell] is not None for cell in given) >= least * len(given)


def best_availability(name: str, cells: Iterable[str]) -> str:
    """Return the cell that counts among a product's variants: available before unknown before sold out.

    ``name`` is the column, ``cells`` are its cells in the rows of the variants. Without cells: an empty text.
    """
    rank = {True: 0, None: 1, False: 2}
    return min(cells, key=lambda cell: rank[says_available(name, cell)], default="")


def _is_name(squeezed: str) -> bool:
    return squeezed in _NAMES or squeezed in _OPPOSITE_NAMES


def _word(cell: str) -> str:
    """Return a cell for comparison.

    Of an address such as ``https://schema.org/InStock``, only the last part is kept.
    """
    return _squeezed(cell.rpartition("schema.org/")[2])


def _counted(cell: str) -> bool | None:
    number = number_in(cell)
    if number is not None:
        return number > 0
    found = _COUNT.fullmatch(cell.strip().casefold())
    return None if found is None else int(found[1]) > 0

"""Guess the role of each column of a shop's table, from its name and its cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from dqecir.data.availability import tells_availability
from dqecir.data.cells import currency_in, has_value
from dqecir.data.picture_files import PICTURE_SUFFIXES

Role = Literal[
    "image",
    "further images",
    "id",
    "title",
    "description",
    "url",
    "price",
    "currency",
    "availability",
    "split",
    "set",
    "attribute",
    "ignored",
]
"""What a column of a table is for."""

NOT_IN_INDEX: tuple[Role, ...] = ("image", "further images", "split", "set", "ignored")
"""Roles of columns whose cells are not attributes of items."""

_NAMES: dict[Role, str] = {
    "image": "image, images, image link, image src, image url, main image, picture, photo",
    "further images": "additional image link, additional images, further images, variant image",
    "id": (
        "id, sku, handle, product id, item id, item group id, offer id, variant sku, mpn, gtin, ean, upc, "
        "barcode, parent"
    ),
    "title": "title, name, product name, product title, item name",
    "description": "description, body html, body (html), short description, long description, tags",
    "url": "url, link, product url, product link, permalink, mobile link, canonical link",
    "currency": "currency, currency code, price currency",
    "split": "split",
    "set": "set",
}
_BY_NAME = {name: role for role, names in _NAMES.items() for name in names.split(", ")}
ADDRESS = " (address)"
"""Suffix of columns with addresses of pictures, if other columns name their files."""
PRICES = frozenset(
    {"price", "prices", "cost", "rrp", "msrp", "prix", "precio", "prezzo", "prijs", "preço"}
    | {"preis", "preise", "verkaufspreis", "einzelpreis", "listenpreis", "bruttopreis", "nettopreis"}
    | {"aktionspreis", "sonderpreis", "endpreis"}
)
"""Words in a column's name that show that its numbers are prices."""
_ADDRESS = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{2,}")
_ENOUGH = 0.8
"""Share of a column's cells that must fit a role."""
_LONG = 80
"""Mean length of cells, in characters, from which on a column holds descriptions."""
MANY_VALUES = 1000
"""An attribute with more different values than this holds texts, if these have a word or more on average."""
_WORDY = 3
"""Mean number of words in cells from which on a column holds texts."""
_JUDGED = 1000
"""Number of different cells that are looked at to decide whether a column holds texts."""


def column_name(header: str) -> str:
    """Return the name of a column in lower case, with single blanks and without Google's ``g:``.

    >>> column_name("  Image   Src "), column_name("g:image_link")
    ('image src', 'image_link')
    """
    return " ".join(header.casefold().split()).removeprefix("g:")


def spaced(name: str) -> str:
    """Return the name of a column with blanks instead of underscores and hyphens.

    >>> spaced("item_group-id")
    'item group id'
    """
    return " ".join(re.split(r"[\s_-]+", name.strip()))


def roles_of(names: Sequence[str], columns: Sequence[Sequence[str]]) -> list[Role]:
    """Return the role of each column, from its name (:func:`column_name`), or else from its cells.

    ``columns`` are the cells of each column. At most one column has the main pictures (``image``): the one
    named ``image``, else the first with a similar name, else the first whose cells name pictures, else the
    first whose name means further pictures. Other columns of pictures have further pictures. A column with a
    similar name, such as ``photo``, is an attribute if its cells name no pictures.
    """
    roles = [_role_of(name, cells) for name, cells in zip(names, columns, strict=True)]
    for place, cells in enumerate(columns):
        if roles[place] == "image" and names[place] != "image" and not _name_pictures(_given(cells)):
            roles[place] = "attribute"
    images = [place for place, role in enumerate(roles) if role == "image"]
    images = images or [place for place, role in enumerate(roles) if role == "further images"][:1]
    named = [place for place in images if _by_name(names[place]) == "image"]
    chosen = [*(place for place in named if names[place] == "image"), *named, *images][:1]
    for place in images:
        roles[place] = "image" if place in chosen else "further images"
    return roles


def may_hold_text(name: str) -> bool:
    """Return whether a column may hold texts: its name means a title, a description, or no known role."""
    return _by_name(column_name(name)) in ("title", "description", None)


def holds_text(name: str, values: Sequence[str]) -> bool:
    """Return whether words are searched in a column, from its name and its different ``values``.

    These are titles, descriptions, and attributes whose values have three or more words on average, or one or
    more if there are more than :data:`MANY_VALUES` values.
    """
    some = _given(values[:_JUDGED])
    if not may_hold_text(name) or not some:
        return False
    role = _role_of(column_name(name), some)
    if role != "attribute":
        return role in ("title", "description")
    words = sum(len(_WORD.findall(cell)) for cell in some)
    return words >= _WORDY * len(some) or (len(values) > MANY_VALUES and words >= len(some))


def _role_of(name: str, cells: Sequence[str]) -> Role:
    if tells_availability(name, cells):
        return "availability"
    return _by_name(name) or _by_cells(cells)


def _by_name(name: str) -> Role | None:
    plain = spaced(name)
    if role := _BY_NAME.get(plain):
        return role
    if name.endswith(ADDRESS):
        return "ignored"
    if re.fullmatch(r"(?:image|picture|photo) \d+", plain):
        return "further images"
    return "price" if PRICES & set(plain.split()) else None


def _by_cells(cells: Sequence[str]) -> Role:
    given = _given(cells)
    if _are_pictures(given):
        return "image"
    if _most(_ADDRESS.match(cell) is not None for cell in given):
        return "url"
    if _most(currency_in(cell) is not None for cell in given):
        return "price"
    if given and sum(map(len, given)) > _LONG * len(given):
        return "description"
    return "attribute"


def _are_pictures(given: Sequence[str]) -> bool:
    return _most(cell.split("?")[0].casefold().endswith(tuple(PICTURE_SUFFIXES)) for cell in given)


def _name_pictures(given: Sequence[str]) -> bool:
    return _are_pictures(given) or _most(_ADDRESS.match(cell) is not None for cell in given)


def _given(cells: Sequence[str]) -> list[str]:
    return [cell for cell in cells if has_value(cell)]


def _most(told: Iterable[bool]) -> bool:
    votes = list(told)
    return bool(votes) and sum(votes) >= _ENOUGH * len(votes)

"""Search an index of products: items are views, and a product is found once, by its best view."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqecir.data.payload_fields import PRODUCT
from dqecir.index.contract import Hit, Index
from dqecir.index.filters import Equal, Filter
from dqecir.index.item_preferences import Preference

if TYPE_CHECKING:
    from torch import Tensor

_SPARE = 2
"""Number of views that are first searched for each wanted product."""
_MORE = 4
"""Factor of the next search if the views show too few products."""


@dataclass(frozen=True)
class ProductHit:
    """A found product."""

    best: Hit
    """Its best view."""
    product: str | None = None
    """None in an index without products."""
    other_views: tuple[str, ...] = ()
    """Ids of its views, in the order of adding."""


def product_of(item_id: str, payload: Mapping[str, Any]) -> str:
    """Return the product that an item is a view of; an item without one is its own product."""
    product: str = payload.get(PRODUCT, item_id)
    return product


def best_products(
    index: Index,
    queries: Tensor,
    k: int,
    exclude: Sequence[Sequence[str]] | None = None,
    where: Filter | None = None,
    prefer: Sequence[Preference] | None = None,
) -> list[list[ProductHit]]:
    """Return the ``k`` best products of each query (or all if fewer), each by its best view.

    Arguments as of :meth:`Index.search`.
    """
    if not index.has_products:
        found = index.search(queries, k, exclude, where, prefer)
        return [[ProductHit(hit) for hit in hits] for hits in found]
    best: list[list[Hit]] = [[] for _ in queries]
    rows, wanted = list(range(len(queries))), _SPARE * k
    while rows:
        left_out = None if exclude is None else [exclude[row] for row in rows]
        preferred = None if prefer is None else [prefer[row] for row in rows]
        found = index.search(queries[rows], wanted, left_out, where, preferred)
        for row, hits in zip(rows, found, strict=True):
            best[row] = _one_each(hits)[:k]
        rows = [
            row for row, hits in zip(rows, found, strict=True) if len(best[row]) < k and len(hits) == wanted
        ]
        wanted *= _MORE
    return _with_other_views(index, best)


def _one_each(hits: Sequence[Hit]) -> list[Hit]:
    """Return the best view of each product."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(product_of(hit.id, hit.payload), hit)
    return list(best.values())


def _with_other_views(index: Index, best: Sequence[Sequence[Hit]]) -> list[list[ProductHit]]:
    views = index.views({product_of(hit.id, hit.payload) for hits in best for hit in hits})

    def whole(hit: Hit) -> ProductHit:
        product = product_of(hit.id, hit.payload)
        return ProductHit(hit, product, tuple(view for view in views.get(product, ()) if view != hit.id))

    return [[whole(hit) for hit in hits] for hits in best]


def first_views(index: Index, where: Filter | None = None) -> list[str]:
    """Return the id of the first view of each product that ``where`` allows, in the order of adding."""
    ids = index.ids(where)
    if not index.has_products:
        return ids
    first: dict[str, str] = {}
    for item_id, payload in index.payloads(ids).items():
        first.setdefault(product_of(item_id, payload), item_id)
    return list(first.values())


@dataclass(frozen=True)
class NamedItems:
    """The items of an index that a request names."""

    references: tuple[str | None, ...]
    """Ids of the references; None for one that is no item."""
    payloads: tuple[Mapping[str, Any] | None, ...]
    """Those of the references; None for one that is no item."""
    more: tuple[str, ...]
    less: tuple[str, ...]
    left_out: tuple[str, ...]
    """Ids of the items that are no results."""


def named_items(
    index: Index,
    references: Sequence[str | None],
    more: Sequence[str],
    less: Sequence[str],
    exclude: Sequence[str],
) -> NamedItems:
    """Return the items that a request names by the ids of items or of products.

    All views of the references, of items in ``less`` and of items in ``exclude`` are left out, and all items
    with the picture of a reference, because products may share one. Unknown ids are returned unchanged.
    """
    items = tuple(None if name is None else item_named(index, name) for name in references)
    disliked = tuple(item_named(index, name) for name in less)
    known = [item for item in items if item is not None]
    payloads = index.payloads(known)
    return NamedItems(
        items,
        tuple(None if item is None else payloads.get(item) for item in items),
        tuple(item_named(index, name) for name in more),
        disliked,
        tuple(
            dict.fromkeys(
                (*all_views(index, (*known, *disliked, *exclude)), *_of_one_picture(index, payloads.values()))
            )
        ),
    )


def item_named(index: Index, name: str) -> str:
    """Return the id of the item with this id, else of the first view of the product with this id."""
    return items_named(index, [name])[0]


def all_views(index: Index, names: Collection[str]) -> list[str]:
    """Return the ids of all views of products, which are named by their own or a view's id.

    Unknown names are returned unchanged.
    """
    if not index.has_products:
        return list(names)
    known = index.payloads(list(names))
    products = {name: product_of(name, known.get(name, {})) for name in names}
    views = index.views(set(products.values()))
    return list(dict.fromkeys(view for name in names for view in (name, *views.get(products[name], ()))))


def items_named(index: Index, names: Collection[str]) -> list[str]:
    """Return the ids of the items with these ids, and of all views of products with these ids.

    An item takes precedence over a product with the same id. Unknown names are returned unchanged.
    """
    if not index.has_products:
        return list(names)
    known = index.payloads(list(names))
    views = index.views({name for name in names if name not in known})
    return list(dict.fromkeys(view for name in names for view in views.get(name, (name,))))


def _of_one_picture(index: Index, payloads: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the ids of all items whose picture is that of one of these payloads, in an index of products."""
    paths = [payload.get("path") for payload in payloads] if index.has_products else []
    for path in paths:
        if isinstance(path, str):
            alike = index.matching(Equal("path", (path,)))
            yield from (name for name, payload in alike.items() if payload["path"] == path)

"""Search an index of products: each item is one view of a product; its best view stands for the product."""

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
"""The first search asks for this many views for each wanted product."""
_MORE = 4
"""If the views belong to too few products, the next search asks for this many times as many views."""


@dataclass(frozen=True)
class ProductHit:
    """A product that was found, with the view that has the best score."""

    best: Hit
    """The view of the product with the best score."""
    product: str | None = None
    """Id of the product; None in an index without products."""
    other_views: tuple[str, ...] = ()
    """Ids of the product's other views, in the order in which they were added."""


def product_of(item_id: str, payload: Mapping[str, Any]) -> str:
    """Return the id of the product that an item shows, by its payload; its own id if it belongs to none."""
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
    """Return the ``k`` best products of each query (fewer if there are fewer), each with its best view.

    ``queries`` [B, n_q, D] and the other arguments are those of :meth:`Index.search`.
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
    """Return the first hit of each product; ``hits`` come best first."""
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
    """Return the id of each product's first view that ``where`` allows, in the order of adding."""
    ids = index.ids(where)
    if not index.has_products:
        return ids
    first: dict[str, str] = {}
    for item_id, payload in index.payloads(ids).items():
        first.setdefault(product_of(item_id, payload), item_id)
    return list(first.values())


@dataclass(frozen=True)
class NamedItems:
    """The items of an index that a request names; ids of products are replaced by those of their views."""

    references: tuple[str | None, ...]
    """Ids of the references; None for a picture that is not an item."""
    payloads: tuple[Mapping[str, Any] | None, ...]
    """Payloads of the references; None for a picture that is not an item."""
    more: tuple[str, ...]
    less: tuple[str, ...]
    left_out: tuple[str, ...]
    """Ids of the items that must not be among the results."""


def named_items(
    index: Index,
    references: Sequence[str | None],
    more: Sequence[str],
    less: Sequence[str],
    exclude: Sequence[str],
) -> NamedItems:
    """Look up the items that a request names by ids of items or of products.

    ``references`` has None for a picture that is not an item. Left out of the results are all views of the
    references, of ``less`` and of ``exclude``, and all items that show a reference's picture, because
    products may share one. Unknown ids are kept as they are. ``more`` and ``less`` are ids that results
    should, or should not, resemble.
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
    """Return the id ``name`` if it is an item, else the id of the first view of the product ``name``.

    An unknown id is returned unchanged.
    """
    return items_named(index, [name])[0]


def all_views(index: Index, names: Collection[str]) -> list[str]:
    """Return the ids of all views of the named products; a product is named by its own id or by a view's id.

    Unknown ids are returned unchanged.
    """
    if not index.has_products:
        return list(names)
    known = index.payloads(list(names))
    products = {name: product_of(name, known.get(name, {})) for name in names}
    views = index.views(set(products.values()))
    return list(dict.fromkeys(view for name in names for view in (name, *views.get(products[name], ()))))


def items_named(index: Index, names: Collection[str]) -> list[str]:
    """Replace the ids of products by the ids of all their views; ids of items stay.

    If an item and a product have the same id, it means the item. Unknown ids are returned unchanged.
    """
    if not index.has_products:
        return list(names)
    known = index.payloads(list(names))
    views = index.views({name for name in names if name not in known})
    return list(dict.fromkeys(view for name in names for view in views.get(name, (name,))))


def _of_one_picture(index: Index, payloads: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the ids of all items whose picture has the path of one of ``payloads``.

    In an index without products, yield nothing.
    """
    paths = [payload.get("path") for payload in payloads] if index.has_products else []
    for path in paths:
        if isinstance(path, str):
            alike = index.matching(Equal("path", (path,)))
            yield from (name for name, payload in alike.items() if payload["path"] == path)

"""A search request, and the prepared request with its text, filters and steering read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dqecir.data.images import ImageSource
from dqecir.index.filters import Filter
from dqecir.index.payload_columns import Columns
from dqecir.model.compose import Reference
from dqecir.search.request_text import RequestText
from dqecir.search.steering import Steering

HEAVIEST_REFERENCE = 100.0
"""The largest weight of a reference."""


@dataclass(frozen=True)
class WeightedReference:
    """One of several references: a picture, an item of the index by its id, or a picture that is an item."""

    image: ImageSource | None = None
    item: str | None = None
    weight: float = 1.0
    """How much it counts against the others; more than 0."""


@dataclass(frozen=True)
class SearchRequest:
    """A search by a reference and a text, or by one of them."""

    image: ImageSource | None = None
    """The reference. Default: the item's picture."""
    text: str = ""
    k: int = 10
    item: str | None = None
    """Id of the reference if it is an item of the index; it is left out of the results."""
    where: Filter | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    """Attribute -> weight, instead of the text's weight."""
    more: tuple[str, ...] = ()
    """Ids of items that the results should resemble."""
    less: tuple[str, ...] = ()
    """Ids of items that the results should not resemble; they are left out."""
    exclude: tuple[str, ...] = ()
    """Ids of items to leave out."""
    sold_out: bool = False
    """Whether to find items that are sold out, too."""
    strictness: float = 1.0
    """Strength of the requested values and of the garment, named or the reference's, from 0 (the model's
    composition) to 3."""
    earlier: tuple[str, ...] = ()
    """The texts of earlier turns, in order; their requests are kept unless the text changes them."""
    explain: bool = True
    """Whether to compute the contribution of each attribute to each score."""
    rerank: int = 0
    """How many of the first candidates the engine's reranker scores again."""
    references: tuple[WeightedReference, ...] = ()
    """Further references; ``image`` or ``item``, if there is one, is the first and has weight 1."""

    @property
    def all_references(self) -> tuple[WeightedReference, ...]:
        """Return every reference, the first first."""
        alone = self.image is None and self.item is None
        return (() if alone else (WeightedReference(self.image, self.item),)) + self.references


@dataclass(frozen=True)
class PreparedRequest:
    """A request whose text, filters and steering are read."""

    request: SearchRequest
    references: tuple[Reference, ...]
    """Empty for a search by text alone."""
    columns: Collection[Columns]
    """The columns of the index, for the names of its attributes."""
    said: RequestText
    """The reading of the text; the method composes the text without numeric constraints."""
    allowed: Filter | None
    """The filter of results."""
    hidden: Filter | None
    """The filter of the sold-out items that are left out; None if there are none."""
    steering: Steering
    payloads: tuple[Mapping[str, Any] | None, ...]
    """Those of the references; None for one that is no item."""
    exclude: tuple[str, ...]
    reading_ms: float

"""A search request, and the prepared request: the same with its text, filters and steering read."""

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
    """One of several references: a picture, the id of an item, or both if the picture is that of the item."""

    image: ImageSource | None = None
    item: str | None = None
    weight: float = 1.0
    """Its share relative to the weights of the other references; above 0, at most
    :data:`HEAVIEST_REFERENCE`."""


@dataclass(frozen=True)
class SearchRequest:
    """A search by a reference picture and a text, or by one of them; ``k`` is the number of results."""

    image: ImageSource | None = None
    """The reference picture. Default: the picture of ``item``."""
    text: str = ""
    k: int = 10
    item: str | None = None
    """Id of the reference if it is an item of the index; it is left out of the results."""
    where: Filter | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    """Attribute -> weight from 0 to 3, instead of the weight that the text gives it."""
    more: tuple[str, ...] = ()
    """Ids of items that the results should resemble."""
    less: tuple[str, ...] = ()
    """Ids of items that the results should not resemble; they are left out."""
    exclude: tuple[str, ...] = ()
    """Ids of items to leave out."""
    sold_out: bool = False
    """Whether sold-out items may be among the results."""
    strictness: float = 1.0
    """How strongly requested values, and the garment that the text names or the reference shows, decide: from
    0 (only the model's query decides) to 3."""
    earlier: tuple[str, ...] = ()
    """The texts of earlier turns, in order; their requests stay unless ``text`` changes them or takes them
    back."""
    explain: bool = True
    """Whether to compute which attributes raised the score of each result."""
    rerank: int = 0
    """Number of first candidates that the engine's reranker scores again; 0: none."""
    references: tuple[WeightedReference, ...] = ()
    """Further references besides ``image`` or ``item``, which come first with weight 1."""

    @property
    def all_references(self) -> tuple[WeightedReference, ...]:
        """Return all references, beginning with ``image`` or ``item``."""
        alone = self.image is None and self.item is None
        return (() if alone else (WeightedReference(self.image, self.item),)) + self.references


@dataclass(frozen=True)
class PreparedRequest:
    """A request after :meth:`SearchEngine.prepare`, which read its text, filters and steering."""

    request: SearchRequest
    references: tuple[Reference, ...]
    """The references in the order of the request; empty for a search by text alone."""
    columns: Collection[Columns]
    """The columns of the index's attributes, in parts (:meth:`Index.columns`)."""
    said: RequestText
    """What was read in the text; the model gets ``said.text``."""
    allowed: Filter | None
    """The filter that all results fulfil; None if there is none."""
    hidden: Filter | None
    """The filter that selects the sold-out items that are left out; None if none are."""
    steering: Steering
    payloads: tuple[Mapping[str, Any] | None, ...]
    """Payloads of the references; None for a picture that is not an item."""
    exclude: tuple[str, ...]
    """Ids of the items that are left out of the results."""
    reading_ms: float
    """Milliseconds that :meth:`SearchEngine.prepare` took."""

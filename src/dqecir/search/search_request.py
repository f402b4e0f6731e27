"""A request for a search, and the prepared request after its text, filters and steering are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dqecir.data.images import ImageSource
from dqecir.data.payload_fields import SOLD_OUT
from dqecir.index.filters import Equal, Filter, Not, all_of, conjuncts
from dqecir.model.compose import Reference
from dqecir.search.request_text import RequestText
from dqecir.search.steering import Steering


@dataclass(frozen=True)
class SearchRequest:
    """A search: by a reference and a text, or by either alone."""

    image: ImageSource | None = None
    """The reference; the item's picture where there is none."""
    text: str = ""
    k: int = 10
    item: str | None = None
    """Id of the reference where it is an item of the index; it is not found itself."""
    where: Filter | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    """Attribute -> weight, instead of the weight that the text gives it."""
    more: tuple[str, ...] = ()
    """Ids of items that the results should resemble."""
    less: tuple[str, ...] = ()
    """Ids of items that the results should not resemble; they are not found themselves."""
    exclude: tuple[str, ...] = ()
    """Ids of items that are not to be found."""
    sold_out: bool = False
    """Whether to find items that are sold out, too."""
    strictness: float = 1.0
    """How firmly the requested values and the garment, named or the reference's, are held: from 0, as the
    model composes by itself, to 3."""
    earlier: tuple[str, ...] = ()
    """The texts of earlier turns, the first first; what they ask for is kept unless the text changes it."""
    explain: bool = True
    """Whether to say what each attribute contributed to each score."""


SOLD_OUT_ITEMS = Equal(SOLD_OUT, ("true",))


@dataclass(frozen=True)
class PreparedRequest:
    """A request whose text, filters and steering are read."""

    request: SearchRequest
    reference: Reference | None
    """None for a search by text alone."""
    said: RequestText
    """The text as it was read; the method composes what is left of it without numeric constraints."""
    hides_sold_out: bool
    """Whether the index has sold-out items and they are not to be found."""
    steering: Steering
    shown: Mapping[str, Mapping[str, float]]
    """Column -> value -> 1, of the garments that the cells of a reference which is an item name."""
    exclude: tuple[str, ...]
    reading_ms: float

    @property
    def allowed(self) -> Filter | None:
        """The filter of the found items."""
        return all_of([*conjuncts(self.said.where), *([Not(SOLD_OUT_ITEMS)] if self.hides_sold_out else [])])

    @property
    def hidden(self) -> Filter | None:
        """The filter of the sold-out items that are left out; ``None`` if there are none."""
        return all_of([*conjuncts(self.said.where), SOLD_OUT_ITEMS]) if self.hides_sold_out else None

"""The contract of an index engine: items with target tokens, found by inner products.

An engine keeps what one model made, says so in its header, and refuses another model's queries.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import EngineError
from dqecir.index.filters import Equal, Filter
from dqecir.index.payload_columns import Columns
from dqecir.index.picture_root import picture_path
from dqecir.methods.score_rules import SINGLE, ScoreRule
from dqecir.settings import Strict

if TYPE_CHECKING:
    from torch import Tensor

    from dqecir.index.item_preferences import CatalogueText, Preference
    from dqecir.model.composed_model import ComposedModel


class IndexHeader(Strict):
    """The model and the form of an index's tokens."""

    model: str = Field(min_length=1)
    """Fingerprint of what made the target embeddings; an index of version 0.1.0 has one of all weights."""
    tokens: int = Field(ge=1)
    """Tokens an item has [n_t]."""
    size: int = Field(ge=1)
    """Width of a token [D]."""
    score_rule: ScoreRule = "max_t"

    @model_validator(mode="after")
    def _rule_fits(self) -> Self:
        if self.score_rule in SINGLE and self.tokens != 1:
            raise ValueError(
                f"the score rule {self.score_rule} compares single vectors, not {self.tokens} tokens an item"
            )
        return self


class SearchSettings(Strict):
    """How far a search trusts an engine's first choice of candidates; an audit finds what suits an index."""

    candidates: int = Field(ge=1)
    """Items that the first choice hands to the scorer, or as many as are asked for, if more."""
    exact_up_to: int = Field(ge=0)
    """Items that a search scores all of, where no more may be found: it is as quick."""


@dataclass(frozen=True)
class Hit:
    """One found item."""

    id: str
    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class ItemBatch:
    """Items to add: their ids, tokens [B, n_t, D], and one payload an item (what a page shows)."""

    ids: Sequence[str]
    tokens: Tensor
    payloads: Sequence[Mapping[str, Any]]

    def as_stored(self, header: IndexHeader) -> Tensor:
        """Return the tokens in float16 on the CPU, after checking that they belong under ``header``.

        Raises :class:`EngineError` for another shape, for ids or payloads that are not one an item,
        for an empty id, and for tokens that are not finite in float16.
        """
        shape = (len(self.ids), header.tokens, header.size)
        if self.tokens.shape != shape:
            raise EngineError(
                f"tokens of shape {list(self.tokens.shape)} do not fit an index where "
                f"{len(self.ids)} items have {list(shape)}"
            )
        if len(self.payloads) != len(self.ids):
            raise EngineError(f"{len(self.ids)} items came with {len(self.payloads)} payloads")
        if not all(self.ids):
            raise EngineError("an item has an empty id: every item needs an id of its own")
        stored = self.tokens.detach().half().cpu()
        broken = ~stored.isfinite().flatten(1).all(dim=1)
        if broken.any():
            raise EngineError(
                f"the tokens of {self.ids[int(broken.int().argmax())]!r} are not numbers of float16: "
                "the model is damaged"
            )
        return stored


class Index(ABC):
    """Items of one model, searched by score; opened from the folder that ``build`` wrote.

    It may be changed while threads and processes search it: a search answers from one finished
    generation, and waits for no writer. A change that has returned outlives ``kill -9``; one that has
    not is there whole or not at all. Writers, in any thread or process, take turns.
    """

    folder: Path
    header: IndexHeader

    @classmethod
    @abstractmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Index:
        """Write an index of all items, whole or not at all, holding one batch in memory at a time.

        An index that is already in ``folder`` gives way once the new one is whole. Raises
        :class:`EngineError` for a folder that holds anything else, for no items, for an id that
        comes twice, and for what :meth:`ItemBatch.as_stored` refuses.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path) -> Index:
        """Open what ``build`` wrote; raises :class:`EngineError` for a folder that is not whole."""

    @abstractmethod
    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        """Add items, instead of those that have their ids; they count as the newest.

        The items ``instead_of`` are deleted by the same change: no search finds both, or neither. Raises
        :class:`EngineError`, and changes nothing, for an id that comes twice, for what
        :meth:`ItemBatch.as_stored` refuses, and where another writer does not end.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Delete the items of these ids and say how many there were; unknown ids are no error."""

    @abstractmethod
    def refresh(self) -> None:
        """See what other processes have written; raises :class:`EngineError` for another model's index.

        Searches before and during it answer from the generation that was open.
        """

    @abstractmethod
    def items(self) -> Iterator[ItemBatch]:
        """Return every item of the open generation in the order of adding, a batch in memory at a time."""

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the id and the payload of every item, as :meth:`items`, without its tokens."""

    @abstractmethod
    def ids(self, where: Filter | None = None) -> list[str]:
        """Return the ids of all items that ``where`` allows, in the order of adding; parses no payload.

        Raises ``FilterError`` for what :meth:`Filter.check` does.
        """

    def count(self, where: Filter | None = None) -> int | None:
        """How many products ``where`` allows; ``None`` where an engine cannot count them as it searches."""
        return None

    @abstractmethod
    def sample(self, count: int, seed: int) -> list[str]:
        """Draw the ids of ``count`` items, or of all if fewer; parses no payload.

        The same seed draws the same items of the same generation.
        """

    @abstractmethod
    def payloads(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the payloads of items by id, without ids that no item has; parses no other payload."""

    def payload(self, item_id: str) -> Mapping[str, Any] | None:
        """Return the payload of an item; None where there is no such item."""
        return self.payloads([item_id]).get(item_id)

    def picture_path(self, payload: Mapping[str, Any]) -> Path | None:
        """Where the picture of an item is, by its payload; None where that does not say."""
        stored = payload.get("path")
        return picture_path(self.folder, stored) if isinstance(stored, str) else None

    def __contains__(self, item_id: str) -> bool:
        """Return whether an item has this id."""
        return item_id in self.payloads([item_id])

    @property
    def has_products(self) -> bool:
        """Whether items are views of products, several of which may show one product."""
        return any(PRODUCT in part.names for part in self.columns())

    def views(self, products: Collection[str]) -> dict[str, list[str]]:
        """Return the ids of the views of products, by product and in the order of adding."""
        found: dict[str, list[str]] = {}
        if products and self.has_products:
            ids = self.ids(Equal(PRODUCT, tuple(products)))
            for item_id, payload in self.payloads(ids).items():
                # A filter does not tell capitals from small letters.
                if payload[PRODUCT] in products:
                    found.setdefault(payload[PRODUCT], []).append(item_id)
        return found

    @abstractmethod
    def values(self) -> dict[str, Counter[str]]:
        """Return how many items have each value of each attribute; values are texts.

        ``path`` and the product are no attributes.
        """

    @property
    @abstractmethod
    def generation(self) -> int:
        """The number of the open generation, which grows with every change; reads nothing."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return facts for a person: items, model, rule, attributes, and what the engine keeps."""

    @abstractmethod
    def columns(self) -> Collection[Columns]:
        """Return the attributes of the items, in parts, as a filter is checked against them.

        Which they are and whether any item has a number there is so of all parts together.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @abstractmethod
    def tokens(self, ids: Sequence[str]) -> Tensor:
        """Return the stored tokens [N, n_t, D] of items, float16, in the order of ``ids``.

        Raises :class:`UnknownItemError` for an id that no item has.
        """

    @abstractmethod
    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        where: Filter | None = None,
        prefer: Sequence[Preference] | None = None,
    ) -> list[list[Hit]]:
        """Return the ``k`` best items of each query [B, n_q, D], best first.

        Equal scores come in the order in which the items were added. ``exclude`` names, for each
        query, ids that are not to be found; unknown ones are no error. ``where`` says which items may
        be found at all, by their payloads. ``prefer`` adds to scores, one preference a query.
        Raises :class:`EngineError` for what :meth:`check_search`
        refuses and ``FilterError`` for what :meth:`Filter.check` does.
        """

    @property
    def text(self) -> CatalogueText | None:
        """The words of the items; None where they cannot be searched, as :meth:`why_no_text` says."""
        return None

    def why_no_text(self) -> str:
        """Say in a sentence why no words can be searched."""
        return (
            f"the engine {self.info()['engine']} searches no words of titles: move the index to the engine "
            "exact (dqecir index move)"
        )

    @abstractmethod
    def with_settings(self, settings: SearchSettings | None) -> Index | None:
        """Return the open generation, searched under other settings, for an audit; nothing is written.

        With no settings every item that may be found is scored. None where the engine has no such search.
        """

    @abstractmethod
    def configure(self, settings: SearchSettings | None) -> None:
        """Say under which settings the index is searched from now on; with none, in the engine's own way."""

    def check_search(self, queries: Tensor, k: int, exclude: Sequence[Sequence[str]] | None) -> None:
        """Raise :class:`EngineError` for a search that cannot have an answer here."""
        if k < 1:
            raise EngineError(f"k must be at least 1, not {k}")
        if queries.ndim != 3:
            raise EngineError(f"queries have shape {list(queries.shape)} where [B, n_q, D] is needed")
        if queries.shape[2] != self.header.size:
            raise EngineError(
                f"the query has width {queries.shape[2]} and the index {self.header.size}: "
                "they come from different models; open the index with the model that built it"
            )
        if not queries.isfinite().all():
            raise EngineError("a query contains NaN or infinity: the model is damaged")
        if exclude is not None and len(exclude) != len(queries):
            raise EngineError(f"{len(queries)} queries came with {len(exclude)} lists of ids to leave out")

    def check_model(self, model: ComposedModel) -> None:
        """Raise :class:`EngineError` where another model made the target embeddings."""
        own = model.index_fingerprint(self.header.model)
        if self.header.model != own:
            raise EngineError(
                f"the index was made by another model ({self.header.model}, and this is {own}): "
                "name that model, or build the index again with this one"
            )


def check_replaceable(folder: Path) -> None:
    """Raise :class:`EngineError` where building into ``folder`` would destroy what is no index."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        if "engine" in json.loads((folder / "manifest.json").read_text(encoding="utf-8")):
            return
    except (OSError, ValueError, TypeError):
        pass
    raise EngineError(f"{folder} holds files that are not an index: name another folder")

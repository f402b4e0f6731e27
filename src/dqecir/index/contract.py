"""The contract of an index engine: items with target tokens, found by inner products.

An engine stores items of one model, which its header names, and refuses queries of other models.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from dqecir.data.payload_fields import PRODUCT, RESERVED
from dqecir.data.picture_root import is_address, picture_path
from dqecir.errors import EngineError
from dqecir.index.column_facts import ColumnFacts
from dqecir.index.filters import Equal, Filter
from dqecir.index.payload_columns import Columns
from dqecir.methods.score_rules import SINGLE, ScoreRule
from dqecir.settings import Strict

if TYPE_CHECKING:
    from torch import Tensor

    from dqecir.index.item_preferences import CatalogueText, Preference
    from dqecir.model.composed_model import ComposedModel


_ALL = 1 << 31
"""A number of values that no attribute reaches."""


class IndexHeader(Strict):
    """The model and the form of an index's tokens."""

    model: str = Field(min_length=1)
    """Fingerprint of the target embeddings' origin; in an index of version 0.1.0, that of all weights."""
    tokens: int = Field(ge=1)
    """Number of tokens of an item [n_t]."""
    size: int = Field(ge=1)
    """Width of a token [D]."""
    score_rule: ScoreRule = "max_t"

    @model_validator(mode="after")
    def _rule_fits(self) -> Self:
        if self.score_rule in SINGLE and self.tokens != 1:
            raise ValueError(
                f"the score rule {self.score_rule} compares single vectors, not {self.tokens} tokens per item"
            )
        return self


class SearchSettings(Strict):
    """How many candidates a search scores; ``dqecir index audit`` recommends settings for an index."""

    candidates: int = Field(ge=1)
    """Number of candidates that are scored; a search for many results scores more."""
    exact_up_to: int = Field(ge=0)
    """If a search may find at most so many items, all of them are scored, which is as fast."""


@dataclass(frozen=True)
class Hit:
    """A found item."""

    id: str
    score: float
    payload: Mapping[str, Any]


class Page(NamedTuple):
    """Some items of a list: ids and payloads."""

    entries: list[tuple[str, Mapping[str, Any]]]
    next: str | None
    """The ``after`` of the next page; None on the last page."""


@dataclass(frozen=True)
class ItemBatch:
    """Items to add: ids, tokens [B, n_t, D], and a payload for each item (which a page shows)."""

    ids: Sequence[str]
    tokens: Tensor
    payloads: Sequence[Mapping[str, Any]]

    def as_stored(self, header: IndexHeader) -> Tensor:
        """Return the tokens in float16 on the CPU, after checking that they fit ``header``.

        Raises :class:`EngineError` for another shape, for a wrong number of ids or payloads, for an empty
        id, and for tokens that are not finite in float16.
        """
        shape = (len(self.ids), header.tokens, header.size)
        if self.tokens.shape != shape:
            raise EngineError(
                f"the tokens have the shape {list(self.tokens.shape)}, but {len(self.ids)} items of this "
                f"index need {list(shape)}: encode them with the index's own model (dqecir index info)"
            )
        if len(self.payloads) != len(self.ids):
            raise EngineError(f"{len(self.ids)} items came with {len(self.payloads)} payloads")
        if not all(self.ids):
            raise EngineError("an item has an empty id: give every item its own id")
        stored = self.tokens.detach().half().cpu()
        broken = ~stored.isfinite().flatten(1).all(dim=1)
        if broken.any():
            raise EngineError(
                f"the tokens of {self.ids[int(broken.int().argmax())]!r} are not numbers of float16: "
                "the model is damaged"
            )
        return stored

    def check_once(self, seen: set[str]) -> None:
        """Add the ids to ``seen``; raises :class:`EngineError` for a repeated id."""
        for item in self.ids:
            if item in seen:
                raise EngineError(f"the item {item!r} comes twice: give every item its own id")
            seen.add(item)


class Index(ABC):
    """Items of one model, searched by score; opened from the folder that ``build`` wrote.

    It may be changed while threads and processes search it: a search uses one finished generation and
    never waits for a writer. A change that has returned survives ``kill -9``; an interrupted change is
    complete or has no effect. Writers, in any thread or process, take turns.
    """

    folder: Path
    header: IndexHeader

    @classmethod
    @abstractmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Index:
        """Write an index of all items, whole or not at all, with one batch in memory at a time.

        An existing index in ``folder`` is replaced once the new one is complete. Raises
        :class:`EngineError` if the folder holds other files, for no items, for a repeated id, and as
        :meth:`ItemBatch.as_stored`.
        """

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Open what ``build`` wrote; raises :class:`EngineError` for an incomplete folder."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open what ``build`` wrote, as the constructor does."""
        return cls(folder)

    @classmethod
    def stored(cls, folder: Path) -> tuple[IndexHeader, Iterator[ItemBatch]]:
        """Return the header and the items of an index, also of one that can be moved and not searched.

        Raises :class:`EngineError` as :meth:`open`, and for an index without items.
        """
        index = cls.open(folder)
        if not len(index):
            raise EngineError(f"{folder} has no items to move: name another index")
        return index.header, index.items()

    @abstractmethod
    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        """Add items, replacing those with the same ids; they count as the newest.

        The items ``instead_of`` are deleted in the same change, so that every search finds either the old or
        the new items. Raises :class:`EngineError`, without a change, for a repeated id, as
        :meth:`ItemBatch.as_stored`, and if another writer does not end.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Delete the items with these ids and return their number; unknown ids are ignored."""

    @abstractmethod
    def change_payloads(self, payloads: Mapping[str, Mapping[str, Any]]) -> int:
        """Replace the payloads of items, by id, and return how many of these items there are.

        Tokens are not written again, and items keep their places in the order of adding. Unknown ids are
        ignored.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Open the newest generation of other processes.

        Raises :class:`EngineError` for another model's index.
        Searches before and during this call use the old generation.
        """

    @abstractmethod
    def items(self) -> Iterator[ItemBatch]:
        """Yield all items of the open generation in the order of adding, a batch in memory at a time."""

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the id and the payload of every item, as :meth:`items` but without tokens."""

    @abstractmethod
    def ids(self, where: Filter | None = None) -> list[str]:
        """Return the ids of all items that ``where`` allows, in the order of adding; parse no payloads.

        Raises ``FilterError`` as :meth:`Filter.check`.
        """

    def count(self, where: Filter | None = None) -> int | None:
        """Return how many products ``where`` allows; ``None`` if the engine cannot count them fast."""
        return None

    def page(
        self, limit: int, after: str | None = None, where: Filter | None = None, seed: int | None = None
    ) -> Page | None:
        """Return ``limit`` items that ``where`` allows, one for each product, in the order of adding.

        With ``seed`` they come in a random order, which depends on the seed and the ids alone. ``after`` is
        the ``next`` of the page before. Return None if the engine cannot page fast. Raises
        :class:`UnknownItemError` if the item ``after`` is gone, and ``FilterError`` as :meth:`ids`.
        """
        return None

    def has_any(self, where: Filter) -> bool:
        """Return whether ``where`` allows any item; raises ``FilterError`` as :meth:`ids`."""
        found = self.page(1, where=where)
        return bool(self.ids(where) if found is None else found.entries)

    @abstractmethod
    def sample(self, count: int, seed: int) -> list[str]:
        """Draw the ids of ``count`` items, or of all if there are fewer, without parsing payloads.

        The same seed draws the same items of the same generation.
        """

    @abstractmethod
    def payloads(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the payloads of items by id, without unknown ids; other payloads are not parsed."""

    def matching(self, where: Filter) -> dict[str, Mapping[str, Any]]:
        """Return the payloads of the items that ``where`` allows, by id; raises as :meth:`ids`."""
        return self.payloads(self.ids(where))

    def payload(self, item_id: str) -> Mapping[str, Any] | None:
        """Return the payload of an item; None if there is no such item."""
        return self.payloads([item_id]).get(item_id)

    def picture_path(self, payload: Mapping[str, Any]) -> Path | None:
        """Return the path of an item's picture, by its payload; None for an address, or if there is none."""
        stored = payload.get("path")
        if not isinstance(stored, str) or is_address(stored):
            return None
        return picture_path(self.folder, stored)

    def __contains__(self, item_id: str) -> bool:
        """Return whether an item has this id."""
        return item_id in self.payloads([item_id])

    @property
    def has_products(self) -> bool:
        """Whether items are views of products, so that several may show one product."""
        return any(PRODUCT in part.names for part in self.columns())

    def views(self, products: Collection[str]) -> dict[str, list[str]]:
        """Return the ids of the views of products, by product and in the order of adding."""
        found: dict[str, list[str]] = {}
        if products and self.has_products:
            for item_id, payload in self.matching(Equal(PRODUCT, tuple(products))).items():
                # Filters ignore case.
                if payload[PRODUCT] in products:
                    found.setdefault(payload[PRODUCT], []).append(item_id)
        return found

    def values(self) -> dict[str, Counter[str]]:
        """Return how many items have each value of each attribute; values are texts."""
        return {name: Counter(facts.values) for name, facts in self.column_facts(_ALL, 1).items()}

    @abstractmethod
    def column_facts(self, few: int, bins: int) -> dict[str, ColumnFacts]:
        """Return facts about every attribute that a living item has; ``path`` and the product are none.

        ``few``: an attribute with more different values gets ``values=None``. ``bins``: the number of equal
        intervals in which its numbers are counted.
        """

    @property
    @abstractmethod
    def generation(self) -> int:
        """The number of the open generation, which grows with every change."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return facts for users: items, model, rule, attributes; an engine adds its own."""
        attributes = {name for part in self.columns() for name in part.names} - RESERVED
        return {
            "items": len(self),
            "attributes": sorted(attributes),
            "model": self.header.model,
            "tokens": f"{self.header.tokens} of width {self.header.size}",
            "score rule": self.header.score_rule,
            "generation": self.generation,
        }

    @abstractmethod
    def columns(self) -> Collection[Columns]:
        """Return the columns of attributes, in parts, for checking a filter.

        Names, and whether any item has a number, are right for all parts together.
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

        Equal scores come in the order in which the items were added. ``exclude`` names, for each query, ids
        to leave out; unknown ids are ignored. ``where`` filters items by their payloads. ``prefer`` adds to
        scores, with one preference for each query. Raises :class:`EngineError` as :meth:`check_search`, and
        ``FilterError`` as :meth:`Filter.check`.
        """

    @property
    def text(self) -> CatalogueText | None:
        """The words of the items; None if they cannot be searched (:meth:`why_no_text`)."""
        return None

    def why_no_text(self) -> str:
        """Return a sentence that says why no words can be searched."""
        return (
            f"the engine {self.info()['engine']} cannot search words of titles: move the index to the "
            "engine exact (dqecir index move)"
        )

    @abstractmethod
    def with_settings(self, settings: SearchSettings | None) -> Index | None:
        """Return the open generation with other settings of searches, for an audit; nothing is stored.

        Without settings every item that may be found is scored. None if the engine has no such search. Call
        :meth:`end_trials` afterwards.
        """

    def end_trials(self) -> None:  # noqa: B027 (most engines make nothing)
        """Remove what :meth:`with_settings` made, unless :meth:`configure` stored its settings."""

    @abstractmethod
    def configure(self, settings: SearchSettings | None) -> None:
        """Store the settings of searches. None: the engine's default.

        Raises :class:`EngineError` for settings that the engine cannot follow, or not for this index.
        """

    def check_search(self, queries: Tensor, k: int, exclude: Sequence[Sequence[str]] | None) -> None:
        """Raise :class:`EngineError` for arguments that do not fit the index."""
        if k < 1:
            raise EngineError(f"k must be at least 1, not {k}")
        if queries.ndim != 3:
            raise EngineError(f"queries have shape {list(queries.shape)} where [B, n_q, D] is needed")
        if queries.shape[2] != self.header.size:
            raise EngineError(
                f"the query has width {queries.shape[2]} but the index {self.header.size}, so they come "
                "from different models: open the index with the model that built it"
            )
        if not queries.isfinite().all():
            raise EngineError("a query contains NaN or infinity: the model is damaged")
        if exclude is not None and len(exclude) != len(queries):
            raise EngineError(
                f"{len(queries)} queries came with {len(exclude)} lists of ids to exclude: give a list for "
                "each query"
            )

    def check_model(self, model: ComposedModel) -> None:
        """Raise :class:`EngineError` if another model made the target embeddings."""
        own = model.index_fingerprint(self.header.model)
        if self.header.model != own:
            raise EngineError(
                f"the index was made by another model ({self.header.model}, and this is {own}): "
                "name that model, or build the index again with this one"
            )


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of an index of any engine; raises :class:`EngineError` for another folder."""
    path = folder / "manifest.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise EngineError(
            f"{folder} is not an index, or an incomplete one ({path.name} is missing): name another folder, "
            "or build it again"
        ) from None
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    except ValueError as error:
        raise EngineError(f"{path} is damaged ({error}): build the index again") from None
    if not isinstance(data, dict) or not isinstance(data.get("engine"), str):
        raise EngineError(f"{path} names no engine: build the index again")
    return data


def check_replaceable(folder: Path) -> None:
    """Raise :class:`EngineError` if building into ``folder`` would delete files that are not an index."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        manifest_of(folder)
    except EngineError:
        raise EngineError(f"{folder} holds files that are not an index: name another folder") from None

"""The contract of an index engine: it stores items with their target embeddings, and finds the best by score.

An embedding is n_t vectors of width D, which are called tokens here. All items of an index were embedded by
one model, which the header names; :meth:`Index.check_model` refuses other models.
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
from dqecir.index.item_preferences import Preference
from dqecir.index.payload_columns import Columns
from dqecir.methods.score_rules import SINGLE, ScoreRule
from dqecir.settings import Strict

if TYPE_CHECKING:
    from torch import Tensor

    from dqecir.index.item_preferences import CatalogueText
    from dqecir.model.composed_model import ComposedModel


_ALL = 1 << 31
"""A number that is larger than the number of different values of any attribute."""


class IndexHeader(Strict):
    """The model that made an index, the shape of its embeddings, and the score rule."""

    model: str = Field(min_length=1)
    """Fingerprint of the weights that target embeddings depend on; in an index of version 0.1.0, of all
    weights."""
    tokens: int = Field(ge=1)
    """Number of vectors of an item [n_t]."""
    size: int = Field(ge=1)
    """Width of a vector [D]."""
    score_rule: ScoreRule = "max_t"

    @model_validator(mode="after")
    def _rule_fits(self) -> Self:
        if self.score_rule in SINGLE and self.tokens != 1:
            raise ValueError(
                f"the score rule {self.score_rule} compares single vectors, not {self.tokens} tokens per item"
            )
        return self


AUDIT = 2
"""Version of the queries with which an audit (``dqecir index audit``) measures searches. Since version 2 they
give the kind of garment, such as dress, more weight, as searches do."""


class SearchSettings(Strict):
    """How many items an approximate search scores.

    ``dqecir index audit`` recommends settings for an index.
    """

    candidates: int = Field(ge=1)
    """Number of candidates that are scored exactly; more if a search wants many results."""
    exact_up_to: int = Field(ge=0)
    """If a filter allows at most this many items, all of them are scored, because that is as fast."""
    audit: int = Field(default=1, repr=False)
    """Version of the audit's queries (:data:`AUDIT`) by which these settings were chosen."""


@dataclass(frozen=True)
class Hit:
    """An item that a search found: its id, score (higher is better) and payload (attributes and picture)."""

    id: str
    score: float
    payload: Mapping[str, Any]


class Page(NamedTuple):
    """One page of a list of items: ids with payloads."""

    entries: list[tuple[str, Mapping[str, Any]]]
    next: str | None
    """The ``after`` of the next page; None on the last page."""


@dataclass(frozen=True)
class Search:
    """The checked arguments of one call of :meth:`Index.search`; each list has an entry for each query."""

    queries: Tensor
    """Float32 [B, n_q, D]."""
    k: int
    exclude: Sequence[Sequence[str]]
    where: Filter | None
    prefer: Sequence[Preference]


@dataclass(frozen=True)
class ItemBatch:
    """Items to add: their ids, tokens [B, n_t, D], and payloads (attributes and the picture's path)."""

    ids: Sequence[str]
    tokens: Tensor
    payloads: Sequence[Mapping[str, Any]]

    def as_stored(self, header: IndexHeader) -> Tensor:
        """Check the batch, and return its tokens in float16 on the CPU.

        Raises :class:`EngineError` if the tokens do not have the shape that ``header`` gives or are not
        finite in float16, if the numbers of ids, tokens and payloads differ, or if an id is empty or comes
        twice.
        """
        shape = (len(self.ids), header.tokens, header.size)
        if self.tokens.shape != shape:
            raise EngineError(
                f"the tokens have the shape {list(self.tokens.shape)}, but {len(self.ids)} items of this "
                f"index need {list(shape)}: encode them with the index's own model (dqecir index info)"
            )
        if len(self.payloads) != len(self.ids):
            raise EngineError(
                f"{len(self.ids)} items came with {len(self.payloads)} payloads: give one for each item"
            )
        if not all(self.ids):
            raise EngineError("an item has an empty id: give every item its own id")
        stored = self.tokens.detach().half().cpu()
        broken = ~stored.isfinite().flatten(1).all(dim=1)
        if broken.any():
            raise EngineError(
                f"the tokens of {self.ids[int(broken.int().argmax())]!r} are not numbers of float16: "
                "the model is damaged, copy it again"
            )
        self._check_once(set())
        return stored

    @staticmethod
    def of_build(batches: Iterator[ItemBatch]) -> Iterator[ItemBatch]:
        """Yield the batches of a build.

        Raises :class:`EngineError` for an id that comes twice, and if there are no items. Delete each batch
        before asking for the next, so that only one is in memory.
        """
        seen: set[str] = set()
        for batch in batches:
            batch._check_once(seen)
            yield batch
            del batch
        if not seen:
            raise EngineError("no image can be used, so there is nothing to index: check the folder")

    def _check_once(self, seen: set[str]) -> None:
        """Add the ids to ``seen``; raises :class:`EngineError` for an id that is in it already."""
        for item in self.ids:
            if item in seen:
                raise EngineError(f"the item {item!r} comes twice: give every item its own id")
            seen.add(item)


class Index(ABC):
    """An index of items of one model, in the folder that :meth:`build` wrote.

    Threads and processes may search it while others change it: a search uses one finished generation (state)
    and never waits for a writer. After a change has returned, it survives ``kill -9``; an interrupted change
    is complete or has no effect. Several writers, in any thread or process, take turns.
    """

    folder: Path
    header: IndexHeader

    @classmethod
    @abstractmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Index:
        """Write an index of all items of ``batches`` into ``folder``, and return the open index.

        One batch is in memory at a time. The index is written completely or not at all; an index that is
        already in ``folder`` is replaced only at the end. ``header`` names the model, the shape of embeddings
        and the score rule. Raises :class:`EngineError` if the engine does not support that rule, if the
        folder holds other files, if there are no items, for an id that comes twice, and as
        :meth:`ItemBatch.as_stored`.
        """

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Open the index in ``folder``; raises :class:`EngineError` if it is incomplete."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the index in ``folder``; raises :class:`EngineError` if it is incomplete."""
        return cls(folder)

    @classmethod
    def stored(cls, folder: Path) -> tuple[IndexHeader, Iterator[ItemBatch]]:
        """Return the header and all items of an index, to copy them into another engine.

        It also reads old indexes that can no longer be searched. Raises :class:`EngineError` as :meth:`open`,
        and for an index without items.
        """
        index = cls.open(folder)
        if not len(index):
            raise EngineError(f"{folder} has no items to move: name another index")
        return index.header, index.items()

    @abstractmethod
    def add(self, batch: ItemBatch, instead_of: Sequence[str] = ()) -> None:
        """Add items.

        An item replaces the one with the same id, and takes the last place in the order of adding.

        The items with the ids ``instead_of`` are deleted in the same change, so that every search finds
        either the old or the new items. Raises :class:`EngineError`, without a change, as
        :meth:`ItemBatch.as_stored`, and if another writer does not finish in time.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Delete the items with these ids, and return how many there were; unknown ids are ignored.

        Raises :class:`EngineError`, without a change, if another writer does not finish in time.
        """

    @abstractmethod
    def change_payloads(self, payloads: Mapping[str, Mapping[str, Any]]) -> int:
        """Replace the payloads of items (id -> new payload); return how many of these items there are.

        Tokens are not written again, and items keep their places in the order of adding. Unknown ids are
        ignored. Raises :class:`EngineError`, without a change, if another writer does not finish in time.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Open the newest generation, which another process may have written.

        Searches that started earlier use the old generation. Raises :class:`EngineError` if the index now
        belongs to another model.
        """

    @abstractmethod
    def items(self) -> Iterator[ItemBatch]:
        """Yield all items of the open generation in the order of adding, one batch in memory at a time."""

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the id and the payload of every item, in the order of adding."""

    @abstractmethod
    def ids(self, where: Filter | None = None) -> list[str]:
        """Return the ids of all items that ``where`` allows, in the order of adding; payloads are not parsed.

        Raises ``FilterError`` as :meth:`Filter.check`.
        """

    def count(self, where: Filter | None = None) -> int | None:
        """Return the number of products that ``where`` allows; None if the engine cannot count fast.

        Without products, items are counted. Raises ``FilterError`` as :meth:`Filter.check`.
        """
        return None

    def page(
        self, limit: int, after: str | None = None, where: Filter | None = None, seed: int | None = None
    ) -> Page | None:
        """Return up to ``limit`` items that ``where`` allows, one for each product, in the order of adding.

        With ``seed`` they come in a random order, which depends only on the seed and the ids. ``after`` is
        the ``next`` of the previous page; None for the first. Returns None if the engine cannot list pages
        fast. Raises :class:`UnknownItemError` if the item ``after`` was deleted, and ``FilterError`` as
        :meth:`ids`.
        """
        return None

    def has_any(self, where: Filter) -> bool:
        """Return whether ``where`` allows at least one item; raises ``FilterError`` as :meth:`ids`."""
        found = self.page(1, where=where)
        return bool(self.ids(where) if found is None else found.entries)

    @abstractmethod
    def sample(self, count: int, seed: int) -> list[str]:
        """Return the ids of ``count`` random items, or of all if there are fewer; payloads are not parsed.

        The same seed gives the same ids in the same generation.
        """

    @abstractmethod
    def payloads(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return id -> payload of the items with these ids; unknown ids are left out."""

    def matching(self, where: Filter) -> dict[str, Mapping[str, Any]]:
        """Return id -> payload of the items that ``where`` allows; raises ``FilterError`` as :meth:`ids`."""
        return self.payloads(self.ids(where))

    def payload(self, item_id: str) -> Mapping[str, Any] | None:
        """Return the payload of an item; None if there is no such item."""
        return self.payloads([item_id]).get(item_id)

    def picture_path(self, payload: Mapping[str, Any]) -> Path | None:
        """Return the file of the picture that a payload names; None if it names none, or a web address."""
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
        """Return product -> ids of its views (items), in the order of adding.

        Unknown products are left out.
        """
        found: dict[str, list[str]] = {}
        if products and self.has_products:
            for item_id, payload in self.matching(Equal(PRODUCT, tuple(products))).items():
                # Filters ignore case.
                if payload[PRODUCT] in products:
                    found.setdefault(payload[PRODUCT], []).append(item_id)
        return found

    def values(self) -> dict[str, Counter[str]]:
        """Return attribute -> value -> number of items that have it; values are texts."""
        return {name: Counter(facts.values) for name, facts in self.column_facts(_ALL, 1).items()}

    @abstractmethod
    def column_facts(self, few: int, bins: int) -> dict[str, ColumnFacts]:
        """Return attribute -> facts, for every attribute that some item has (not ``path`` and the product).

        ``few``: an attribute with more different values gets ``values=None``. ``bins``: number of equal
        intervals in which its numbers are counted.
        """

    @property
    @abstractmethod
    def generation(self) -> int:
        """The number of the open generation; it grows with every change."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return facts for users, such as the number of items, model, score rule and attributes."""
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
        """Return the columns of all attributes, one :class:`Columns` for each part of the index.

        Use them only to check filters, because some engines return columns of one invented item. An attribute
        exists, or has numbers, if it does so in any part.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @abstractmethod
    def tokens(self, ids: Sequence[str]) -> Tensor:
        """Return the stored tokens [N, n_t, D] of N items, float16, in the order of ``ids``.

        Raises :class:`UnknownItemError` for an unknown id.
        """

    def search(
        self,
        queries: Tensor,
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        where: Filter | None = None,
        prefer: Sequence[Preference] | None = None,
    ) -> list[list[Hit]]:
        """Return the ``k`` items with the best scores for each query [B, n_q, D], the best first.

        If fewer items are allowed, all of them are returned. Items with equal scores come in the order of
        adding. ``exclude``: for each query, ids to leave out; unknown ids are ignored. ``where``: only items
        that it allows. ``prefer``: for each query, what is added to the scores of items. Raises
        :class:`EngineError` if an argument does not fit this index, and ``FilterError`` as
        :meth:`Filter.check`.
        """
        self.check_search(queries, k, exclude)
        without, wished = exclude or [()] * len(queries), prefer or [Preference()] * len(queries)
        return self._search(Search(queries.float(), k, without, where, wished))

    @abstractmethod
    def _search(self, asked: Search) -> list[list[Hit]]:
        """Return the hits of :meth:`search`."""

    @property
    def text(self) -> CatalogueText | None:
        """The words of the items' texts, such as titles; None if they cannot be searched.

        :meth:`why_no_text` says why.
        """
        return None

    def why_no_text(self) -> str:
        """Return a sentence that says why words cannot be searched."""
        return (
            f"the engine {self.info()['engine']} cannot search words of titles: move the index to the "
            "engine exact (dqecir index move)"
        )

    @property
    def settings(self) -> SearchSettings | None:
        """The stored settings of searches. None: the engine's default."""
        return None

    @abstractmethod
    def with_settings(self, settings: SearchSettings | None) -> Index | None:
        """Return this generation as an index that searches with other settings, for measuring them.

        The settings are not stored. None means scoring every allowed item. Returns None if the engine has no
        such search. Call :meth:`end_trials` afterwards.
        """

    def end_trials(self) -> None:  # noqa: B027 (most engines make nothing)
        """Remove what :meth:`with_settings` has made; settings that :meth:`configure` has stored stay."""

    @abstractmethod
    def configure(self, settings: SearchSettings | None) -> None:
        """Store ``settings`` for all later searches. None: the engine's default.

        Raises :class:`EngineError` if the engine cannot use these settings for this index.
        """

    def check_search(self, queries: Tensor, k: int, exclude: Sequence[Sequence[str]] | None) -> None:
        """Raise :class:`EngineError` if arguments of :meth:`search` do not fit this index."""
        if k < 1:
            raise EngineError(f"k must be at least 1, not {k}")
        if queries.ndim != 3:
            raise EngineError(f"queries have the shape {list(queries.shape)}: give them as [B, n_q, D]")
        if queries.shape[2] != self.header.size:
            raise EngineError(
                f"the query has width {queries.shape[2]} but the index {self.header.size}, so they come "
                "from different models: open the index with the model that built it"
            )
        if not queries.isfinite().all():
            raise EngineError("a query contains NaN or infinity: the model is damaged, copy it again")
        if exclude is not None and len(exclude) != len(queries):
            raise EngineError(
                f"{len(queries)} queries came with {len(exclude)} lists of ids to exclude: give a list for "
                "each query"
            )

    def check_model(self, model: ComposedModel) -> None:
        """Raise :class:`EngineError` if another model made the embeddings of this index."""
        own = model.index_fingerprint(self.header.model)
        if self.header.model != own:
            raise EngineError(
                f"the index was made by another model ({self.header.model}, and this is {own}): "
                "name that model, or build the index again with this one"
            )


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the contents of ``manifest.json`` of an index of any engine.

    Raises :class:`EngineError` if the folder is no complete index.
    """
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

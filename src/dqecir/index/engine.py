"""The contract of an index engine: items with target tokens, found by inner products.

An engine keeps what one model made, says so in its header, and refuses another model's queries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dqecir.data.triplets import DataError
from dqecir.scoring import ScoreRule
from dqecir.strict import Strict


class EngineError(DataError):
    """An index that cannot be used, with a sentence that says why and what to do."""


class IndexHeader(Strict):
    """What made the tokens of an index."""

    model: str
    """Fingerprint of the model's weights."""
    tokens: int
    """Tokens an item has [n_t]."""
    size: int
    """Width of a token [D]."""
    score_rule: ScoreRule = "max_t"


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


class Index(ABC):
    """Items of one model, searched by score; opened from the folder that ``build`` wrote."""

    header: IndexHeader

    @classmethod
    @abstractmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> Index:
        """Write an index of all items, whole or not at all, holding one batch in memory at a time."""

    @classmethod
    @abstractmethod
    def open(cls, folder: Path) -> Index:
        """Open what ``build`` wrote; raises :class:`EngineError` for a folder that is not whole."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def __contains__(self, item_id: str) -> bool:
        """Whether an item has this id."""

    @abstractmethod
    def search(
        self, queries: Tensor, k: int, exclude: Sequence[Sequence[str]] | None = None
    ) -> list[list[Hit]]:
        """The ``k`` best items of each query [B, n_q, D], best first.

        ``exclude`` names, for each query, ids that are not to be found; unknown ones are no error.
        """

    def check_model(self, fingerprint: str) -> None:
        """Raise :class:`EngineError` where the index was made by another model."""
        if self.header.model != fingerprint:
            raise EngineError(
                f"the index was made by another model ({self.header.model}, and this is {fingerprint}): "
                "name that model, or build the index again"
            )

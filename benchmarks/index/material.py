"""Tokens to index, and queries for them: of really encoded pictures, and drawn ones.

Three sets, all of 17 tokens of width 128:

- ``shipped``: pictures encoded by the shipped model, rule ``likelihood``. Beyond the pictures that there are,
  an item has the base tokens of one picture with a little noise, and each of its distributions, with
  probability 0.3, is that of another picture.
- ``strong`` and ``weak``: drawn unit vectors whose mean cosine within an item is about 0.8 or 0.3, around
  2,000 centres, rule ``max_t``; a query is a token of an item with noise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dqecir.data.picture_files import PICTURE_SUFFIXES
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.methods.score_rules import ScoreRule
from dqecir.search.audit import picture_queries
from dqecir.search.retriever import ComposedRetriever

TOKENS, WIDTH = 17, 128
BATCH = 5_000
NOISE = 0.02
"""Standard deviation of each number of a copied base token."""
SWAPPED = 0.3
CENTRES = 2_000
SPREAD = {"strong": 0.5, "weak": 1.5}
"""Length of what is a token's own beside what is its item's."""

SETS = ("shipped", "strong", "weak")


@dataclass(frozen=True)
class Material:
    """Items in batches, always the same, and queries [B, n_q, D]."""

    name: str
    count: int
    rule: ScoreRule
    real: int
    """Items that are encoded pictures, unchanged."""
    source: Path
    """The index of encoded pictures."""

    @property
    def header(self) -> IndexHeader:
        return IndexHeader(model=f"benchmark-{self.name}", tokens=TOKENS, size=WIDTH, score_rule=self.rule)

    def batches(self) -> Iterator[ItemBatch]:
        """All items; each tenth and each hundredth of them can be filtered for."""
        for number, start in enumerate(range(0, self.count, BATCH)):
            rows = range(start, min(start + BATCH, self.count))
            draw = torch.Generator().manual_seed(1 + number)
            tokens = self._resampled(rows, draw) if self.name == "shipped" else _drawn(self.name, rows, draw)
            payloads = [{"tenth": str(row % 10), "hundredth": str(row % 100)} for row in rows]
            yield ItemBatch([str(row) for row in rows], tokens, payloads)

    def _resampled(self, rows: range, draw: torch.Generator) -> Tensor:
        encoded = encoded_tokens(self.source)
        base = encoded.shape[1] - distributions(encoded)
        parts = []
        if rows.start < self.real:
            # Pictures in an order that mixes their catalogues.
            order = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(0))
            parts.append(encoded[order[rows.start : min(rows.stop, self.real)]].float())
        made = len(rows) - sum(map(len, parts))
        if made:
            tokens = encoded[torch.randint(len(encoded), (made,), generator=draw)].float()
            noise = NOISE * torch.randn(made, base, WIDTH, generator=draw)
            tokens[:, :base] = normalize(tokens[:, :base] + noise, dim=2)
            for place in range(base, TOKENS):
                swapped = (torch.rand(made, generator=draw) < SWAPPED).nonzero()[:, 0]
                others = torch.randint(len(encoded), (len(swapped),), generator=draw)
                tokens[swapped, place] = encoded[others, place].float()
            parts.append(tokens)
        return torch.cat(parts)


def material(name: str, count: int, source: Path) -> Material:
    """A set of ``count`` items; ``source`` is the index of encoded pictures."""
    if name == "shipped":
        return Material(name, count, "likelihood", min(count, len(encoded_tokens(source))), source)
    return Material(name, count, "max_t", 0, source)


def encode(folders: Sequence[Path], source: Path) -> None:
    """Encode all pictures of some folders into ``source`` with the shipped model, unless that was done."""
    if source.exists():
        return
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    pictures = [path for path in found if path.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise SystemExit(f"there is no {source} yet: name folders of pictures to encode with --pictures")
    ComposedRetriever.from_pretrained().build_index(pictures, source)


def encoded_tokens(source: Path) -> Tensor:
    """Tokens [N, 17, 128] float16 of all encoded pictures, memory-mapped."""
    [path] = source.glob("s*/tokens.npy")
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def distributions(tokens: Tensor) -> int:
    """How many of the last tokens are distributions."""
    some = tokens[:1000].float()
    return int(((some >= 0).all(dim=2) & ((some.sum(dim=2) - 1).abs() < 0.05)).all(dim=0).sum())


def queries(name: str, count: int, source: Path) -> Tensor:
    """Queries of a set; ``shipped`` ones are of pictures and texts that change one or two attributes."""
    if name != "shipped":
        draw = torch.Generator().manual_seed(0)
        tokens = _drawn(name, range(count), torch.Generator().manual_seed(1))
        return normalize(tokens[:, :1] + 0.08 * torch.randn(count, 1, WIDTH, generator=draw), dim=2)
    kept = source.parent / f"queries-{count}.npy"
    if not kept.exists():
        choice = random.Random(0)
        payloads = [payload for _, payload in ExactIndex.open(source).entries()]
        model = ComposedRetriever.from_pretrained().model
        composed = picture_queries(model, choice.sample(payloads, count), choice)
        if composed is None:
            raise SystemExit("the encoded pictures are gone: queries are composed of them")
        np.save(kept, composed.numpy())
    return torch.from_numpy(np.load(kept))


def _drawn(name: str, rows: range, draw: torch.Generator) -> Tensor:
    centres = torch.randn(CENTRES, 1, WIDTH, generator=torch.Generator().manual_seed(0))
    own = centres[torch.randint(CENTRES, (len(rows),), generator=draw)]
    item = normalize(own + 0.7 * torch.randn(len(rows), 1, WIDTH, generator=draw), dim=2)
    apart = normalize(torch.randn(len(rows), TOKENS, WIDTH, generator=draw), dim=2)
    return normalize(item + SPREAD[name] * apart, dim=2)

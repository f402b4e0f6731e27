"""Make vectors to index, and queries for them, from encoded pictures.

An item has the vector of the shipped model (rule ``dot``). If there are fewer pictures than items, further
items have the base numbers of one picture with a little noise, and each column's slice is, with probability
0.3, that of another picture. Seeds are fixed: the same number of items always gives the same items.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dqecir.data.picture_files import PICTURE_SUFFIXES
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.methods.value_vectors import ValueSlices
from dqecir.model.composed_model import ComposedModel
from dqecir.search.audit import picture_queries
from dqecir.search.retriever import ComposedRetriever

BATCH = 5_000
NOISE = 0.02
"""Standard deviation of what is added to each base number."""
SWAPPED = 0.3


@dataclass(frozen=True)
class Material:
    """Items in batches; the same settings give the same items."""

    count: int
    source: Path
    """The index of encoded pictures."""

    @cached_property
    def encoded(self) -> Tensor:
        """Return the vectors [N, D] float16 of all encoded pictures, memory-mapped."""
        [path] = self.source.glob("s*/tokens.npy")
        return torch.from_numpy(np.load(path, mmap_mode="c"))[:, 0]

    @cached_property
    def widths(self) -> list[int]:
        """Return the number of base numbers of a vector, and of numbers for each column."""
        layout = ComposedModel.from_pretrained().method.layout
        assert isinstance(layout, ValueSlices)
        return [layout.width, *layout.widths]

    @property
    def header(self) -> IndexHeader:
        return IndexHeader(model="benchmark", tokens=1, size=self.encoded.shape[1], score_rule="dot")

    @property
    def real(self) -> int:
        """Return the number of items that are unchanged encoded pictures."""
        return min(self.count, len(self.encoded))

    def batches(self) -> Iterator[ItemBatch]:
        """Yield all items; filters can select each tenth, hundredth and thousandth of them."""
        for start in range(0, self.count, BATCH):
            rows = range(start, min(start + BATCH, self.count))
            payloads = [
                {"tenth": str(row % 10), "hundredth": str(row % 100), "thousandth": str(row % 1000)}
                for row in rows
            ]
            yield ItemBatch([str(row) for row in rows], self._vectors(rows)[:, None], payloads)

    def _vectors(self, rows: range) -> Tensor:
        draw = torch.Generator().manual_seed(1 + rows.start // BATCH)
        kept = self.encoded[rows.start : min(rows.stop, self.real)].float()
        made = len(rows) - len(kept)
        chosen = torch.randint(len(self.encoded), (made,), generator=draw)
        parts = list(self.encoded[chosen].float().split(self.widths, dim=1))
        parts[0] = parts[0] + NOISE * torch.randn(parts[0].shape, generator=draw)
        columns = self.encoded.split(self.widths, dim=1)
        for place in range(1, len(parts)):
            others = torch.randint(len(self.encoded), (made,), generator=draw)
            swapped = torch.rand(made, 1, generator=draw) < SWAPPED
            parts[place] = torch.where(swapped, columns[place][others].float(), parts[place])
        return torch.cat([kept, torch.cat(parts, dim=1)])


def encode(folders: Sequence[Path], source: Path) -> None:
    """Encode all pictures of some folders into ``source`` with the shipped model, unless that was done
    before.
    """
    if source.exists():
        return
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    pictures = [path for path in found if path.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise SystemExit(f"there is no {source} yet: name folders of pictures to encode with --pictures")
    ComposedRetriever.from_pretrained().build_index(pictures, source)


def queries(count: int, source: Path) -> Tensor:
    """Return queries [count, 1, D] of pictures and texts that change one or two attributes."""
    kept = source.parent / f"queries-{count}.npy"
    if not kept.exists():
        choice = random.Random(0)
        index = ExactIndex.open(source)
        payloads = [{**payload, "path": str(index.picture_path(payload))} for _, payload in index.entries()]
        composed = picture_queries(ComposedModel.from_pretrained(), choice.sample(payloads, count), choice)
        if composed is None:
            raise SystemExit("the encoded pictures are gone: queries are composed of them")
        np.save(kept, composed.numpy())
    return torch.from_numpy(np.load(kept))

"""Engines that are compared: ours and others', each built, opened and asked in the same way.

Each finds items by their row. What an engine cannot score by the rule it finds candidates for, by inner
products of a line an item (the mean of base tokens, and logarithms of probabilities), and our scorer orders
them; tokens are read from the file of ours then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from benchmarks.index.material import TOKENS, Material, distributions
from torch import Tensor

from dqecir.index.contract import Index, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.index.prefetch import PREFETCHES
from dqecir.methods.score_rules import SMOOTHING
from dqecir.methods.scoring import top_scores

BEST = 10
WHERES: dict[str, str | None] = {"everything": None, "10 %": "tenth = 3", "1 %": "hundredth = 7"}
MODULO = {"10 %": (10, 3), "1 %": (100, 7)}


class Rival(ABC):
    """An engine in its own process: ``build`` in one, ``open`` and ``search`` in another."""

    largest: ClassVar[int] = 10**9
    """Items beyond which it is not run, because that takes too long."""

    def __init__(self, work: Path, material: Material) -> None:
        """``work`` holds ``exact/``, our index of the same items."""
        self.work, self.material = work, material

    @abstractmethod
    def folder(self) -> Path:
        """Where it keeps what it built."""

    @abstractmethod
    def build(self) -> None:
        """Write it."""

    @abstractmethod
    def open(self) -> None:
        """Make it ready to be asked."""

    @abstractmethod
    def search(self, query: Tensor, where: str) -> Sequence[int]:
        """Rows of the ten best of one query [n_q, D]."""


class Exact(Rival):
    """Ours, every item scored."""

    settings: SearchSettings | None = None
    index: Index

    def folder(self) -> Path:
        return self.work / "exact"

    def build(self) -> None:
        ExactIndex.build(self.folder(), self.material.header, self.material.batches())

    def open(self) -> None:
        self.index = ExactIndex.open(self.folder()).with_settings(self.settings)

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        text = WHERES[where]
        [hits] = self.index.search(query[None], BEST, where=parse_filter(text) if text else None)
        return [int(hit.id) for hit in hits]


class Sketched(Exact):
    """Ours, candidates from the sketch; its build is the making of the sketch alone."""

    candidates: ClassVar[int]

    def build(self) -> None:
        ExactIndex.open(self.folder()).configure(self._chosen())

    def open(self) -> None:
        self.settings = self._chosen()
        super().open()

    def _chosen(self) -> SearchSettings:
        # As many are scored in any case.
        return SearchSettings(candidates=self.candidates, exact_up_to=self.candidates)


def sketched(count: int) -> type[Rival]:
    """The sketch with another number of candidates."""
    return type(f"Sketched{count}", (Sketched,), {"candidates": count})


class _OnTokens(Rival):
    """What reads our file of tokens."""

    tokens: np.ndarray[Any, np.dtype[np.float16]]

    def open(self) -> None:
        [path] = (self.work / "exact").glob("s*/tokens.npy")
        self.tokens = np.load(path, mmap_mode="c")

    def allowed(self, where: str) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """Rows that a filter leaves; none for all."""
        if where not in MODULO:
            return None
        step, rest = MODULO[where]
        return np.arange(rest, self.material.count, step)

    def ordered(self, query: Tensor, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Sequence[int]:
        """The ten best of candidates, by our scorer."""
        rows = np.sort(rows)
        tokens = torch.from_numpy(np.take(self.tokens, rows, axis=0))
        _, places = top_scores(query[None], tokens, BEST, self.material.rule)
        return rows[places[0].numpy()].tolist()


class NumpyScan(_OnTokens):
    """Every item scored by NumPy, a part at a time."""

    def folder(self) -> Path:
        return self.work / "exact"

    def build(self) -> None:
        """It reads the file of tokens that is there."""

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        rows = self.allowed(where)
        count = self.material.count if rows is None else len(rows)
        vectors = query.numpy()
        scores = np.empty(count, dtype=np.float32)
        for start in range(0, count, 4096):
            end = min(start + 4096, count)
            part = self.tokens[start:end] if rows is None else self.tokens[rows[start:end]]
            scores[start:end] = self._scores(vectors, part.astype(np.float32))
        best = np.argpartition(-scores, BEST)[:BEST]
        best = best[np.argsort(-scores[best], kind="stable")]
        return (best if rows is None else rows[best]).tolist()

    def _scores(self, query: Any, part: Any) -> Any:
        count = len(query) - 1
        base = (part[:, : TOKENS - count].reshape(-1, part.shape[2]) @ query[0]).reshape(len(part), -1)
        total = base.max(axis=1)
        for place in range(count):
            wanted = query[1 + place]
            mass = wanted.sum()
            if mass > 0:
                fits = part[:, TOKENS - count + place] @ (wanted / mass)
                total = total + mass * np.log(fits + SMOOTHING)
        return total


class Faiss(_OnTokens):
    """FAISS IVF-SQ8: over tokens, grouped by item, for a maximum; over lines and scored again otherwise."""

    probes: ClassVar[int] = 64
    candidates: ClassVar[int] = 1000

    def folder(self) -> Path:
        return self.work / "faiss"

    @property
    def by_tokens(self) -> bool:
        return self.material.rule == "max_t"

    def build(self) -> None:
        import faiss

        self.folder().mkdir(exist_ok=True)
        super().open()
        count = self.material.count * (TOKENS if self.by_tokens else 1)
        lists = int(min(4096, max(64, 4 * count**0.5)))
        taught = min(len(self.tokens), 40 * lists // (TOKENS if self.by_tokens else 1))
        sample = self._vectors(np.sort(np.random.default_rng(0).choice(len(self.tokens), taught, False)))
        found = faiss.index_factory(sample.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        found.train(sample)
        for start in range(0, len(self.tokens), 20_000):
            found.add(self._vectors(np.arange(start, min(start + 20_000, len(self.tokens)))))
        faiss.write_index(found, str(self.folder() / "index"))

    def open(self) -> None:
        import faiss

        super().open()
        self.found = faiss.read_index(str(self.folder() / "index"))
        self.chosen = {where: self._selector(where) for where in MODULO}

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        import faiss

        how = faiss.SearchParametersIVF(nprobe=self.probes)
        if where in MODULO:
            how = faiss.SearchParametersIVF(nprobe=self.probes, sel=self.chosen[where][0])
        if self.by_tokens:
            _, found = self.found.search(query.numpy(), BEST * TOKENS, params=how)
            return list(dict.fromkeys(row // TOKENS for row in found[0].tolist() if row >= 0))[:BEST]
        line = PREFETCHES[self.material.rule].question(query, len(query) - 1)[self._kept()][None].numpy()
        _, found = self.found.search(line, self.candidates, params=how)
        return self.ordered(query, found[0][found[0] >= 0])

    def _vectors(self, rows: Any) -> Any:
        tokens = torch.from_numpy(np.take(self.tokens, rows, axis=0)).float()
        if self.by_tokens:
            return tokens.flatten(0, 1).numpy()
        line = PREFETCHES[self.material.rule].line(tokens, self._columns())
        return np.ascontiguousarray(line[:, self._kept()].numpy())

    def _columns(self) -> int:
        return distributions(torch.from_numpy(self.tokens[:1000]))

    def _kept(self) -> Tensor:
        """Numbers of a line that are not the same for all items: values beyond a column's last are none."""
        if not hasattr(self, "_kept_places"):
            some = torch.from_numpy(np.array(self.tokens[:5000])).float()
            line = PREFETCHES[self.material.rule].line(some, self._columns())
            self._kept_places = (line.amax(dim=0) > line.amin(dim=0)).nonzero()[:, 0]
        return self._kept_places

    def _selector(self, where: str) -> Any:
        import faiss

        rows = self.allowed(where)
        assert rows is not None
        if self.by_tokens:
            rows = (rows[:, None] * TOKENS + np.arange(TOKENS)).ravel()
        bits = np.zeros(self.material.count * (TOKENS if self.by_tokens else 1), dtype=bool)
        bits[rows] = True
        packed = np.packbits(bits, bitorder="little")
        # The selector points at the bits, so that they are kept beside it.
        return faiss.IDSelectorBitmap(packed), packed


class Lance(_OnTokens):
    """LanceDB without an index: multivectors with cosines for a maximum, lines otherwise."""

    largest = 100_000

    def folder(self) -> Path:
        return self.work / "lance"

    def build(self) -> None:
        import lancedb
        import pyarrow

        super().open()
        width = self.tokens.shape[2]
        base = lancedb.connect(str(self.folder()))
        kind: Any = pyarrow.list_(pyarrow.list_(pyarrow.float16(), width))
        columns = distributions(torch.from_numpy(self.tokens[:1000]))
        if self.material.rule != "max_t":
            width = len(PREFETCHES[self.material.rule].line(torch.zeros(1, TOKENS, width), columns)[0])
            kind = pyarrow.list_(pyarrow.float32(), width)
        schema = pyarrow.schema(
            [("row", pyarrow.int64()), ("tenth", pyarrow.int64()), ("hundredth", pyarrow.int64())]
        )
        table = base.create_table("items", schema=schema.append(pyarrow.field("vector", kind)))
        for start in range(0, len(self.tokens), 5000):
            rows = np.arange(start, min(start + 5000, len(self.tokens)))
            part = np.array(self.tokens[rows])
            if self.material.rule == "max_t":
                flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.ravel()), width)
                vectors = pyarrow.ListArray.from_arrays(np.arange(0, len(flat) + 1, TOKENS), flat)
            else:
                line = PREFETCHES[self.material.rule].line(torch.from_numpy(part).float(), columns)
                vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(line.numpy().ravel()), width)
            table.add(
                pyarrow.table({"row": rows, "tenth": rows % 10, "hundredth": rows % 100, "vector": vectors})
            )

    def open(self) -> None:
        import lancedb

        super().open()
        self.table = lancedb.connect(str(self.folder())).open_table("items")

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        by_tokens = self.material.rule == "max_t"
        line = query if by_tokens else PREFETCHES[self.material.rule].question(query, len(query) - 1)
        asked = self.table.search(line.numpy().astype(np.float16) if by_tokens else line.numpy())
        asked = asked.distance_type("cosine" if by_tokens else "dot").limit(BEST if by_tokens else 1000)
        if WHERES[where]:
            asked = asked.where(WHERES[where], prefilter=True)
        rows = asked.select(["row", "_distance"]).to_arrow()["row"].to_numpy()
        return rows.tolist() if by_tokens else self.ordered(query, rows)


RIVALS: dict[str, type[Rival]] = {
    "ours, exact": Exact,
    "ours, sketch of 100": sketched(100),
    "ours, sketch of 300": sketched(300),
    "ours, sketch of 1,000": sketched(1_000),
    "ours, sketch of 3,000": sketched(3_000),
    "ours, sketch of 10,000": sketched(10_000),
    "FAISS IVF-SQ8": Faiss,
    "NumPy scan": NumpyScan,
    "LanceDB": Lance,
}

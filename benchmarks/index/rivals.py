"""Engines to compare, dqecir's and others; each is built, opened and queried in the same way.

Each returns items by their rows. Other engines read the vectors from dqecir's index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from benchmarks.index.material import Material
from numpy.typing import NDArray
from torch import Tensor

from dqecir.index.contract import Index, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.search.audit import audit

BEST = 10
WHERES: dict[str, str | None] = {
    "everything": None,
    "10 %": "tenth = 3",
    "1 %": "hundredth = 7",
    "0.1 %": "thousandth = 11",
}
MODULO = {"10 %": (10, 3), "1 %": (100, 7), "0.1 %": (1000, 11)}


class Rival(ABC):
    """An engine in separate processes: ``build`` in one, ``open`` and ``search`` in another."""

    largest: ClassVar[int] = 10**9
    """Items beyond which it is not run, because that takes too long."""

    def __init__(self, work: Path, material: Material) -> None:
        """``work`` holds ``exact/``, our index of the same items."""
        self.work, self.material = work, material

    @abstractmethod
    def folder(self) -> Path:
        """The folder of its index."""

    @abstractmethod
    def build(self) -> None:
        """Build the index."""

    @abstractmethod
    def open(self) -> None:
        """Open the index for queries."""

    @abstractmethod
    def search(self, query: Tensor, where: str) -> Sequence[int]:
        """Return the rows of the ten best results of one query [1, D]."""


class Exact(Rival):
    """The engine ``exact`` of dqecir, which scores every item."""

    index: Index
    settings: SearchSettings | None = None

    def folder(self) -> Path:
        return self.work / "exact"

    def build(self) -> None:
        ExactIndex.build(self.folder(), self.material.header, self.material.batches())

    def open(self) -> None:
        index = ExactIndex.open(self.folder()).with_settings(self.settings)
        assert index is not None
        self.index = index

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        text = WHERES[where]
        [hits] = self.index.search(query[None], BEST, where=parse_filter(text) if text else None)
        return [int(hit.id) for hit in hits]


class Quick(Exact):
    """Ours, the candidates that an audit on other queries chose, scored; the audit counts as building."""

    def build(self) -> None:
        index = ExactIndex.open(self.folder())
        index.configure(audit(index, None, seed=1).recommended)

    def open(self) -> None:
        self.index = ExactIndex.open(self.folder())


class Faiss(Rival):
    """An index of FAISS, of float32 vectors and inner products."""

    kind: ClassVar[str]
    """What its factory calls it."""
    settings: ClassVar[dict[str, int]] = {}
    """How it is searched."""

    def folder(self) -> Path:
        return self.work / "faiss"

    def build(self) -> None:
        import faiss

        self.folder().mkdir(exist_ok=True)
        vectors = stored(self.work)
        found = faiss.index_factory(vectors.shape[1], self.kind, faiss.METRIC_INNER_PRODUCT)
        taught = np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), 200_000), False))
        found.train(vectors[taught].astype(np.float32))
        for start in range(0, len(vectors), 20_000):
            found.add(vectors[start : start + 20_000].astype(np.float32))
        faiss.write_index(found, str(self.folder() / "index"))

    def open(self) -> None:
        import faiss

        self.found = faiss.read_index(str(self.folder() / "index"))
        for name, value in self.settings.items():
            faiss.ParameterSpace().set_index_parameter(self.found, name, value)
        self.chosen = {where: self._selector(where) for where in MODULO}

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        _, found = self.found.search(query.numpy(), BEST, params=self._parameters(where))
        return [row for row in found[0].tolist() if row >= 0]

    def _parameters(self, where: str) -> Any:
        import faiss

        return None if where not in MODULO else faiss.SearchParameters(sel=self.chosen[where][0])

    def _selector(self, where: str) -> Any:
        import faiss

        step, rest = MODULO[where]
        bits = np.zeros(self.material.count, dtype=np.bool_)
        bits[rest::step] = True
        packed = np.packbits(bits, bitorder="little")
        # The selector points at the bits, so that they are kept beside it.
        return faiss.IDSelectorBitmap(packed), packed


class Flat(Faiss):
    """FAISS with a comparison of every vector."""

    kind = "Flat"


class InvertedLists(Faiss):
    """FAISS with lists of near vectors, eight bits for each number."""

    kind = "IVF1024,SQ8"

    def _parameters(self, where: str) -> Any:
        import faiss

        selector = self.chosen[where][0] if where in MODULO else None
        return faiss.SearchParametersIVF(nprobe=64, sel=selector)


class Graph(Faiss):
    """FAISS with a graph over vectors, eight bits for each number."""

    kind = "HNSW16,SQ8"
    largest = 100_000

    def _parameters(self, where: str) -> Any:
        import faiss

        selector = self.chosen[where][0] if where in MODULO else None
        return faiss.SearchParametersHNSW(efSearch=400, sel=selector)


class FastScan(Faiss):
    """FAISS with four bits for every two numbers, scanned completely; the best are refined by float32
    vectors.

    It takes no selector: behind a filter it finds among all.
    """

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"PQ{self.material.header.size // 2}x4fs,RFlat"

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        import faiss

        how = faiss.IndexRefineSearchParameters(k_factor=1000)
        _, found = self.found.search(query.numpy(), BEST, params=how)
        return found[0].tolist()


class Lance(Rival):
    """LanceDB without an index."""

    largest = 100_000

    def folder(self) -> Path:
        return self.work / "lance"

    def build(self) -> None:
        import lancedb
        import pyarrow

        vectors = stored(self.work)
        kind = pyarrow.list_(pyarrow.float32(), vectors.shape[1])
        numbers = [(name, pyarrow.int64()) for name in ("row", "tenth", "hundredth", "thousandth")]
        schema = pyarrow.schema([*numbers, ("vector", kind)])
        table = lancedb.connect(str(self.folder())).create_table("items", schema=schema)
        for start in range(0, len(vectors), 5000):
            part = vectors[start : start + 5000].astype(np.float32)
            rows = np.arange(start, start + len(part))
            flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.ravel()), vectors.shape[1])
            steps = {"tenth": rows % 10, "hundredth": rows % 100, "thousandth": rows % 1000}
            table.add(pyarrow.table({"row": rows, **steps, "vector": flat}))

    def open(self) -> None:
        import lancedb

        self.table = lancedb.connect(str(self.folder())).open_table("items")

    def search(self, query: Tensor, where: str) -> Sequence[int]:
        asked = self.table.search(query[0].numpy()).distance_type("dot").limit(BEST)
        if WHERES[where]:
            asked = asked.where(WHERES[where], prefilter=True)
        return asked.select(["row", "_distance"]).to_arrow()["row"].to_numpy().tolist()


def stored(work: Path) -> NDArray[np.float16]:
    """Return the vectors [N, D] of dqecir's index, memory-mapped."""
    [path] = (work / "exact").glob("s*/tokens.npy")
    return np.load(path, mmap_mode="r")[:, 0]


RIVALS: dict[str, type[Rival]] = {
    "ours, exact": Exact,
    "ours, quick": Quick,
    "FAISS flat": Flat,
    "FAISS IVF-SQ8": InvertedLists,
    "FAISS HNSW-SQ8": Graph,
    "FAISS fast scan": FastScan,
    "LanceDB": Lance,
}

"""Exact search: every item's tokens in float16 on disk, memory-mapped, all of them scored.

It depends on nothing, and what it finds is right by definition: the oracle of the other engines.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from torch import Tensor

from dqecir.data.triplets import DataError
from dqecir.files import whole_folder, write_json
from dqecir.index.engine import EngineError, Hit, Index, IndexHeader, ItemBatch, check_replaceable
from dqecir.scoring import top_scores
from dqecir.strict import Strict, parse_settings

FORMAT = 1


class Manifest(Strict):
    """What ``manifest.json`` says of the files beside it."""

    format: int
    engine: str
    items: int
    token_bytes: int
    """Size of ``tokens.npy``."""
    token_sha256: str
    """Of the numbers in ``tokens.npy``, without its head."""
    items_sha256: str
    """Of ``items.json``."""
    header: IndexHeader


class ExactIndex(Index):
    """Items of one model in ``items.json`` and ``tokens.npy`` [N, n_t, D], under a manifest."""

    def __init__(
        self, header: IndexHeader, ids: Sequence[str], payloads: Sequence[Mapping[str, Any]], tokens: Tensor
    ) -> None:
        self.header = header
        self.ids = tuple(ids)
        self.payloads = tuple(payloads)
        self.tokens = tokens
        self._places = {item: place for place, item in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._places

    def search(
        self, queries: Tensor, k: int, exclude: Sequence[Sequence[str]] | None = None
    ) -> list[list[Hit]]:
        self.check_search(queries, k, exclude)
        left_out = None
        if exclude is not None:
            left_out = torch.zeros(len(queries), len(self.ids), dtype=torch.bool)
            for row, ids in enumerate(exclude):
                left_out[row, [self._places[item] for item in ids if item in self._places]] = True
        scores, places = top_scores(queries, self.tokens, k, self.header.score_rule, left_out)
        return [
            [
                Hit(self.ids[place], value, self.payloads[place])
                for value, place in zip(row_scores, row_places, strict=True)
                if value > -float("inf")
            ]
            for row_scores, row_places in zip(scores.tolist(), places.tolist(), strict=True)
        ]

    @classmethod
    def build(cls, folder: Path, header: IndexHeader, batches: Iterator[ItemBatch]) -> ExactIndex:
        check_replaceable(folder)
        with whole_folder(folder) as draft:
            payloads: dict[str, dict[str, Any]] = {}
            digest = hashlib.sha256()
            with (draft / "tokens.npy").open("wb") as file:
                _write_head(file, 0, header)
                for batch in batches:
                    data = batch.as_stored(header).contiguous().numpy().tobytes()
                    for item, payload in zip(batch.ids, batch.payloads, strict=True):
                        if item in payloads:
                            raise EngineError(
                                f"the item {item!r} comes twice: every item needs an id of its own"
                            )
                        payloads[item] = dict(payload)
                    file.write(data)
                    digest.update(data)
                if not payloads:
                    raise EngineError("there is nothing to index: no image could be used")
                file.seek(0)
                _write_head(file, len(payloads), header)
                file.flush()
                os.fsync(file.fileno())
            write_json(draft / "items.json", {"ids": list(payloads), "payloads": list(payloads.values())})
            manifest = Manifest(
                format=FORMAT,
                engine="exact",
                items=len(payloads),
                token_bytes=(draft / "tokens.npy").stat().st_size,
                token_sha256=digest.hexdigest(),
                items_sha256=hashlib.sha256((draft / "items.json").read_bytes()).hexdigest(),
                header=header,
            )
            write_json(draft / "manifest.json", manifest.model_dump(mode="json"))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> ExactIndex:
        manifest = _read_manifest(folder)
        data = _read(folder, "items.json")
        path = folder / "tokens.npy"
        if not path.exists() or path.stat().st_size != manifest.token_bytes:
            raise EngineError(f"{path} is missing or cut off: build the index again")
        if hashlib.sha256(data).hexdigest() != manifest.items_sha256:
            raise EngineError(f"{folder}/items.json does not belong to its manifest: build the index again")
        items = json.loads(data)
        try:
            # Copy-on-write, because torch asks for memory that it could write to.
            tokens = np.load(path, mmap_mode="c")
        except ValueError as error:
            raise EngineError(f"{path} is damaged ({error}): build the index again") from None
        shape = (manifest.items, manifest.header.tokens, manifest.header.size)
        if tokens.shape != shape or tokens.dtype != np.float16:
            raise EngineError(f"{path} does not belong to its manifest: build the index again")
        return cls(manifest.header, items["ids"], items["payloads"], torch.from_numpy(tokens))

    @staticmethod
    def verify(folder: Path) -> None:
        """Read every token and raise :class:`EngineError` where one is not what was written.

        ``open`` does not do this: it reads no token that is not searched.
        """
        index = ExactIndex.open(folder)
        digest = hashlib.sha256()
        for part in index.tokens.split(4096):
            digest.update(part.contiguous().numpy().tobytes())
        if digest.hexdigest() != _read_manifest(folder).token_sha256:
            raise EngineError(f"{folder}/tokens.npy is damaged: build the index again")


def _write_head(file: BinaryIO, items: int, header: IndexHeader) -> None:
    """The head of an array file; numpy leaves room in it, so its length is the same for any count."""
    shape = (items, header.tokens, header.size)
    write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise EngineError(
            f"{folder} is no index, or half of one: {name} is missing; build it again"
        ) from None
    except OSError as error:
        raise EngineError(f"{folder / name} cannot be read ({error.strerror})") from None


def _read_manifest(folder: Path) -> Manifest:
    path = folder / "manifest.json"
    try:
        data = json.loads(_read(folder, path.name))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise EngineError(f"{path} is damaged ({error}): build the index again") from None
    if not isinstance(data, dict) or data.get("engine") != "exact" or data.get("format") != FORMAT:
        raise EngineError(f"{folder} is not an exact index of this version: build it again")
    try:
        return parse_settings(data, Manifest, str(path))
    except DataError as error:
        raise EngineError(f"{error}\nBuild the index again.") from None

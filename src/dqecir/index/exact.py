"""Exact search: every item's tokens in float16 on disk, memory-mapped, all of them scored.

It depends on nothing, and what it finds is right by definition: the oracle of the other engines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dqecir.files import whole_folder, write_json
from dqecir.index.engine import EngineError, Hit, Index, IndexHeader, ItemBatch
from dqecir.scoring import top_scores
from dqecir.strict import parse_settings

FORMAT = 1


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
        if k < 1:
            raise EngineError(f"k must be at least 1, not {k}")
        if queries.shape[-1] != self.header.size:
            raise EngineError(
                f"the query has width {queries.shape[-1]} and the index {self.header.size}: "
                "they come from different models"
            )
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
        with whole_folder(folder) as draft:
            ids: list[str] = []
            payloads: list[Mapping[str, Any]] = []
            with (draft / "tokens.raw").open("wb") as raw:
                for batch in batches:
                    if batch.tokens.shape[1:] != (header.tokens, header.size):
                        raise EngineError(
                            f"tokens of shape {list(batch.tokens.shape[1:])} do not belong into an index of "
                            f"{[header.tokens, header.size]}"
                        )
                    ids.extend(batch.ids)
                    payloads.extend(batch.payloads)
                    raw.write(batch.tokens.half().contiguous().numpy().tobytes())
            if not ids:
                raise EngineError("there is nothing to index: no image could be used")
            if len(set(ids)) != len(ids):
                twice = next(item for item in ids if ids.count(item) > 1)
                raise EngineError(f"the item {twice!r} comes twice: every item needs an id of its own")
            _as_array(draft, (len(ids), header.tokens, header.size))
            write_json(
                draft / "items.json", {"ids": ids, "payloads": [dict(payload) for payload in payloads]}
            )
            write_json(
                draft / "manifest.json",
                {
                    "format": FORMAT,
                    "engine": "exact",
                    "items": len(ids),
                    "token_bytes": (draft / "tokens.npy").stat().st_size,
                    "header": header.model_dump(mode="json"),
                },
            )
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> ExactIndex:
        manifest = _read_json(folder / "manifest.json", folder)
        if manifest.get("engine") != "exact" or manifest.get("format") != FORMAT:
            raise EngineError(f"{folder} is not an exact index of this version: build it again")
        header = parse_settings(manifest["header"], IndexHeader, f"{folder}/manifest.json")
        items = _read_json(folder / "items.json", folder)
        path = folder / "tokens.npy"
        if not path.exists() or path.stat().st_size != manifest["token_bytes"]:
            raise EngineError(f"{path} is missing or cut off: build the index again")
        if len(items["ids"]) != manifest["items"]:
            raise EngineError(f"{folder}/items.json does not belong to its manifest: build the index again")
        # Copy-on-write, because torch asks for memory that it could write to.
        tokens = torch.from_numpy(np.load(path, mmap_mode="c"))
        return cls(header, items["ids"], items["payloads"], tokens)


def _as_array(draft: Path, shape: tuple[int, int, int]) -> None:
    """Turn the raw bytes that were streamed into an array file, without reading them all."""
    raw = np.memmap(draft / "tokens.raw", dtype=np.float16, mode="r", shape=shape)
    tokens = open_memmap(draft / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
    for start in range(0, shape[0], 4096):
        tokens[start : start + 4096] = raw[start : start + 4096]
    tokens.flush()
    del raw
    (draft / "tokens.raw").unlink()


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(
            f"{folder} is no index, or half of one: {path.name} is missing; build it again"
        ) from None
    except json.JSONDecodeError as error:
        raise EngineError(f"{path} is damaged ({error}): build the index again") from None
    if not isinstance(data, dict):
        raise EngineError(f"{path} is not what dqecir writes: build the index again")
    return data

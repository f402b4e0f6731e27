"""Where stored tokens are read from: memory-mapped files, or one tensor on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.encoders.store.precision import Coded


@dataclass(frozen=True)
class Shard:
    """The R rows of a file: ``codes`` [R, V, M, W], and ``scales`` [R, V, M] if the number type has them."""

    codes: NDArray[np.generic]
    scales: NDArray[np.float32] | None = None


class Rows(Protocol):
    """The interface of stored tokens; a row is an image."""

    @property
    def views(self) -> int:
        """Number of views of each row."""
        ...

    @property
    def row_bytes(self) -> int:
        """Size of a row with all its views, in bytes."""
        ...

    def take(self, rows: Tensor, views: Tensor) -> Coded:
        """Return the stored tokens [n, M, W] of ``rows`` [n] in ``views`` [n], both int64."""
        ...


class ShardedRows:
    """Rows in files with ``per_shard`` rows each; the last file may have fewer."""

    def __init__(self, shards: Sequence[Shard], per_shard: int) -> None:
        self.shards, self.per_shard = tuple(shards), per_shard

    @property
    def views(self) -> int:
        return int(self.shards[0].codes.shape[1])

    @property
    def row_bytes(self) -> int:
        first = self.shards[0]
        return first.codes[0].nbytes + (0 if first.scales is None else first.scales[0].nbytes)

    def take(self, rows: Tensor, views: Tensor) -> Coded:
        wanted, seen = rows.numpy(), views.numpy()
        first = self.shards[0]
        if len(self.shards) == 1:
            scales = None if first.scales is None else torch.from_numpy(first.scales[wanted, seen])
            return Coded(torch.from_numpy(first.codes[wanted, seen]), scales)
        # Read each file once, with its rows in order.
        order = np.argsort(wanted, kind="stable")
        owners, places = np.divmod(wanted[order], self.per_shard)
        present, starts = np.unique(owners, return_index=True)
        codes = np.empty((len(wanted), *first.codes.shape[2:]), dtype=first.codes.dtype)
        kept = None if first.scales is None else np.empty(codes.shape[:2], dtype=np.float32)
        for owner, start, end in zip(present, starts, [*starts[1:], len(wanted)], strict=True):
            shard, some = self.shards[owner], order[start:end]
            codes[some] = shard.codes[places[start:end], seen[some]]
            if kept is not None and shard.scales is not None:
                kept[some] = shard.scales[places[start:end], seen[some]]
        return Coded(torch.from_numpy(codes), None if kept is None else torch.from_numpy(kept))


class HeldRows:
    """Rows in one tensor on a device: ``codes`` [N, V, M, W], and ``scales`` [N, V, M] if there are any."""

    def __init__(self, coded: Coded) -> None:
        self.coded = coded

    @classmethod
    def of(cls, rows: Rows, wanted: Tensor, device: torch.device) -> HeldRows:
        """Copy the rows ``wanted`` [N] with all their views to a device, in parts."""
        views = torch.arange(rows.views)
        codes: Tensor | None = None
        scales: Tensor | None = None
        size = max(1, PIECE // rows.row_bytes)
        for start in range(0, len(wanted), size):
            some = wanted[start : start + size]
            piece = rows.take(some.repeat_interleave(len(views)), views.repeat(len(some)))
            if codes is None:
                shape = (len(wanted), len(views))
                codes = piece.codes.new_empty(*shape, *piece.codes.shape[1:], device=device)
                if piece.scales is not None:
                    scales = piece.scales.new_empty(*shape, *piece.scales.shape[1:], device=device)
            codes[start : start + size] = piece.codes.unflatten(0, (len(some), len(views))).to(device)
            if scales is not None and piece.scales is not None:
                scales[start : start + size] = piece.scales.unflatten(0, (len(some), len(views))).to(device)
        assert codes is not None
        return cls(Coded(codes, scales))

    @property
    def views(self) -> int:
        return int(self.coded.codes.shape[1])

    @property
    def row_bytes(self) -> int:
        codes, scales = self.coded.codes, self.coded.scales
        return codes[0].nbytes + (0 if scales is None else scales[0].nbytes)

    def take(self, rows: Tensor, views: Tensor) -> Coded:
        codes, scales = self.coded.codes, self.coded.scales
        rows, views = rows.to(codes.device), views.to(codes.device)
        return Coded(codes[rows, views], None if scales is None else scales[rows, views])


PIECE = 64 * 2**20
"""Most bytes that are copied to a device at a time; a larger row is copied whole."""

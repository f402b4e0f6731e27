"""Projected vectors: the first principal directions of a segment's vectors, which choose candidates quickly.

Where a few directions hold nearly all of the variance, the order of inner products in them is nearly that of
whole vectors. A search multiplies these short vectors, and the scan scores the best of them exactly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dqecir.io.files import sync_folder

if TYPE_CHECKING:
    from torch import Tensor

PROJECTED, DIRECTIONS = "projected.npy", "directions.npy"

_HELD = 0.998
"""Share of the variance that the directions hold."""

_STEP = 16
"""Their number is a multiple of it: products of such rows are quickest."""

_LEARNED = 20_000
"""Vectors from which directions are learned."""

_BLOCK = 8_192
"""Vectors projected at once."""

_MOST = 60_000.0
"""Larger numbers are cut, because float16 holds none."""


@dataclass(frozen=True)
class ProjectedVectors:
    """The vectors of a segment in few directions."""

    vectors: NDArray[np.float16]
    """[N, d], perhaps memory-mapped; centred, which changes no order."""
    directions: NDArray[np.float32]
    """[D, d], orthonormal."""

    def candidates(
        self, query: Tensor, count: int, allowed: NDArray[np.bool_], added: Tensor | None = None
    ) -> NDArray[np.bool_]:
        """Mark [N] the ``count`` allowed rows of the largest products with a query [D].

        ``added`` [1, N] is added to the products.
        """
        import torch

        short = query.float() @ torch.from_numpy(self.directions)
        # No product overflows, and the largest are far from the least that float16 holds.
        scale = 1 / max(float(short.norm()), 1e-30)
        products = torch.mv(torch.from_numpy(self.vectors), (short * scale).half()).float()
        if added is not None:
            products += scale * added[0]
        if not allowed.all():
            products.masked_fill_(torch.from_numpy(~allowed), -torch.inf)
        chosen = np.zeros(len(products), dtype=np.bool_)
        chosen[products.topk(min(count, len(products))).indices.numpy()] = True
        return chosen & allowed


def project(tokens: NDArray[np.float16]) -> ProjectedVectors:
    """Learn the directions of tokens [N, 1, D] from some of them, and project all, a part at a time."""
    whole = tokens[:, 0]
    some = whole[:: -(-len(whole) // _LEARNED)].astype(np.float32)
    mean = some.mean(axis=0)
    variances, directions = np.linalg.eigh((some - mean).T @ (some - mean))
    held = np.cumsum(variances[::-1]) / max(float(variances.sum()), 1e-30)
    count = min(-(-(int((held < _HELD).sum()) + 1) // _STEP) * _STEP, whole.shape[1])
    directions = np.ascontiguousarray(directions[:, ::-1][:, :count])
    vectors = np.empty((len(whole), count), dtype=np.float16)
    for start in range(0, len(whole), _BLOCK):
        part = slice(start, start + _BLOCK)
        vectors[part] = np.clip((whole[part].astype(np.float32) - mean) @ directions, -_MOST, _MOST)
    return ProjectedVectors(vectors, directions)


def write_projected(place: Path, projected: ProjectedVectors) -> str:
    """Write the files into the folder of a segment, and return their SHA-256."""
    for name, array in ((PROJECTED, projected.vectors), (DIRECTIONS, projected.directions)):
        with (place / name).open("wb") as file:
            np.save(file, array)
    sync_folder(place)
    return projected_digest(projected)


def read_projected(place: Path, items: int, size: int) -> ProjectedVectors | None:
    """Open the files of a segment; None where they are missing, cut off or of other items."""
    try:
        vectors, directions = (np.load(place / name, mmap_mode="c") for name in (PROJECTED, DIRECTIONS))
    except (OSError, ValueError):
        return None
    if vectors.shape != (items, directions.shape[-1]) or directions.shape[:-1] != (size,):
        return None
    if (vectors.dtype, directions.dtype) != (np.float16, np.float32):
        return None
    return ProjectedVectors(np.asarray(vectors), np.asarray(directions))


def projected_digest(projected: ProjectedVectors) -> str:
    """Return the SHA-256 of the numbers."""
    digest = hashlib.sha256(projected.directions.tobytes())
    for start in range(0, len(projected.vectors), _BLOCK):
        digest.update(projected.vectors[start : start + _BLOCK].tobytes())
    return digest.hexdigest()

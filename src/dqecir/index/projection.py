"""Projected vectors: vectors in few dimensions with four bits a pair of numbers, to find candidates fast.

If a few principal directions hold nearly all of the variance, inner products in these directions have nearly
the same order as those of whole vectors. FAISS stores two of the projected numbers in four bits (product
quantization, "fast scan"), and multiplies a query with millions of vectors quickly; the best of them are then
scored exactly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dqecir.io.files import sync_folder

if TYPE_CHECKING:
    from torch import Tensor

PROJECTED, DIRECTIONS = "projected.faiss", "directions.npy"

NO_FAISS = "quicker searches need faiss, which is not installed: pip install 'dqecir[fast]'"

HELD = 0.999
"""Share of the variance that the chosen directions hold."""

STEP = 16
"""The number of directions is a multiple of this: matrix products with such rows are fastest."""

_LEARNED = 50_000
"""Largest number of vectors from which directions and codes are learned."""

_BITS = 4
"""Bits of a code, which stands for two numbers; FAISS is fastest with four bits."""

_BLOCK = 8_192
"""Number of vectors that are projected at a time."""


def has_faiss() -> bool:
    """Return whether FAISS is installed; without it, vectors are not projected."""
    return find_spec("faiss") is not None


@dataclass(frozen=True)
class ProjectedVectors:
    """The vectors of a segment, projected to d directions."""

    codes: Any
    """FAISS index of N vectors of width d; they are centred, which does not change the order of scores."""
    directions: NDArray[np.float32]
    """Orthonormal directions [D, d]."""

    def candidates(self, query: Tensor, count: int, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask [N] of about ``count`` candidates for a query [D].

        They are those of the ``allowed`` rows [N] whose projected inner product with the query is largest. If
        few rows are allowed, or fewer than ``count / 2`` of them are among the best of all rows, all allowed
        rows are returned.
        """
        items, found = len(allowed), int(allowed.sum())
        # FAISS searches all rows, so ask for so many that enough of them are likely to be allowed.
        asked = count * items // max(found, 1) + 1
        if 2 * asked > items:
            return allowed
        short = query.float().numpy() @ self.directions
        _, rows = self.codes.search(short[None], asked)
        chosen = np.zeros(items, dtype=np.bool_)
        chosen[rows[rows >= 0]] = True
        chosen &= allowed
        return chosen if 2 * int(chosen.sum()) >= count else allowed


def project(tokens: NDArray[np.float16]) -> ProjectedVectors:
    """Learn directions and codes from some of the tokens [N, 1, D], and return all of them projected."""
    import faiss

    whole = tokens[:, 0]
    some = whole[:: -(-len(whole) // _LEARNED)].astype(np.float32)
    mean = some.mean(axis=0)
    variances, directions = np.linalg.eigh((some - mean).T @ (some - mean))
    held = np.cumsum(variances[::-1]) / max(float(variances.sum()), 1e-30)
    needed = -(-(int((held < HELD).sum()) + 1) // STEP) * STEP
    count = max(min(needed, whole.shape[1] // 2 * 2), 1)
    directions = np.ascontiguousarray(directions[:, ::-1][:, :count])
    codes = faiss.IndexPQFastScan(count, -(-count // 2), _BITS, faiss.METRIC_INNER_PRODUCT)
    codes.pq.cp.min_points_per_centroid = 1
    # As many as there are codes are needed, so that a few vectors are repeated.
    codes.train(np.resize((some - mean) @ directions, (max(len(some), 1 << _BITS), count)))
    for start in range(0, len(whole), _BLOCK):
        codes.add((whole[start : start + _BLOCK].astype(np.float32) - mean) @ directions)
    return ProjectedVectors(codes, directions)


def write_projected(place: Path, projected: ProjectedVectors) -> str:
    """Write projected vectors into a segment's folder, and return the SHA-256 of the files."""
    import faiss

    with (place / PROJECTED).open("wb") as file:
        file.write(faiss.serialize_index(projected.codes).tobytes())
    with (place / DIRECTIONS).open("wb") as file:
        np.save(file, projected.directions)
    sync_folder(place)
    return projected_digest(place)


def read_projected(place: Path, digest: str | None) -> ProjectedVectors | None:
    """Read the projected vectors of a segment; None if a file is missing or changed, or without FAISS.

    ``digest`` is the SHA-256 of the files; None if there are none.
    """
    try:
        if digest is None or not has_faiss() or projected_digest(place) != digest:
            return None
    except OSError:
        return None
    import faiss

    codes = faiss.deserialize_index(np.fromfile(place / PROJECTED, dtype=np.uint8))
    return ProjectedVectors(codes, np.load(place / DIRECTIONS))


def projected_digest(place: Path) -> str:
    """Return the SHA-256 of a segment's files of projected vectors; raises ``OSError`` if one is missing."""
    digest = hashlib.sha256()
    for name in (DIRECTIONS, PROJECTED):
        digest.update((place / name).read_bytes())
    return digest.hexdigest()

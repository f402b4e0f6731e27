"""Image tokens, computed once by the frozen tower, kept on disk, gathered by integer id.

Tokens are kept as they are before ``ln_vision``, which is trained. A store belongs to one tower,
one preprocessing and one list of image files; another is refused. Building is resumed after a kill.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from dqecir.data.augmentation import random_views
from dqecir.data.images import Preprocessing, load_image
from dqecir.data.triplets import DataError
from dqecir.files import write_json
from dqecir.progress import track

BATCH = 64


class TokenStore:
    """Tokens [N, V, M, W] in float16 of N images in V views; view 0 is the picture as it is."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def views(self) -> int:
        """Views kept of every image."""
        return int(self.tokens.shape[1])

    def gather(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """Tokens [n, M, W] float32 of images ``ids`` [n], in ``views`` [n] or as they are."""
        rows = ids.numpy()
        chosen = self.tokens[rows, 0 if views is None else views.numpy()]
        return torch.from_numpy(np.ascontiguousarray(chosen)).float()

    @classmethod
    def build(
        cls,
        folder: Path,
        tower: Callable[[Tensor], Tensor],
        fingerprint: str,
        preprocessing: Preprocessing,
        paths: Sequence[Path],
        views: int = 1,
        quiet: bool = False,
    ) -> TokenStore:
        """Open the store in ``folder``, or make it, or finish making it.

        ``tower`` maps pixels [B, 3, S, S] to tokens [B, M, W]; ``fingerprint`` names its weights and
        preprocessing. Raises :class:`DataError` where the folder holds another model's tokens.
        """
        if not paths:
            raise DataError("there are no images to encode")
        wanted = {"tower": fingerprint, "images": content_hash(paths), "views": views}
        state = _read_state(folder, wanted)
        done = state["done"]
        if done == len(paths):
            return cls(np.load(folder / "tokens.npy", mmap_mode="r"))
        tokens = open_memmap(folder / "tokens.npy", mode="r+") if done else None
        for start in track(range(done, len(paths), BATCH), "encoding images", quiet=quiet):
            batch = _encode(paths[start : start + BATCH], tower, preprocessing, views, start)
            if tokens is None:
                shape = (len(paths), *batch.shape[1:])
                tokens = open_memmap(folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
            tokens[start : start + len(batch)] = batch
            tokens.flush()
            write_json(folder / "state.json", {**wanted, "done": start + len(batch)})
        return cls(np.load(folder / "tokens.npy", mmap_mode="r"))


class JoinedStore:
    """Several stores as one: the images of each after those of the one before."""

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self.stores = tuple(stores)
        self.ends = torch.tensor([len(store) for store in stores]).cumsum(0)

    @classmethod
    def of(cls, stores: Sequence[TokenStore]) -> Store:
        """The store itself where there is only one."""
        return stores[0] if len(stores) == 1 else cls(stores)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def gather(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """As :meth:`TokenStore.gather`."""
        owners = torch.searchsorted(self.ends, ids, right=True)
        result: Tensor | None = None
        for place, store in enumerate(self.stores):
            rows = (owners == place).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            start = int(self.ends[place]) - len(store)
            tokens = store.gather(ids[rows] - start, None if views is None else views[rows])
            if result is None:
                result = tokens.new_empty(len(ids), *tokens.shape[1:])
            result[rows] = tokens
        if result is None:
            raise DataError("no image was asked for")
        return result


Store = TokenStore | JoinedStore


def content_hash(paths: Sequence[Path]) -> str:
    """One name for the bytes of all files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _read_state(folder: Path, wanted: dict[str, object]) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.json"
    if not path.exists():
        return {"done": 0}
    state = json.loads(path.read_text())
    for key, value in wanted.items():
        if state.get(key) != value:
            raise DataError(
                f"{folder} keeps tokens of other {key} ({state.get(key)} where {value} is needed): "
                "remove the folder or name another"
            )
    return {"done": int(state["done"])}


def _encode(
    paths: Sequence[Path],
    tower: Callable[[Tensor], Tensor],
    preprocessing: Preprocessing,
    views: int,
    seed: int,
) -> np.ndarray:
    """Tokens [B, V, M, W] float16 of a few images; ``seed`` decides their random views."""
    pixels = torch.stack([preprocessing(load_image(path)) for path in paths])
    generator = torch.Generator().manual_seed(seed)
    tokens = [tower(pixels)]
    for _ in range(views - 1):
        plain = preprocessing.denormalised(pixels)
        tokens.append(tower(preprocessing.normalised(random_views(plain, generator))))
    return torch.stack(tokens, dim=1).half().cpu().numpy()

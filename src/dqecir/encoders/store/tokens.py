"""Stored image tokens: length, views, and ``gather``, which reads tokens by the images' numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.images import Preprocessing
from dqecir.data.picture_files import Refusal
from dqecir.encoders.store.encoding import Tower, content_hashes, encode_missing, usable_hashes
from dqecir.encoders.store.folder import Held, StoreIdentity, appending
from dqecir.encoders.store.precision import PrecisionName
from dqecir.encoders.store.rows import HeldRows, Rows, Shard, ShardedRows
from dqecir.errors import DataError, ImageError
from dqecir.io.progress import track


class TokenStore:
    """Image tokens [N, V, M, W] of N images in V views; view 0 is the original picture.

    ``tokens`` are an array [N, V, M, W], or rows; then ``places`` [N] is the row of each image.
    ``relative_error`` is the mean of ||stored - token|| / ||token||, the error of the number type.
    """

    def __init__(
        self,
        tokens: NDArray[np.generic] | Rows,
        places: Tensor | None = None,
        relative_error: float = 0.0,
    ) -> None:
        self.rows: Rows
        if isinstance(tokens, np.ndarray):
            self.rows = ShardedRows([Shard(tokens)], len(tokens))
            self.places = torch.arange(len(tokens))
        else:
            assert places is not None
            self.rows, self.places = tokens, places
        self.relative_error = relative_error

    def __len__(self) -> int:
        return len(self.places)

    @property
    def views(self) -> int:
        """The number of views of every image."""
        return self.rows.views

    @property
    def bytes(self) -> int:
        """Size of the stored tokens of all images, in bytes."""
        return len(self) * self.rows.row_bytes

    def gather(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """Return the tokens [n, M, W] in float32 of images ``ids`` [n] in ``views`` [n]. Default: view 0.

        They are on the device of the store: the CPU, unless :meth:`to` has moved them.
        """
        chosen = torch.zeros(len(ids), dtype=torch.int64) if views is None else views.cpu()
        return self.rows.take(self.places[ids.cpu()], chosen).decoded()

    def to(self, device: torch.device | str, budget: int) -> TokenStore:
        """Return a store with the tokens on ``device``.

        If they have more than ``budget`` bytes, return this store.
        """
        if self.bytes > budget:
            return self
        held = HeldRows.of(self.rows, self.places, torch.device(device))
        return TokenStore(held, torch.arange(len(self)), self.relative_error)

    @classmethod
    def build(
        cls,
        folder: Path,
        tower: Tower,
        fingerprint: str,
        preprocessing: Preprocessing,
        paths: Sequence[Path],
        views: int = 1,
        quiet: bool = False,
        precision: PrecisionName = "fp16",
    ) -> TokenStore:
        """Open the store in ``folder``, after encoding those images of ``paths`` that it does not have.

        ``tower`` maps normalised pixels [B, 3, S, S], float32 on the CPU, to tokens [B, M, W] on any device;
        ``fingerprint`` identifies its weights. Tokens of other images stay in the folder, so that several
        lists of images can share one. ``precision`` is the number type: ``int8`` needs half the bytes of
        ``fp16``. Raises :class:`DataError` if the folder was made with another tower, preprocessing, number
        type or number of views, if an image cannot be used, or if ``paths`` is empty.
        """
        if not paths:
            raise DataError("there are no images to encode: give at least one")
        identity = StoreIdentity(preprocessing.to_dict(), fingerprint, precision, views)
        images = dict(zip(hashes := content_hashes(paths), paths, strict=True))
        held = _held(folder, identity, images, tower, preprocessing, quiet)
        return cls._of(held, hashes, folder, identity)

    @classmethod
    def build_usable(
        cls,
        folder: Path,
        tower: Tower,
        fingerprint: str,
        preprocessing: Preprocessing,
        paths: Sequence[Path],
        refusals: list[Refusal],
        quiet: bool = False,
    ) -> tuple[list[int], TokenStore]:
        """Build as :meth:`build`, but leave out pictures that cannot be used.

        Returns the positions in ``paths`` of the pictures that can be used, and their store, in fp16 with one
        view. The others are added to ``refusals``. Raises :class:`DataError` if none can be used, and if the
        folder was made with another tower, preprocessing, number type or number of views.
        """
        identity = StoreIdentity(preprocessing.to_dict(), fingerprint, "fp16", 1)
        hashes = usable_hashes(paths)
        images = {name: path for name, path in zip(hashes, paths, strict=True) if isinstance(name, str)}
        refused: dict[str, str] = {}
        held = _held(folder, identity, images, tower, preprocessing, quiet, refused)
        positions, kept, left_out = [], [], []
        for position, (name, path) in enumerate(zip(hashes, paths, strict=True)):
            if isinstance(name, ImageError):
                left_out.append(Refusal(path, name.reason))
            elif name in refused:
                left_out.append(Refusal(path, refused[name]))
            else:
                positions.append(position)
                kept.append(name)
        refusals += left_out
        if not kept:
            first = f"; the first: {left_out[0].reason}" if left_out else ""
            raise DataError(f"none of {len(paths)} pictures could be used{first}")
        return positions, cls._of(held, kept, folder, identity)

    @classmethod
    def _of(cls, held: Held, hashes: Sequence[str], folder: Path, identity: StoreIdentity) -> TokenStore:
        places = np.array([held.places[name] for name in hashes])
        error = float(held.errors[places].mean())
        return cls(held.rows(folder, identity), torch.from_numpy(places), error)


def _held(
    folder: Path,
    identity: StoreIdentity,
    images: Mapping[str, Path],
    tower: Tower,
    preprocessing: Preprocessing,
    quiet: bool,
    refused: dict[str, str] | None = None,
) -> Held:
    """Encode all ``images`` (content hash -> file) that a folder does not have.

    Return what it then contains.
    """
    held = Held.read(folder, identity)
    if held.places.keys() >= images.keys():
        return held
    with appending(folder, identity, quiet) as appender:
        # Another process may have added some of them while this one waited.
        missing = {name: path for name, path in images.items() if name not in appender.held.places}
        added = encode_missing(appender, missing, tower, preprocessing, refused)
        for _ in track(added, "encoding images", len(missing), quiet):
            pass
    return Held.read(folder, identity)


class JoinedStore:
    """Several stores as one: the images of the first, then those of the second, and so on."""

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self.stores = tuple(stores)
        self.ends = torch.tensor([len(store) for store in stores]).cumsum(0)
        self.places = torch.arange(len(self))

    @classmethod
    def of(cls, stores: Sequence[TokenStore]) -> Store:
        """Join stores; a single store is returned as it is."""
        return stores[0] if len(stores) == 1 else cls(stores)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def gather(self, ids: Tensor, views: Tensor | None = None) -> Tensor:
        """Read tokens as :meth:`TokenStore.gather`; a store with V views takes the view number modulo V.

        Raises :class:`DataError` if ``ids`` is empty.
        """
        ids = self.places[ids.cpu()]  # Raises IndexError for an image that no store has.
        owners = torch.searchsorted(self.ends, ids, right=True)
        result: Tensor | None = None
        for place, store in enumerate(self.stores):
            rows = (owners == place).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            start = int(self.ends[place]) - len(store)
            seen = None if views is None else views.cpu()[rows] % store.views
            tokens = store.gather(ids[rows] - start, seen)
            if result is None:
                result = tokens.new_empty(len(ids), *tokens.shape[1:])
            result[rows.to(tokens.device)] = tokens
        if result is None:
            raise DataError("no image is requested: name at least one")
        return result

    def to(self, device: torch.device | str, budget: int) -> JoinedStore:
        """Move all stores as :meth:`TokenStore.to`, or none of them if they exceed ``budget`` together."""
        if sum(store.bytes for store in self.stores) > budget:
            return self
        return JoinedStore([store.to(device, budget) for store in self.stores])


Store = TokenStore | JoinedStore


class ReadAhead:
    """Reads tokens for a device; a thread reads announced images in advance.

    It is for a store that :meth:`TokenStore.to` left on disk, because otherwise the device would wait for the
    disk. Tokens are copied to a GPU from pinned memory.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        self.store, self.device = store, device
        self.thread = ThreadPoolExecutor(1)
        self.announced: tuple[Tensor, Tensor, Future[Tensor]] | None = None

    def announce(self, ids: Tensor, views: Tensor) -> None:
        """Begin to read images ``ids`` [n] in ``views`` [n].

        The result of an earlier announcement is dropped.
        """
        self.announced = ids, views, self.thread.submit(self.read, ids, views)

    def gather(self, ids: Tensor, views: Tensor) -> Tensor:
        """Return tokens on the device, as :meth:`TokenStore.gather`; they need not be announced.

        ``ids`` [n] are images, in ``views`` [n].
        """
        announced, self.announced = self.announced, None
        if announced is not None and torch.equal(announced[0], ids) and torch.equal(announced[1], views):
            tokens = announced[2].result()
        else:
            tokens = self.read(ids, views)
        return tokens.to(self.device, non_blocking=True)

    def read(self, ids: Tensor, views: Tensor) -> Tensor:
        """Return tokens as :meth:`TokenStore.gather`, in pinned memory if the device is a GPU.

        ``ids`` [n] are images, in ``views`` [n].
        """
        tokens = self.store.gather(ids, views)
        return tokens.pin_memory() if self.device.type == "cuda" and not tokens.is_cuda else tokens

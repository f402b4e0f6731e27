"""Turn pictures into image tokens: several threads decode, the tower encodes, one thread writes.

All three work at the same time: while the tower encodes a batch, the next one is decoded and the last one is
written.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dqecir.data.augmentation import random_views
from dqecir.data.images import Preprocessing, load_image
from dqecir.encoders.store.folder import Appender
from dqecir.encoders.store.precision import PRECISIONS
from dqecir.errors import DataError, ImageError

BATCH = 64
"""Most pictures, counting each view, that the tower encodes at a time; at least one with all its views."""
AHEAD = 2
"""Number of batches that are decoded in advance."""
WORKERS = min(16, os.cpu_count() or 4)

Tower = Callable[[Tensor], Tensor]


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex; raises :class:`ImageError` if it cannot be read."""
    # Do not open anything but a file: reading a pipe may never end.
    if not path.is_file():
        raise ImageError(str(path), "there is no such file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(str(path), f"the file cannot be read ({error.strerror})") from None


def content_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the :func:`content_hash` of each file, in order; raises :class:`ImageError`."""
    hashes = []
    for found in usable_hashes(paths):
        if isinstance(found, ImageError):
            raise found
        hashes.append(found)
    return hashes


def usable_hashes(paths: Sequence[Path]) -> list[str | ImageError]:
    """Return for each file, in order, its :func:`content_hash`, or the error if it cannot be read."""

    def read(path: Path) -> str | ImageError:
        try:
            return content_hash(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(read, paths))


def encode_missing(
    appender: Appender,
    images: Mapping[str, Path],
    tower: Tower,
    preprocessing: Preprocessing,
    refused: dict[str, str] | None = None,
) -> Iterator[Path]:
    """Encode ``images`` (content hash -> file) and store their tokens; yield each file when that is done.

    A picture that cannot be used is left out and added to ``refused`` (content hash -> reason); if
    ``refused`` is None, it raises :class:`ImageError`. ``appender`` stores the tokens; ``tower`` turns
    preprocessed pixels [B, 3, S, S] into tokens [B, M, W]. Raises :class:`DataError` if tokens are not finite
    or cannot be stored; tokens that were stored before stay.
    """

    def write(names: Sequence[str], tokens: Tensor) -> None:
        coded = PRECISIONS[appender.identity.precision].encode(tokens)
        errors = coded.relative_error(tokens).mean(dim=(1, 2)).tolist()
        for name, error in zip(names, errors, strict=True):
            if not np.isfinite(error):
                raise DataError(
                    f"{images[name]}: its tokens are not numbers, or too large for "
                    f"{appender.identity.precision}: the tower's weights do not fit"
                )
        fields = {"codes": coded.codes.cpu().numpy()}
        if coded.scales is not None:
            fields["scales"] = coded.scales.cpu().numpy()
        appender.append(names, fields, errors)

    waiting: tuple[Sequence[str], Future[None]] | None = None
    # The end of the block waits for the current write, even after an error.
    with ThreadPoolExecutor(1) as writer:
        for names, pixels in _decoded(list(images.items()), preprocessing, appender.identity.views, refused):
            # On a GPU, only the writing thread waits for the tokens.
            tokens = tower(pixels.flatten(0, 1)).detach().float()
            if waiting is not None:
                waiting[1].result()
                yield from (images[name] for name in waiting[0])
            waiting = names, writer.submit(write, names, tokens.unflatten(0, pixels.shape[:2]))
        if waiting is not None:
            waiting[1].result()
            yield from (images[name] for name in waiting[0])


def _decoded(
    images: Sequence[tuple[str, Path]],
    preprocessing: Preprocessing,
    views: int,
    refused: dict[str, str] | None,
) -> Iterator[tuple[list[str], Tensor]]:
    """Yield hashes and normalised pixels [b, V, 3, S, S] of b images at a time, with V views each."""

    def read(image: tuple[str, Path]) -> Tensor | ImageError:
        try:
            return _views(*image, preprocessing, views)
        except ImageError as error:
            return error

    size = max(1, BATCH // views)
    todo = iter(images)
    pool = ThreadPoolExecutor(WORKERS)
    try:
        work = deque(pool.submit(read, image) for image in islice(todo, AHEAD * size))
        for start in range(0, len(images), size):
            names: list[str] = []
            pixels: list[Tensor] = []
            for name, _ in images[start : start + size]:
                found = work.popleft().result()
                if isinstance(found, Tensor):
                    names.append(name)
                    pixels.append(found)
                elif refused is None:
                    raise found
                else:
                    refused[name] = found.reason
            work.extend(pool.submit(read, image) for image in islice(todo, size))
            if names:
                yield names, torch.stack(pixels)
    finally:
        pool.shutdown(cancel_futures=True)


def _views(name: str, path: Path, preprocessing: Preprocessing, views: int) -> Tensor:
    """Return V views [V, 3, S, S] of a picture: as it is, then random views with its hash as seed."""
    picture = load_image(path)
    if content_hash(path) != name:
        raise ImageError(str(path), "the file was changed while it was being encoded: run this again")
    pixels = preprocessing(picture)
    plain = preprocessing.denormalised(pixels)[None]
    shown = [pixels]
    for view in range(1, views):
        seed = int(hashlib.sha256(f"{name} {view}".encode()).hexdigest()[:15], 16)
        drawn = random_views(plain, torch.Generator().manual_seed(seed))
        shown.append(preprocessing.normalised(drawn[0]))
    return torch.stack(shown)

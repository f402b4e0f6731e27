"""Decode pictures in threads within limits, make thumbnails, and store pictures of added items."""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image

from dqecir.data.images import StoredPicture, file_state, format_of, load_image
from dqecir.data.picture_files import UPLOADS_MARK
from dqecir.index.contract import Index
from dqecir.io.files import write_bytes
from dqecir.io.plots import encoded
from dqecir.io.recent import Recent
from dqecir.search.engine import picture_file
from dqecir.service.configuration import Limits

Made = TypeVar("Made")


class Decoders:
    """A pool of threads that decode pictures."""

    def __init__(self, threads: int, limits: Limits, thumbnails_kept: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decoder")
        self._limits = limits
        self._thumbnails: Recent[bytes] = Recent(thumbnails_kept, len)

    def close(self) -> None:
        """End the threads after their jobs."""
        self._pool.shutdown()

    async def run(self, work: Callable[[], Made]) -> Made:
        """Run ``work`` in a thread, where it may decode pictures and wait for an index; return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def thumbnail(self, stored: StoredPicture, size: int) -> tuple[bytes, str]:
        """Return a JPEG whose longer side is ``size`` pixels at most, and a tag that changes when it does."""

        def made() -> bytes:
            picture = load_image(stored)
            picture.thumbnail((size, size), Image.Resampling.BICUBIC)
            return as_jpeg(picture)

        key = (*file_state(stored), size)
        found = self._thumbnails.get(key)
        if found is None:
            found = await self.run(made)
            self._thumbnails.put(key, found)
        return found, f'"{zlib.crc32(repr(key).encode(errors="replace")):08x}"'

    def decode(self, upload: bytes) -> Image.Image:
        """Decode an upload within the limits; raises :class:`ImageError`."""
        return load_image(upload, max_pixels=self._limits.pixels, max_bytes=self._limits.bytes)


def as_jpeg(picture: Image.Image) -> bytes:
    """Encode a picture as JPEG."""
    return encoded(picture, "JPEG", quality=85, progressive=True)


class Uploads(Protocol):
    """Where pictures of added items are kept."""

    def keep(self, item_id: str, data: bytes) -> str:
        """Write a decodable picture, whole or not at all, and return the path for its payload.

        Raises :class:`DataError` and ``OSError``.
        """
        ...

    def picture(self, index: Index, payload: Mapping[str, Any]) -> StoredPicture | None:
        """Return the picture of an item, by its payload; None if it has none that may be read."""
        ...

    def forget(self, index: Index, payload: Mapping[str, Any]) -> None:
        """Remove a picture that no item uses any more, if it was kept here."""
        ...


class UploadFolder:
    """:class:`Uploads` that keeps pictures in a local folder, which is created with the first picture."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100  (the folder need not be there yet)

    def keep(self, item_id: str, data: bytes) -> str:
        path = self.folder / upload_name(item_id, data)
        if not path.exists():
            # The mark excludes this folder from an index of its parent folder.
            write_bytes(self.folder / UPLOADS_MARK, b"")
            write_bytes(path, data)
        return str(path)

    picture = staticmethod(picture_file)

    def forget(self, index: Index, payload: Mapping[str, Any]) -> None:
        path = index.picture_path(payload)
        if path is not None and path.parent == self.folder:
            path.unlink(missing_ok=True)


def upload_name(item_id: str, data: bytes) -> str:
    """Return a file name that does not reveal the id, and that no other picture and no other item has."""
    named = hashlib.sha256(len(item_id).to_bytes(8) + item_id.encode("utf-8", "surrogatepass") + data)
    return f"{named.hexdigest()[:40]}.{format_of(data).casefold()}"

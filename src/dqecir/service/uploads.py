"""Decode pictures in threads and within limits, make thumbnails, and store pictures of added items."""

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
    """A pool of threads that decode pictures, and a cache of thumbnails."""

    def __init__(self, threads: int, limits: Limits, thumbnails_kept: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decoder")
        self._limits = limits
        self._thumbnails: Recent[bytes] = Recent(thumbnails_kept, len)

    def close(self) -> None:
        """Finish the jobs, and end the threads."""
        self._pool.shutdown()

    async def run(self, work: Callable[[], Made]) -> Made:
        """Call ``work`` in a thread of the pool, where it may decode pictures or wait for an index."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def thumbnail(self, stored: StoredPicture, size: int) -> tuple[bytes, str]:
        """Return a picture as JPEG with a longer side of at most ``size`` pixels, and an entity tag.

        The tag changes whenever the thumbnail does.
        """

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
        """Decode the bytes of a picture.

        Raises :class:`ImageError` if they are no picture or exceed the limits.
        """
        return load_image(upload, max_pixels=self._limits.pixels, max_bytes=self._limits.bytes)


def as_jpeg(picture: Image.Image) -> bytes:
    """Encode a picture as JPEG."""
    return encoded(picture, "JPEG", quality=85, progressive=True)


class Uploads(Protocol):
    """Where pictures of added items are stored."""

    def keep(self, item_id: str, data: bytes) -> str:
        """Store a picture that can be decoded, and return the path for the item's payload.

        The file is written completely or not at all. Raises :class:`DataError` or ``OSError`` if that fails.
        """
        ...

    def picture(self, index: Index, payload: Mapping[str, Any]) -> StoredPicture | None:
        """Return the picture that an item's payload names; None if it names none that may be read."""
        ...

    def forget(self, index: Index, payload: Mapping[str, Any]) -> None:
        """Delete the picture that a payload names, if it was stored here.

        The caller makes sure that no item uses it any more.
        """
        ...


class UploadFolder:
    """Stores pictures of added items in a local folder (:class:`Uploads`), made with the first picture."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100  (the folder need not be there yet)

    def keep(self, item_id: str, data: bytes) -> str:
        path = self.folder / upload_name(item_id, data)
        if not path.exists():
            # A mark file in this folder tells dqecir index to skip it when it indexes the parent folder.
            write_bytes(self.folder / UPLOADS_MARK, b"")
            write_bytes(path, data)
        return str(path)

    picture = staticmethod(picture_file)

    def forget(self, index: Index, payload: Mapping[str, Any]) -> None:
        path = index.picture_path(payload)
        if path is not None and path.parent == self.folder:
            path.unlink(missing_ok=True)


def upload_name(item_id: str, data: bytes) -> str:
    """Return a file name for a picture: unique for its id and its bytes, and the id cannot be seen in it."""
    named = hashlib.sha256(len(item_id).to_bytes(8) + item_id.encode("utf-8", "surrogatepass") + data)
    return f"{named.hexdigest()[:40]}.{format_of(data).casefold()}"

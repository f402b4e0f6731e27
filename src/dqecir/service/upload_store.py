"""Store pictures of added items at an fsspec address, so that services on several machines share them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from dqecir.data.images import RemotePicture, StoredPicture
from dqecir.errors import DataError, EngineError, ImageError, reason_of
from dqecir.index.contract import Index
from dqecir.service.problems import log
from dqecir.service.uploads import upload_name

_NAME = re.compile(r"[0-9a-f]{40}\.[a-z0-9]+")
"""File names that :func:`upload_name` makes; other names are not read."""

_ROOT = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://[^\s/@?#:]+(?:/[^\s/@?#:]+)*/?")


class UploadStore:
    """Stores pictures of added items at an fsspec address such as ``s3://bucket/folder`` (:class:`Uploads`).

    No other address is ever read, whatever the index says.
    """

    def __init__(self, address: str) -> None:
        """Check the form of the address, without connecting.

        Raises :class:`DataError` if it cannot be used.
        """
        parts = _ROOT.fullmatch(address)
        if parts is None or {".", ".."} & set(address.split("/")):
            raise DataError(
                "--uploads names no place for pictures: write it as s3://bucket/folder, and give keys and "
                "endpoints in the environment, not in the address"
            )
        if parts["scheme"] in ("file", "local"):
            raise DataError("--uploads: name a folder of this machine without file://")
        self.root = address.rstrip("/")
        self.files = _opened(self.root, parts["scheme"])
        """The fsspec file system of the address."""

    def keep(self, item_id: str, data: bytes) -> str:
        address = f"{self.root}/{upload_name(item_id, data)}"
        try:
            self.files.pipe_file(address, data)
        except Exception as error:  # Each store has exceptions of its own.
            raise EngineError(
                f"pictures cannot be written to {self.root} ({reason_of(error)}): check the address "
                "of --uploads, and the store's access keys in the environment"
            ) from None
        return address

    def picture(self, index: Index, payload: Mapping[str, Any]) -> StoredPicture | None:
        address = self._kept(payload)
        if address is None:
            return index.picture_path(payload)
        return RemotePicture(address, partial(self._read, address))

    def forget(self, index: Index, payload: Mapping[str, Any]) -> None:
        address = self._kept(payload)
        if address is None:
            return
        try:
            self.files.rm_file(address)
        except FileNotFoundError:
            pass
        except Exception as error:  # The item is gone already, so the request has succeeded.
            log.error("picture not removed", extra={"fields": {"reason": f"{address}: {reason_of(error)}"}})

    def _kept(self, payload: Mapping[str, Any]) -> str | None:
        """Return the address of the picture that a payload names, if a service stored it here; else None."""
        stored = payload.get("path")
        if not isinstance(stored, str):
            return None
        root, _, name = stored.rpartition("/")
        return stored if root == self.root and _NAME.fullmatch(name) else None

    def _read(self, address: str, most: int) -> bytes:
        try:
            return bytes(self.files.cat_file(address, start=0, end=most))
        except FileNotFoundError:
            raise ImageError(address, "there is no such file") from None
        except Exception as error:  # Each store has exceptions of its own.
            raise EngineError(
                f"pictures at {self.root} cannot be read ({reason_of(error)}): check the address and its keys"
            ) from None


def _opened(address: str, scheme: str) -> Any:
    """Return the fsspec file system of an address.

    Raises :class:`DataError` if its package is missing, or if the address cannot be used.
    """
    extra = "pip install 'dqecir[s3]'" if scheme in ("s3", "s3a") else "install the package that it names"
    try:
        from fsspec.core import url_to_fs

        # fsspec must not cache lists of files, because other services change them.
        files, _ = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise DataError(f"--uploads {address} needs a package ({reason_of(error)}): {extra}") from None
    except Exception as error:  # Each file system has exceptions of its own.
        raise DataError(
            f"--uploads {address} cannot be used ({reason_of(error)}): check the address"
        ) from None
    return files

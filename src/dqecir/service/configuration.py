"""The settings of a service, which the options of ``dqecir serve`` set."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field

from dqecir.settings import Strict


class Limits(Strict):
    """Limits of one request; the schemas have further limits."""

    bytes: int = Field(default=20_000_000, ge=1)
    """Most bytes of the uploaded pictures of a request, all together."""
    pixels: int = Field(default=40_000_000, ge=1)
    """Most pixels of an uploaded picture; a larger one is rejected before it is decoded."""
    body: int = Field(default=256_000, ge=1)
    """Most bytes of a request without its pictures."""
    seconds: float = Field(default=30.0, gt=0)
    """Most seconds from the acceptance of a request to the response, including the arrival of the body."""
    body_seconds: float = Field(default=20.0, gt=0)
    """Most seconds that the body of a request may take to arrive."""
    edit_seconds: float = Field(default=300.0, gt=0)
    """Most seconds for an edit, including waiting for earlier ones."""


class Beside(Strict):
    """A second model, for comparison: its name on the page, its index of the same items, its model folder."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[\w .-]+$")
    index: Path
    model: Path | None = None


class ServiceSettings(Strict):
    """All settings of a service."""

    index: Path
    model: Path | None = None
    """A model folder. Default: the encoder that the index stores, else the shipped model."""
    device: str = "auto"
    """Where models run: auto, cpu, cuda or mps."""
    also: tuple[Beside, ...] = ()
    reranker: str | None = None
    """``attribute-heads``, or a cross encoder by its hub name or folder. Default: no reranking."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = Field(default="", pattern=r"^(/[\w.~-]+)*$")
    """Path under which a proxy publishes the service, such as ``/search``. Default: none."""
    keys: Path | None = None
    origins: tuple[str, ...] = ()
    """Origins whose pages may read from the service, such as ``https://shop.example``. The origins of keys to
    embed may read too."""
    uploads: Path | str | None = None
    """Folder or fsspec address where pictures of added items are stored. Default: a folder next to the
    index."""
    checkpoint: Path | None = None
    """Folder of a diffusion pipeline that edits pictures as a text says. Default: no edits."""
    expert: bool = False
    """Whether the page shows scores, times, ids and filters as expressions."""
    link_target: Literal["_blank", "_self", "_top"] = "_blank"
    """Where the page opens links to products: the value of HTML's ``target``."""
    limits: Limits = Limits()
    queue: int = Field(default=256, ge=1)
    """Most requests that may wait for the model or be in progress; a further request gets status 429."""
    batch: int = Field(default=32, ge=1)
    """Most requests that the model handles together."""
    decoders: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    """Number of threads that decode pictures."""
    tokens_kept: int = Field(default=256_000_000, ge=0)
    """Size of the cache of image tokens of reference pictures, in bytes, for each model."""
    thumbnails_kept: int = Field(default=64_000_000, ge=0)
    """Size of the cache of thumbnails, in bytes."""

    @property
    def upload_folder(self) -> Path:
        """The folder for pictures of added items, if ``uploads`` is not an address."""
        beside = self.index.resolve().with_name(f"{self.index.resolve().name}-uploads")
        return Path(self.uploads or beside)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is of this machine alone, such as ``localhost`` or 127.0.0.1."""
    if host.casefold() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

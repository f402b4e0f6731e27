"""The settings of a service."""

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
    """Most bytes of an uploaded picture."""
    pixels: int = Field(default=40_000_000, ge=1)
    """Most pixels of an uploaded picture, which are checked before it is decoded."""
    body: int = Field(default=256_000, ge=1)
    """Most bytes of a request without its picture."""
    seconds: float = Field(default=30.0, gt=0)
    """Most seconds from a read body to the answer."""
    body_seconds: float = Field(default=20.0, gt=0)
    """Most seconds for a body to arrive."""
    edit_seconds: float = Field(default=300.0, gt=0)
    """Most seconds for an edit, including waiting for earlier ones."""


class Beside(Strict):
    """A second model with its index of the same items, for comparison."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[\w .-]+$")
    index: Path
    model: Path | None = None


class ServiceSettings(Strict):
    """All settings of a service."""

    index: Path
    model: Path | None = None
    """A model folder. Default: the shipped model."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    also: tuple[Beside, ...] = ()
    reranker: str | None = None
    """``attribute-heads``, or a cross encoder by its hub name or folder. Default: no reranking."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = Field(default="", pattern=r"^(/[\w.~-]+)*$")
    """The path under which a proxy shows the service, such as ``/search``."""
    keys: Path | None = None
    origins: tuple[str, ...] = ()
    """Origins whose pages may read here, such as ``https://shop.example``, besides those of keys to embed."""
    uploads: Path | str | None = None
    """Folder or fsspec address for pictures of added items. Default: a folder next to the index."""
    checkpoint: Path | None = None
    """A folder of an instruction-following diffusion pipeline, for edits."""
    expert: bool = False
    """Whether the page shows scores, times, ids and filters as expressions."""
    link_target: Literal["_blank", "_self", "_top"] = "_blank"
    """Where the page opens links to products: a target of HTML."""
    limits: Limits = Limits()
    queue: int = Field(default=256, ge=1)
    """Most requests that wait for the model or are answered at a time; a further one gets status 429."""
    batch: int = Field(default=32, ge=1)
    """Most requests that the model answers together."""
    decoders: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    """Number of threads that decode pictures."""
    tokens_kept: int = Field(default=256_000_000, ge=0)
    """Size of the cache of items' image tokens, in bytes."""
    thumbnails_kept: int = Field(default=64_000_000, ge=0)
    """Size of the cache of thumbnails, in bytes."""

    @property
    def upload_folder(self) -> Path:
        """The folder for pictures of added items, unless they are kept at an address."""
        beside = self.index.resolve().with_name(f"{self.index.resolve().name}-uploads")
        return Path(self.uploads or beside)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback name or address."""
    if host.casefold() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

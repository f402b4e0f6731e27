"""What a service is started with."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field

from dqecir.settings import Strict


class Limits(Strict):
    """What one request may cost; how much it may ask is in the schemas."""

    bytes: int = Field(default=20_000_000, ge=1)
    """Of an uploaded picture."""
    pixels: int = Field(default=40_000_000, ge=1)
    """Of an uploaded picture, read from its head before it is decoded."""
    body: int = Field(default=256_000, ge=1)
    """Bytes of a request beside its picture."""
    seconds: float = Field(default=30.0, gt=0)
    """From the moment a body is read to the answer."""
    body_seconds: float = Field(default=20.0, gt=0)
    """For a body to arrive."""
    edit_seconds: float = Field(default=300.0, gt=0)
    """For an edit, those before it among them."""


class Beside(Strict):
    """A further model with its index of the same items, to compare with."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[\w .-]+$")
    index: Path
    model: Path | None = None


class ServiceSettings(Strict):
    """Everything that a service is made from."""

    index: Path
    model: Path | None = None
    """A model folder. Default: the shipped model."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    also: tuple[Beside, ...] = ()
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = Field(default="", pattern=r"^(/[\w.~-]+)*$")
    """The path under which a proxy shows the service, such as ``/search``."""
    keys: Path | None = None
    origins: tuple[str, ...] = ()
    """Origins whose pages may read here, such as ``https://shop.example``, besides those of keys to embed."""
    uploads: Path | None = None
    """Where pictures of items that are put lie. Default: beside the index."""
    checkpoint: Path | None = None
    """A folder of an instruction-following diffusion pipeline, for edits."""
    expert: bool = False
    """Whether the page shows scores, times, ids and filters as expressions."""
    link_target: Literal["_blank", "_self", "_top"] = "_blank"
    """Where the page opens links to products."""
    limits: Limits = Limits()
    queue: int = Field(default=256, ge=1)
    """Requests that wait for the model or are answered at one moment; a further one is told to come again."""
    batch: int = Field(default=32, ge=1)
    """Requests that go through the model together."""
    decoders: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    """Threads that decode pictures."""
    tokens_kept: int = Field(default=256_000_000, ge=0)
    """Bytes of items' image tokens that are kept, so that an item asked about again is not encoded again."""
    thumbnails_kept: int = Field(default=64_000_000, ge=0)
    """Bytes of thumbnails that are kept."""
    refresh: float = Field(default=1.0, ge=0)
    """Seconds after which what other processes wrote into the index is seen."""

    @property
    def upload_folder(self) -> Path:
        """Where pictures of items that are put lie."""
        return self.uploads or self.index.resolve().with_name(f"{self.index.resolve().name}-uploads")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a name or an address means this machine alone."""
    if host.casefold() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

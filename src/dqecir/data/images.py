"""Pictures as they come, to tensors as a tower wants them; every bad file ends here.

A picture that cannot be used raises :class:`ImageError` with a sentence; nothing else of it goes on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dqecir.data.triplets import DataError
from dqecir.strict import Strict

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageError(DataError):
    """A picture that cannot be used, with a sentence that says why and what to do."""

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")


def load_image(
    source: Path | str | bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """Decode a picture to RGB: upright, first frame, transparency on white, 16 bit scaled to 8.

    The size is read from the header and checked before anything is decoded. Raises
    :class:`ImageError` for a file that is missing, empty, no picture, of another format than
    ``FORMATS``, truncated, or larger than ``max_bytes`` or ``max_pixels``.
    """
    name = "the uploaded image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read(Path(source), max_bytes)
    if not data:
        raise ImageError(name, "the file is empty")
    if len(data) > max_bytes:
        raise ImageError(name, f"the file has {len(data):,} bytes; at most {max_bytes:,} are read")
    try:
        with Image.open(io.BytesIO(data), formats=_supported()) as picture:
            _check_size(picture, name, max_pixels)
            picture.load()
            return _as_rgb(ImageOps.exif_transpose(picture) or picture)
    except UnidentifiedImageError:
        raise ImageError(name, f"not a picture in a format that is read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise ImageError(name, f"the picture is enormous ({error}); make it smaller") from None
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, StructError) as error:
        raise ImageError(name, f"the file is truncated or damaged ({error}); save it again") from None


def _supported() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ImageError(str(path), f"the file has {size:,} bytes; at most {max_bytes:,} are read")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(str(path), "there is no such file") from None
    except OSError as error:
        raise ImageError(str(path), f"the file cannot be read ({error.strerror})") from None


def _check_size(picture: Image.Image, name: str, max_pixels: int) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(name, "the picture has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            name, f"the picture has {width:,} x {height:,} pixels; at most {max_pixels:,} are decoded"
        )


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _as_grey(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("RGB")


def _as_grey(picture: Image.Image) -> Image.Image:
    """16 and 32 bit and float pictures to 8 bit: by their range, never by clipping."""
    values = np.asarray(picture).astype(np.float64)
    highest = values.max(initial=0.0)
    if picture.mode.startswith("I"):
        scale = 65535.0 if highest > 255 else 255.0
        scale = max(scale, highest)
    else:
        scale = max(1.0, highest)
    grey = np.clip(np.nan_to_num(values) / scale * 255.0, 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey)


def target_pad(picture: Image.Image, ratio: float, colour: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """Pad symmetrically until the longer side is at most ``ratio`` times the shorter (TargetPad).

    As published, the padding of a side is rounded down; a picture within the ratio stays as it is.
    """
    width, height = picture.size
    if max(width, height) / min(width, height) < ratio:
        return picture
    scaled = max(width, height) / ratio
    horizontal = max(int((scaled - width) / 2), 0)
    vertical = max(int((scaled - height) / 2), 0)
    if horizontal == 0 and vertical == 0:
        return picture
    padded = Image.new("RGB", (width + 2 * horizontal, height + 2 * vertical), colour)
    padded.paste(picture, (horizontal, vertical))
    return padded


class Preprocessing(Strict):
    """TargetPad, bicubic resize of the shorter side, centre crop, normalisation (PROTOCOLS.md §4)."""

    size: int = 224
    pad_ratio: float = 1.25
    pad_colour: tuple[int, int, int] = (0, 0, 0)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def picture(self, image: Image.Image) -> Image.Image:
        """The square that the model sees, size x size, RGB."""
        padded = target_pad(image, self.pad_ratio, self.pad_colour)
        width, height = padded.size
        if width <= height:
            size = (self.size, max(self.size, int(self.size * height / width)))
        else:
            size = (max(self.size, int(self.size * width / height)), self.size)
        resized = padded.resize(size, Image.Resampling.BICUBIC)
        left = round((size[0] - self.size) / 2)
        top = round((size[1] - self.size) / 2)
        return resized.crop((left, top, left + self.size, top + self.size))

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB picture to pixels [3, size, size] float32, normalised."""
        array = np.asarray(self.picture(image), dtype=np.float32) / 255.0
        return self.normalised(torch.from_numpy(array).permute(2, 0, 1).contiguous())

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels [..., 3, S, S] in 0..1 to what the tower reads."""
        return (pixels - self._channels(self.mean)) / self._channels(self.std)

    def denormalised(self, pixels: Tensor) -> Tensor:
        """The inverse of :meth:`normalised`."""
        return pixels * self._channels(self.std) + self._channels(self.mean)

    @staticmethod
    def _channels(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values)[:, None, None]

    def to_dict(self) -> dict[str, Any]:
        """As a Hugging Face ``preprocessor_config.json``."""
        return {
            "image_processor_type": "BlipImageProcessor",
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "resample": 3,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "pad_ratio": self.pad_ratio,
            "pad_colour": list(self.pad_colour),
        }

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote; raises :class:`DataError` where something is missing."""
        try:
            return cls(
                size=config["size"]["height"],
                pad_ratio=config["pad_ratio"],
                pad_colour=tuple(config["pad_colour"]),
                mean=tuple(config["image_mean"]),
                std=tuple(config["image_std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"preprocessor_config.json is not one that dqecir wrote ({error})") from error


BLIP2_224 = Preprocessing()
"""What BLIP-2's published composed retrieval models were trained with."""


@dataclass(frozen=True)
class Refusal:
    """A picture that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class PixelBatch:
    """Pictures that decoded: their ``positions`` in the list asked for, and ``pixels`` [B, 3, S, S]."""

    positions: tuple[int, ...]
    pixels: Tensor


def load_batches(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    refusals: list[Refusal],
    batch_size: int = 64,
    workers: int = 4,
) -> Iterator[PixelBatch]:
    """Decode ``paths`` on a thread pool, a bounded number at a time, in order.

    A picture that cannot be used is appended to ``refusals`` and left out of its batch.
    """

    def read(path: Path) -> Tensor | ImageError:
        try:
            return preprocessing(load_image(path))
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), batch_size):
            some = paths[start : start + batch_size]
            kept: list[tuple[int, Tensor]] = []
            for offset, (path, result) in enumerate(zip(some, pool.map(read, some), strict=True)):
                if isinstance(result, ImageError):
                    refusals.append(Refusal(path, result.reason))
                else:
                    kept.append((start + offset, result))
            if kept:
                positions, pixels = zip(*kept, strict=True)
                yield PixelBatch(positions, torch.stack(pixels))

"""Decode pictures, and preprocess them to the tensors that a tower reads.

A picture that cannot be used raises :class:`ImageError` with the reason.
"""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from pydantic import Field, PositiveFloat

from dqecir.data.picture_files import Refusal, is_heif
from dqecir.data.pixels import upright_rgb
from dqecir.data.png_metadata import without_bulk
from dqecir.errors import DataError, ImageError
from dqecir.settings import Strict

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
_HEAD = 64
"""Number of first bytes of a file from which its format is recognised."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class RemotePicture:
    """A picture that is not a local file; its address will never mean another picture."""

    address: str
    read: Callable[[int], bytes]
    """Function that returns at most this many bytes of the picture; raises :class:`ImageError` if it is
    gone."""


StoredPicture = Path | RemotePicture
ImageSource = str | bytes | Image.Image | StoredPicture


def file_state(picture: StoredPicture) -> tuple[str, int, int]:
    """Return what identifies the current contents of a picture: path, modification time (ns), size (bytes).

    For a :class:`RemotePicture`, it is the address and two zeros. Raises :class:`ImageError` if the file is
    gone or cannot be reached.
    """
    if isinstance(picture, RemotePicture):
        return picture.address, 0, 0
    try:
        about = picture.stat()
    except (OSError, ValueError):
        raise ImageError(
            "its file", "it is no longer where the index says: name its new folder with dqecir index reroot"
        ) from None
    return str(picture), about.st_mtime_ns, about.st_size


def load_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """Decode a picture to RGB: upright, first frame, on white if transparent, 8 bit, in sRGB.

    ``source`` is a file, its bytes, a :class:`RemotePicture`, or an opened picture, which is not changed; of
    an opened picture, the current frame is decoded. The size is checked before that. Raises
    :class:`ImageError` if the file is missing, empty, truncated, not a picture in one of ``FORMATS``, or
    larger than ``max_bytes`` or ``max_pixels`` (Pillow's own limit is 178,956,970). HEIC needs the extra
    ``heic``.
    """
    if isinstance(source, Image.Image):
        with _as_image_error("the image given"):
            return _decoded(source, "the image given", max_pixels)
    name, data = _named_bytes(source, max_bytes)
    if not data:
        raise ImageError(name, "the file is empty")
    if len(data) > max_bytes:
        raise ImageError(name, _too_many_bytes(len(data), max_bytes))
    with _as_image_error(name), _opened(data) as picture:
        return _decoded(picture, name, max_pixels)


def _named_bytes(source: Path | str | bytes | RemotePicture, max_bytes: int) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "the uploaded image", source
    if isinstance(source, RemotePicture):
        return source.address, source.read(max_bytes + 1)
    return str(source), _read(Path(source), max_bytes)


def format_of(data: bytes) -> str:
    """Return Pillow's name of the format of a picture's bytes; raises :class:`ImageError` for other bytes.

    It is one of ``FORMATS``, or ``MPO`` for a JPEG file with several pictures.
    """
    with _as_image_error("the picture"), _opened(data) as picture:
        return str(picture.format)


def _opened(data: bytes) -> Image.Image:
    if is_heif(data[:_HEAD]) and not reads_heif():
        raise ImageError("the picture", "HEIC needs an extra: pip install 'dqecir[heic]', or save it as JPEG")
    return Image.open(io.BytesIO(without_bulk(data)), formats=supported_formats())


@cache
def reads_heif() -> bool:
    """Return whether HEIC can be read, for which the extra ``heic`` must be installed."""
    # Imported here, because the package is optional and seldom needed.
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    supported_formats.cache_clear()
    return True


@contextmanager
def _as_image_error(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(name, error.reason) from None
    except UnidentifiedImageError:
        raise ImageError(
            name, f"not a picture in a supported format ({', '.join(FORMATS)}); save it as JPEG or PNG"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            name, f"the picture has too many pixels; at most {MAX_PIXELS:,} are decoded: make it smaller"
        ) from None
    except Exception as error:  # Decoders raise any kind of exception on damaged files.
        raise ImageError(name, f"the file is truncated or damaged ({error}); save it again") from None


@cache
def supported_formats() -> tuple[str, ...]:
    """Return those of :data:`FORMATS` that can be read on this machine."""
    Image.init()
    # Pillow reads 16 bit grey whose zero is white in one byte order only.
    TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        about = path.stat()
        # Read only files: reading a pipe or a device may never end.
        if not stat.S_ISREG(about.st_mode):
            raise ImageError(str(path), "it is a folder or a device, not a file")
        if about.st_size > max_bytes:
            raise ImageError(str(path), _too_many_bytes(about.st_size, max_bytes))
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(str(path), "there is no such file") from None
    except OSError as error:
        raise ImageError(str(path), f"the file cannot be read ({error.strerror})") from None
    except ImageError:
        raise
    except ValueError as error:
        raise ImageError(repr(str(path)), f"it cannot be the name of a file ({error})") from None


def _too_many_bytes(size: int, most: int) -> str:
    return f"the file has {size:,} bytes; at most {most:,} are read: make it smaller"


def _decoded(picture: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(name, "the picture has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            name,
            f"the picture has {width:,} x {height:,} pixels; at most {max_pixels:,} are decoded: "
            "make it smaller",
        )
    return upright_rgb(picture)


def target_pad(picture: Image.Image, ratio: float, colour: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """Pad an RGB picture on both sides until its longer side is ``ratio`` times the shorter (TargetPad).

    As published, the padding of each side is rounded down to whole pixels, so the ratio may stay slightly
    larger. A picture within the ratio is not changed. ``colour`` is the padding's.
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


def narrowed(picture: Image.Image, ratio: float) -> Image.Image:
    """Return the picture; a long strip is made smaller if its padded size would exceed the pixel limit.

    ``ratio`` is that of :func:`target_pad`.
    """
    longer = max(picture.size)
    too_large = longer * max(longer / ratio, min(picture.size)) / MAX_PIXELS
    if too_large <= 1:
        return picture
    width, height = (max(1, int(side / too_large**0.5)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _middle(picture: Image.Image, side: int) -> Image.Image:
    """Return the middle of a strip whose size after resizing would exceed the pixel limit."""
    longer, shorter = max(picture.size), min(picture.size)
    most = MAX_PIXELS * shorter // side**2
    if longer <= most:
        return picture
    width, height = (min(length, max(most, shorter)) for length in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
RESAMPLES: tuple[Resample, ...] = get_args(Resample)
"""Names of the filters for resizing, in the order of Pillow's numbers."""


class Preprocessing(Strict):
    """How pictures are preprocessed: pad, resize the shorter side, crop the centre, normalise.

    ``squash`` resizes both sides to ``size`` instead, without padding and cropping, as BLIP and SigLIP do in
    evaluation. ``pad_ratio`` is the ratio of :func:`target_pad`; if it is None, nothing is padded, as in
    transformers for CLIP.
    """

    size: int = Field(default=224, ge=1, le=4096)
    """Side of the square that a model reads, in pixels."""
    shorter_side: int | None = Field(default=None, ge=1, le=4096)
    """Length of the shorter side after resizing, in pixels. Default: ``size``."""
    resample: Resample = "bicubic"
    pad_ratio: float | None = Field(default=1.25, ge=1.0, le=4.0)
    pad_colour: tuple[int, int, int] = (0, 0, 0)
    squash: bool = False
    rounds_crop: bool = False
    """Whether the centre crop rounds half pixels to even numbers even without padding, as open_clip does."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = CLIP_STD

    def picture(self, image: Image.Image) -> Image.Image:
        """Return the square of ``size`` x ``size`` pixels of an RGB picture that the model sees."""
        resample = Image.Resampling(RESAMPLES.index(self.resample))
        if self.squash:
            return image.resize((self.size, self.size), resample)
        padded = self._padded(image)
        width, height = padded.size
        side = self.shorter_side or self.size
        if width <= height:
            size = (side, max(side, int(side * height / width)))
        else:
            size = (max(side, int(side * width / height)), side)
        resized = padded.resize(size, resample)
        # torchvision, used by the published TargetPad, rounds half pixels to even; transformers drops them.
        part = round if self.rounds_crop or self.pad_ratio is not None else math.floor
        left, top = (part((length - self.size) / 2) for length in size)
        return resized.crop((left, top, left + self.size, top + self.size))

    def _padded(self, image: Image.Image) -> Image.Image:
        if self.pad_ratio is None:
            return _middle(image, self.shorter_side or self.size)
        return target_pad(narrowed(image, self.pad_ratio), self.pad_ratio, self.pad_colour)

    def seen(self, image: Image.Image) -> tuple[float, float]:
        """Return height and width of the whole picture at the scale of the model's square, in its pixels.

        They exceed ``size`` if edges are cut off.
        """
        if self.squash:
            return self.size, self.size
        picture = image if self.pad_ratio is None else narrowed(image, self.pad_ratio)
        padded = picture if self.pad_ratio is None else target_pad(picture, self.pad_ratio)
        scale = (self.shorter_side or self.size) / min(padded.size)
        return picture.height * scale, picture.width * scale

    def __call__(self, image: Image.Image) -> Tensor:
        """Return normalised pixels [3, size, size] in float32 of an RGB picture."""
        from torch import from_numpy  # slow to import, and checking pictures does not need it

        array = np.asarray(self.picture(image), dtype=np.float32) / 255.0
        return self.normalised(from_numpy(array).permute(2, 0, 1).contiguous())

    def normalised(self, pixels: Tensor) -> Tensor:
        """Subtract ``mean`` from pixels [..., 3, S, S] in 0..1, and divide by ``std``, for each channel."""
        return (pixels - _channels(self.mean, pixels)) / _channels(self.std, pixels)

    def denormalised(self, pixels: Tensor) -> Tensor:
        """Undo :meth:`normalised`."""
        return pixels * _channels(self.std, pixels) + _channels(self.mean, pixels)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings in the form of transformers' ``preprocessor_config.json``."""
        return {
            "image_processor_type": "BlipImageProcessor",
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "resample": RESAMPLES.index(self.resample),
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "pad_ratio": self.pad_ratio,
            "pad_colour": list(self.pad_colour),
            # Add these only if they are set: fingerprints of older stored tokens do not have them.
            **({"squash": True} if self.squash else {}),
            **({"rounds_crop": True} if self.rounds_crop else {}),
            **({"shorter_side": self.shorter_side} if self.shorter_side else {}),
        }

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read settings that :meth:`to_dict` wrote; raises :class:`DataError` for any other settings."""
        try:
            return cls(
                size=config["size"]["height"],
                pad_ratio=config["pad_ratio"],
                pad_colour=tuple(config["pad_colour"]),
                squash=config.get("squash", False),
                rounds_crop=config.get("rounds_crop", False),
                shorter_side=config.get("shorter_side"),
                resample=RESAMPLES[config.get("resample", RESAMPLES.index("bicubic"))],
                mean=tuple(config["image_mean"]),
                std=tuple(config["image_std"]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"preprocessor_config.json is not one that dqecir wrote ({error})") from error


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None, None]


@dataclass(frozen=True)
class PixelBatch:
    """Decoded pictures: ``positions`` in the list of paths, normalised float32 ``pixels`` [B, 3, S, S]."""

    positions: tuple[int, ...]
    pixels: Tensor


def load_batches(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    refusals: list[Refusal] | None = None,
    batch_size: int = 64,
    workers: int = 4,
) -> Iterator[PixelBatch]:
    """Decode ``paths`` with several threads, in order; while the caller uses a batch, the next is decoded.

    A picture that cannot be used is added to ``refusals`` and left out of its batch; if ``refusals`` is None,
    its :class:`ImageError` is raised. ``batch_size`` is the number of paths for a batch, ``workers`` that of
    threads. A batch without a usable picture is skipped.
    """

    def read(path: Path) -> Tensor | ImageError:
        try:
            return preprocessing(load_image(path))
        except ImageError as error:
            return error

    import torch  # slow to import, and checking pictures does not need it

    pool = ThreadPoolExecutor(workers)
    try:
        ahead = [pool.submit(read, path) for path in paths[:batch_size]]
        for start in range(0, len(paths), batch_size):
            batch, next_start = ahead, start + batch_size
            # The next batch is decoded while the caller encodes this one.
            ahead = [pool.submit(read, path) for path in paths[next_start : next_start + batch_size]]
            kept: list[tuple[int, Tensor]] = []
            for position, task in enumerate(batch, start):
                result = task.result()
                if isinstance(result, torch.Tensor):
                    kept.append((position, result))
                elif refusals is None:
                    raise result
                else:
                    refusals.append(Refusal(paths[position], result.reason))
            if kept:
                positions, pixels = zip(*kept, strict=True)
                yield PixelBatch(positions, torch.stack(pixels))
    finally:
        pool.shutdown(cancel_futures=True)

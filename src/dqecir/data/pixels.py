"""An opened picture to upright RGB as it is meant to be seen: depth, transparency and colours."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SHALLOW = {"L;4": 17, "L;2": 85}
"""Factors that turn grey levels of 4 and 2 bits into 8 bits."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
"""The colours of a profile that fits pictures of a mode."""


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Decode a picture: transparency on white, deep values scaled to 8 bits, colours in sRGB, turned upright.

    ``picture`` stays as it is.
    """
    raw = _raw_mode(picture)
    picture.load()
    rgb = _on_white(picture, _alpha(picture, raw))
    turn = _TURNS.get(_orientation(picture))
    return rgb if turn is None else rgb.transpose(turn)


def _raw_mode(picture: Image.Image) -> str:
    """How pixels lie in the file; told only before they are decoded."""
    tiles = getattr(picture, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # damaged metadata do not make the pixels useless
        return 1


def _alpha(picture: Image.Image, raw: str) -> Image.Image | None:
    """How opaque each pixel is ("L"); ``None`` where all are."""
    key: Any = picture.info.get("transparency")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        whole = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)
        return picture.convert(whole).getchannel("A")
    if key is None:
        return None
    if picture.mode.startswith("I"):
        return Image.fromarray(np.where(np.asarray(picture) == key, 0, 255).astype(np.uint8))
    # The transparent value is one of the file's, and decoding has scaled those of the pixels.
    if raw in _SHALLOW:
        key *= _SHALLOW[raw]
    elif raw == "RGB;16B":
        key = tuple(part >> 8 for part in key)
    keyed = picture.copy()
    keyed.info["transparency"] = key
    return keyed.convert("RGBA").getchannel("A")


def _on_white(picture: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        colours = _as_grey(picture)
    elif picture.mode in ("La", "RGBa"):
        colours = picture.convert(picture.mode.upper())
    else:
        colours = picture
    profile = picture.info.get("icc_profile")
    # An alpha channel and a transparent colour have been seen to; without them conversion keeps colours.
    if colours.mode in ("LA", "L"):
        colours = colours.convert("L")
    elif colours.mode != "CMYK":
        bare = colours.copy() if "transparency" in colours.info else colours
        bare.info.pop("transparency", None)
        colours = bare.convert("RGB")
    rgb = _in_srgb(colours, profile).convert("RGB")
    if alpha is None:
        return rgb
    ground = Image.new("RGB", picture.size, (255, 255, 255))
    ground.paste(rgb, mask=alpha)
    return ground


def _in_srgb(colours: Image.Image, profile: bytes | None) -> Image.Image:
    """Bring colours of another profile into sRGB; those of one that is damaged or does not fit stay."""
    if not profile:
        return colours
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        fits = source.profile.xcolor_space == _SPACES[colours.mode]
        if not fits or "srgb" in str(source.profile.profile_description).casefold():
            return colours
        converted = ImageCms.profileToProfile(
            colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return colours
    return colours if converted is None else converted


def _as_grey(picture: Image.Image) -> Image.Image:
    """16 and 32 bit and float pictures to 8 bit: scaled by the range of their kind, never clipped.

    A 16 bit picture goes to 65535. 32 bit integers and floats have no range of their own: theirs is
    the first of 1 (floats alone), 255 and 65535 that holds the brightest pixel, or else that pixel.
    """
    values = np.nan_to_num(np.asarray(picture).astype(np.float32), posinf=0.0, neginf=0.0)
    highest = float(values.max())
    if picture.mode.startswith("I;16") or (picture.format == "PPM" and picture.mode == "I"):
        scale = 65535.0
    else:
        ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
        scale = next((top for top in ranges if highest <= top), highest)
    grey = (values.clip(min=0.0) * (255.0 / scale)).round().astype(np.uint8)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey)

"""Convert an opened picture to upright RGB with 8 bits: depth, transparency and colours."""

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
_TOP = 65535.0
"""Value of white in grey pictures with 16 bits."""
_TOPS = {"I;12": 4095.0}
"""Value of white in files with fewer bits, which are decoded to 16 bits."""
_SHALLOW = {"L;4": 17, "L;2": 85}
"""Factors that turn grey levels of 4 and 2 bits into 8 bits."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
"""Mode of Pillow -> the colour space that a fitting profile has."""


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Decode a picture: transparency on white, scaled to 8 bits, colours in sRGB, turned upright.

    ``picture`` is not changed.
    """
    raw = _raw_mode(picture)
    picture.load()
    rgb = _on_white(picture, _alpha(picture, raw), _TOPS.get(raw, _TOP))
    turn = _TURNS.get(_orientation(picture))
    return rgb if turn is None else rgb.transpose(turn)


def _raw_mode(picture: Image.Image) -> str:
    """Return the pixel format of the file, which can only be seen before decoding."""
    tiles = getattr(picture, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # The pixels can be used even if the metadata are damaged.
        return 1


def _alpha(picture: Image.Image, raw: str) -> Image.Image | None:
    """Return a mask ("L") of how opaque each pixel is; None if all are opaque."""
    key: Any = picture.info.get("transparency")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        whole = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)
        return picture.convert(whole).getchannel("A")
    if key is None:
        return None
    if picture.mode.startswith("I"):
        return Image.fromarray(np.where(np.asarray(picture) == key, 0, 255).astype(np.uint8))
    # The file's transparent value has the file's depth, but decoding has scaled the pixels.
    if raw in _SHALLOW:
        key *= _SHALLOW[raw]
    elif raw == "RGB;16B":
        key = tuple(part >> 8 for part in key)
    keyed = picture.copy()
    keyed.info["transparency"] = key
    return keyed.convert("RGBA").getchannel("A")


def _on_white(picture: Image.Image, alpha: Image.Image | None, top: float) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        colours = _as_grey(picture, top)
    elif picture.mode in ("La", "RGBa"):
        colours = picture.convert(picture.mode.upper())
    else:
        colours = picture
    profile = picture.info.get("icc_profile")
    # Transparency is handled elsewhere; without it, conversion keeps the colours.
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
    """Convert colours to sRGB; a profile that is damaged or does not fit is ignored."""
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


def _as_grey(picture: Image.Image, top: float) -> Image.Image:
    """Scale a grey picture with 16 or 32 bits, or of floats, to 8 bits without clipping bright pixels.

    White is ``top`` for 16 bits. For 32 bit integers and floats it is the smallest of 1 (only floats), 255
    and 65535 that is not below the brightest pixel, or else the brightest pixel. Pixels that are negative or
    not finite become 0.
    """
    values = np.nan_to_num(np.asarray(picture).astype(np.float32), posinf=0.0, neginf=0.0)
    highest = float(values.max())
    if picture.mode.startswith("I;16") or (picture.format == "PPM" and picture.mode == "I"):
        scale = top
    else:
        ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
        scale = next((top for top in ranges if highest <= top), highest)
    grey = (values.clip(min=0.0) * (255.0 / scale)).round().astype(np.uint8)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey)

"""Remove from a PNG file the metadata that its pixels do not need, and those that the decoder refuses."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNK = 1 << 20
"""Most unpacked bytes of one text or profile; Pillow refuses more."""
MAX_TOTAL = 1 << 24
"""Most unpacked bytes of all texts and profiles together."""

_ORIENTATION = (b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Names of the texts in which Pillow looks for the orientation."""


def without_bulk(data: bytes) -> bytes:
    """Return a PNG file without metadata, except for a colour profile, transparency and the orientation.

    Of these, a profile and an orientation are also left out if they are damaged or too large. ``data`` are
    the file's bytes. Files of other formats are returned unchanged.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept, place, start, total = [], len(SIGNATURE), 0, 0
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        # Names of metadata begin with a small letter. A wrong transparency would change the pixels.
        if kind.isalpha() and kind[:1].islower() and kind != b"tRNS":
            body = data[place + 8 : end - 4]
            size = MAX_CHUNK
            if total < MAX_TOTAL and _is_needed(kind, body):
                is_whole = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) == data[end - 4 : end]
                size = _unpacked(kind, body) if is_whole else MAX_CHUNK
                total += size
            if size >= MAX_CHUNK:
                kept.append(data[start:place])
                start = end
        place = end
    return b"".join([*kept, data[start:]]) if kept else data


def _is_needed(kind: bytes, body: bytes) -> bool:
    """Return whether a chunk holds a colour profile, or may hold the orientation."""
    is_text = kind in (b"tEXt", b"zTXt", b"iTXt")
    return kind in (b"iCCP", b"eXIf") or (is_text and body.partition(b"\0")[0] in _ORIENTATION)


def _unpacked(kind: bytes, body: bytes) -> int:
    """Return the unpacked size of a chunk; counting stops at :data:`MAX_CHUNK`, the size of damaged ones."""
    if kind in (b"tEXt", b"eXIf"):
        return min(len(body), MAX_CHUNK)
    # One byte before the packed data is the method; the only one is 0.
    method, packed = body.partition(b"\0")[2][:1], body.partition(b"\0")[2][1:]
    if kind == b"iTXt":
        # A flag, a method, a language and a translated keyword precede the text.
        is_packed, method, rest = method != b"\0", packed[:1], packed[1:]
        packed = rest.partition(b"\0")[2].partition(b"\0")[2]
        if not is_packed:
            return min(len(packed), MAX_CHUNK)
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_CHUNK)) if method == b"\0" else MAX_CHUNK
    except zlib.error:
        return MAX_CHUNK

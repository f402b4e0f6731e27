"""Remove metadata from a PNG file that the decoder refuses: too large or damaged."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNK = 1 << 20
"""Most unpacked bytes of one text or profile; Pillow refuses more."""
MAX_TOTAL = 1 << 24
"""Most unpacked bytes of all texts and profiles together."""

_KINDS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def without_bulk(data: bytes) -> bytes:
    """Return a PNG file without its texts and colour profiles that are too large or have a wrong checksum.

    ``data`` are the file's bytes. Files of other formats are returned unchanged.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept, place, start, total = [], len(SIGNATURE), 0, 0
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind in _KINDS:
            is_whole = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) == data[end - 4 : end]
            size = _unpacked(kind, data[place + 8 : end - 4]) if is_whole and total < MAX_TOTAL else MAX_CHUNK
            total += size
            if size >= MAX_CHUNK:
                kept.append(data[start:place])
                start = end
        place = end
    return b"".join([*kept, data[start:]]) if kept else data


def _unpacked(kind: bytes, body: bytes) -> int:
    """Return the unpacked size of a chunk's text or profile; counting stops at :data:`MAX_CHUNK`."""
    packed = body.partition(b"\0")[2][1:]
    if kind == b"tEXt":
        return min(len(body), MAX_CHUNK)
    if kind == b"iTXt":
        # A flag, a method, a language and a translated keyword precede the text.
        is_packed = body.partition(b"\0")[2][:1] == b"\1"
        packed = body.partition(b"\0")[2][2:].partition(b"\0")[2].partition(b"\0")[2]
        if not is_packed:
            return min(len(packed), MAX_CHUNK)
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_CHUNK))
    except zlib.error:
        return 0

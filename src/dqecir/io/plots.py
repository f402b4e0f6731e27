"""Draw plots, and encode pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from dqecir.io.files import write_bytes


@contextmanager
def plotted(path: Path, size: tuple[float, float], panels: int = 1) -> Iterator[list[Any]]:
    """Yield the axes of a figure, ``panels`` side by side; write it as PNG when the ``with`` block ends.

    ``size`` is width and height in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(size)
    yield list(figure.subplots(1, panels, squeeze=False)[0])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    write_bytes(path, buffer.getvalue())


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a picture in a file format of Pillow, such as ``PNG``; ``options`` are Pillow's."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()

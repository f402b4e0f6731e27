"""FashionIQ: its caption files. Source: the published annotations (arXiv 1905.12794)."""

from __future__ import annotations

import json
from pathlib import Path

from dqecir.data.triplets import DataError


def read_captions(path: Path) -> list[str]:
    """All captions of one ``cap.<category>.<split>.json``, in order, as they are.

    Raises :class:`DataError` for a file that is not one.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [str(caption) for row in rows for caption in row["captions"]]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a FashionIQ caption file ({error!r}): name a cap.*.json") from None

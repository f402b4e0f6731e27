"""What made the embeddings of an index, where it is an encoder of others with a composition by name.

A model folder of ours is named when an index is searched; an encoder is remembered here, with its revision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from dqecir.encoders.licences import UNKNOWN_LICENCE
from dqecir.errors import EngineError
from dqecir.io.files import write_json
from dqecir.settings import Strict, parse_settings

FILE = "encoder.json"


class Maker(Strict):
    """An encoder and how it composes without training."""

    encoder: str
    """OWNER/NAME@REVISION, PACKAGE==VERSION, or a folder."""
    licence: str = UNKNOWN_LICENCE
    method: str
    options: dict[str, Any] = Field(default_factory=dict)


def read_maker(folder: Path) -> Maker | None:
    """Return what made the index in ``folder``; None where it is a model folder, which nobody wrote down.

    Raises :class:`EngineError` for a file that is damaged.
    """
    path = folder / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} is damaged ({error}): build the index again") from None
    if not isinstance(said, dict):
        raise EngineError(f"{path} names no encoder: build the index again")
    return parse_settings(said, Maker, str(path))


def write_maker(folder: Path, maker: Maker | None) -> None:
    """Write what made the index in ``folder``; None for a model folder."""
    if maker is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_json(folder / FILE, maker.model_dump(mode="json"))

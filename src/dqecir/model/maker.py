"""The encoder and the method that made an index, if no model folder made it.

Such an index stores the name and revision of its encoder, so that searches need not name a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dqecir.encoders.licences import UNKNOWN_LICENCE
from dqecir.errors import EngineError
from dqecir.io.files import write_bytes, write_json
from dqecir.settings import Strict, parse_settings

FILE = "encoder.json"
LEARNED = "encoder.safetensors"


class Maker(Strict):
    """An encoder, its licence, and an untrained method with its options."""

    encoder: str
    """Where the encoder comes from: OWNER/NAME@REVISION on the hub, PACKAGE==VERSION, or a folder."""
    licence: str = UNKNOWN_LICENCE
    method: str
    options: dict[str, Any] = Field(default_factory=dict)


def read_maker(folder: Path) -> Maker | None:
    """Read which encoder and method made the index in ``folder``; None if a model folder made it.

    Raises :class:`EngineError` or :class:`DataError` if the file is damaged.
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


def read_learned(folder: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays, by name, that a method has learned from the gallery of the index in ``folder``.

    Raises :class:`EngineError` if the file is damaged or missing.
    """
    try:
        return load((folder / LEARNED).read_bytes())
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{folder / LEARNED} cannot be read ({error}): build the index again") from None


def write_maker(folder: Path, maker: Maker | None, learned: Mapping[str, NDArray[Any]]) -> None:
    """Write into the index in ``folder`` which encoder and method made it; None: a model folder.

    ``learned``: the arrays that the method has learned from the gallery, by name; empty if none.
    """
    for name in (FILE, LEARNED):
        (folder / name).unlink(missing_ok=True)
    if learned:
        write_bytes(folder / LEARNED, save(dict(learned)))
    if maker is not None:
        write_json(folder / FILE, maker.model_dump(mode="json"))


def copy_maker(source: Path, target: Path) -> None:
    """Copy what :func:`write_maker` wrote from the index ``source`` to the index ``target``."""
    learned = read_learned(source) if (source / LEARNED).exists() else {}
    write_maker(target, read_maker(source), learned)

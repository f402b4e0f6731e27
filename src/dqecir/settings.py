"""Settings that refuse what they do not know, and name the nearest thing they do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dqecir.errors import DataError


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or the list of known words."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; the known ones are {', '.join(names)}"


class Strict(BaseModel):
    """An immutable model in which an unknown key is an error that names the nearest right one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
        return data


Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """Read a YAML file into ``kind``; raises :class:`DataError` with a sentence for each mistake."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} must be a map of settings")
    return parse_settings(data, kind, str(path))


def parse_settings(data: Mapping[str, Any], kind: type[Settings], source: str) -> Settings:
    """Validate ``data`` as ``kind``; ``source`` names it in the error."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        places = (
            f"{'.'.join(str(part) for part in item['loc']) or 'top level'}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise DataError(f"{source} has mistakes:\n- " + "\n- ".join(places)) from error

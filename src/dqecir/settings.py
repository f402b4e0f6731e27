"""Settings as pydantic models that refuse unknown keys, and suggest the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dqecir.errors import DataError, reason_of


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the nearest of ``known``, or a list of all if none is near.

    If there are none, it says so.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if not names:
        return "; there are none"
    return f"; did you mean {close[0]!r}?" if close else f"; the known ones are {', '.join(names)}"


class Strict(BaseModel):
    """An immutable pydantic model; an unknown key raises an error that suggests the nearest known one.

    Files of version 0.1.0 stay readable: a key in ``removed_keys`` is ignored if it has its old default, and
    otherwise raises an error; a value in ``removed_values`` raises an error; ``ignored_keys`` are ignored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    removed_keys: ClassVar[Mapping[str, object]] = {}
    """Keys that version 0.2.0 has removed -> their defaults in version 0.1.0."""
    removed_values: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    """Keys of which version 0.2.0 has removed values -> these values."""
    ignored_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of version 0.1.0 that are ignored with any value."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key, value in data.items():
            if key in cls.removed_keys:
                if value != cls.removed_keys[key]:
                    raise ValueError(
                        f"the option {key!r} was removed in version 0.2.0; leave it out to get "
                        f"{cls.removed_keys[key]!r}, or use version 0.1.0 for {value!r}"
                    )
            elif key not in cls.model_fields.keys() | cls.ignored_keys:
                raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
            elif value in cls.removed_values.get(key, ()):
                raise ValueError(
                    f"the value {value!r} of {key!r} was removed in version 0.2.0; choose another one, or "
                    "use version 0.1.0"
                )
        dropped = cls.removed_keys.keys() | cls.ignored_keys
        return {key: value for key, value in data.items() if key not in dropped}


Settings = TypeVar("Settings", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Reads YAML as usual, but a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        known: set[str] = set()
        for key, _ in node.value:
            if key.value in known and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} comes twice", problem_mark=key.start_mark
                )
            known.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """Read a YAML file as a model of the class ``kind``.

    Raises :class:`DataError` that lists the mistakes; a wrong key hides other mistakes of its part.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}: check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        place = f"{path}, line {error.problem_mark.line + 1}," if error.problem_mark else str(path)
        raise DataError(f"{place} cannot be read as YAML ({error.problem}): correct it there") from error
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {reason_of(error)}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} must hold a map of settings, such as key: value")
    return parse_settings(data, kind, str(path))


def parse_settings(data: Mapping[str, Any], kind: type[Settings], source: str) -> Settings:
    """Return ``data`` as a model of the class ``kind``.

    ``source`` is the file, for the error. Raises :class:`DataError` as :func:`read_settings`.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        places = (
            f"{'.'.join(str(part) for part in item['loc']) or 'top level'}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise DataError(f"{source} has mistakes:\n- " + "\n- ".join(places)) from error

"""The columns, values and phrases that the reader knows without a catalogue.

They are in ``vocabularies/spoken.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def spoken() -> Mapping[str, Any]:
    """Return the contents of the file: mostly kind of phrase -> column -> value -> phrases."""
    text = (resources.files("dqecir.language") / "vocabularies" / "spoken.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)
    return loaded


USUAL: Mapping[str, tuple[str, ...]] = {column: tuple(own) for column, own in spoken()["usual"].items()}
"""Column -> values that the reader knows without a catalogue."""


def phrases(entry: object = None) -> Iterator[str]:
    """Yield every phrase of the file, or of the part ``entry`` of it."""
    entry = spoken() if entry is None else entry
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, Mapping):
        for part in entry.values():
            yield from phrases(part)
    elif isinstance(entry, list):
        for part in entry:
            yield from phrases(part)

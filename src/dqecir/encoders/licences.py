"""The licence of published weights, as the front matter of their README states it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dqecir.encoders.encoder import UNKNOWN_LICENCE

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)


def licence_in(folder: Path) -> str:
    """Return the licence that the README of ``folder`` states, or :data:`UNKNOWN_LICENCE`.

    A licence of its own (``other``) goes by its ``license_name``.
    """
    try:
        found = _FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8"))
        stated: Any = yaml.safe_load(found[1]) if found is not None else None
    except (OSError, ValueError, yaml.YAMLError):
        return UNKNOWN_LICENCE
    if not isinstance(stated, dict):
        return UNKNOWN_LICENCE
    licence = stated.get("license")
    names = [licence] if not isinstance(licence, list) else licence
    own = stated.get("license_name")
    if names in (["other"], [None]) and own:
        names = [own]
    return ", ".join(str(name) for name in names if name) or UNKNOWN_LICENCE

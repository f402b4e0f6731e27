"""Where published weights come from, and the licence in the front matter of their README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dqecir.settings import Strict

UNKNOWN_LICENCE = "unknown: look it up"
_NON_COMMERCIAL = re.compile(r"(^|[^a-z])(nc|non-?commercial|research|amlr)([^a-z]|$)", re.IGNORECASE)
"""Names of licences that forbid commercial use; ``amlr`` is Apple's licence for research only."""
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)


class Origin(Strict):
    """Source and licence of an encoder's weights."""

    source: str = ""
    """A name that finds the same weights again: OWNER/NAME@REVISION, PACKAGE==VERSION, or a folder."""
    licence: str = UNKNOWN_LICENCE

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return forbids_commercial_use(self.licence)

    def __str__(self) -> str:
        forbids = ", non-commercial use only" if self.non_commercial else ""
        return f"{self.source or 'of unknown source'} (licence: {self.licence}{forbids})"


def forbids_commercial_use(licence: str) -> bool:
    """Return whether a licence forbids commercial use, judged by its name."""
    return _NON_COMMERCIAL.search(licence) is not None


def licence_in(folder: Path) -> str:
    """Return the licence in the README of ``folder``, or :data:`UNKNOWN_LICENCE`.

    If it is ``other``, the ``license_name`` is returned.
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

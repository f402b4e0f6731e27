"""Store the roles of an index's columns in its folder; they come from the table of its catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dqecir.data.column_roles import Role
from dqecir.errors import EngineError
from dqecir.io.files import write_json
from dqecir.settings import Strict, parse_settings

FILE = "columns.json"


class ColumnRoles(Strict):
    """The contents of the file: column -> role."""

    roles: Mapping[str, Role] = {}


def read_roles(folder: Path) -> Mapping[str, Role]:
    """Return column -> role of the index in ``folder``; empty if it was built without a table.

    Raises :class:`EngineError` if the file is damaged.
    """
    path = folder / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} is damaged ({error}): build the index again, or delete the file") from None
    return parse_settings(said, ColumnRoles, str(path)).roles


def write_roles(folder: Path, roles: Mapping[str, Role]) -> None:
    """Store column -> role for the index in ``folder``; if ``roles`` is empty, delete the file."""
    if roles:
        write_json(folder / FILE, {"roles": dict(roles)})
    else:
        (folder / FILE).unlink(missing_ok=True)

"""The index engines by name, and how to open an index, move it, and find what killed builds have left.

``manifest.json`` of an index names its engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from shutil import rmtree

from dqecir.data.column_roles_file import read_roles, write_roles
from dqecir.data.picture_root import read_root, write_root
from dqecir.errors import EngineError
from dqecir.index.contract import Index, manifest_of
from dqecir.io.files import dead_drafts
from dqecir.model.maker import copy_maker
from dqecir.settings import nearest

ENGINES = {
    "exact": ("dqecir.index.exact", "ExactIndex", ""),
    "server": ("dqecir.index.server", "ServerIndex", "qdrant"),
    "postgres": ("dqecir.index.postgres", "PostgresIndex", "postgres"),
}
"""Name in the manifest -> module, class, and the extra that installs its packages. A class is imported when
it is needed, because the packages may not be installed."""


def engine(name: str) -> type[Index]:
    """Return the class of an engine; raises :class:`EngineError` if it is unknown or a package is missing."""
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}{nearest(name, ENGINES)}")
    module, kind, extra = ENGINES[name]
    try:
        found: type[Index] = getattr(import_module(module), kind)
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the engine {name} needs {error.name}, which is not installed: pip install 'dqecir[{extra}]'"
        ) from None
    return found


def open_index(folder: Path) -> Index:
    """Open an index with the engine that its manifest names.

    Raises :class:`EngineError` if the folder is no complete index, or a package of the engine is missing.
    """
    return engine(engine_of(folder)).open(folder)


def engine_for(folder: Path, name: str | None) -> type[Index]:
    """Return the class of the engine ``name``. Default: that of the index in ``folder``, else ``exact``.

    Raises as :func:`engine`.
    """
    if name is None:
        name = engine_of(folder) if (folder / "manifest.json").is_file() else "exact"
    return engine(name)


def move_index(source: Path, target: Path, name: str) -> Index:
    """Copy all items of the index ``source`` into a new index of the engine ``name``, and return it.

    Ids, payloads, tokens and the order of adding stay the same. ``target`` is written completely or not at
    all; an index that is already there is replaced. Raises :class:`EngineError` if ``source`` has no items,
    or if both folders are the same.
    """
    if source.resolve() == target.resolve():
        raise EngineError(f"{source} cannot be moved into itself: name another folder")
    kind = engine(name)
    moved = kind.build(target, *engine(engine_of(source)).stored(source))
    write_root(target, read_root(source))
    copy_maker(source, target)
    write_roles(target, read_roles(source))
    return moved


@dataclass(frozen=True)
class Leftover:
    """What a killed build has left (a draft folder, a table or a collection), and how to remove it."""

    name: str
    remove: Callable[[], None]


def leftovers_of(folder: Path | None) -> list[Leftover]:
    """Return what killed builds have left.

    These are drafts next to the index folder, and tables or collections of its engine. The Qdrant server is
    that of the index in ``folder``, else that of ``DQECIR_QDRANT_URL``; the database is that of
    ``DQECIR_DATABASE_URL``. Raises :class:`EngineError` if neither a folder nor a server nor a database is
    given.
    """
    found, manifest = [], {"url": os.environ.get("DQECIR_QDRANT_URL"), "engine": "", "namespace": None}
    is_named = bool(os.environ.get("DQECIR_DATABASE_URL"))
    if folder is not None:
        found = [Leftover(str(draft), partial(rmtree, draft)) for draft in dead_drafts(folder)]
        with suppress(EngineError):
            manifest |= manifest_of(folder)
    elif not manifest["url"] and not is_named:
        raise EngineError(
            "name an index folder with --index, a Qdrant server in DQECIR_QDRANT_URL, or a database in "
            "DQECIR_DATABASE_URL"
        )
    if url := manifest["url"]:
        engine("server")
        from dqecir.index.qdrant_leftovers import leftovers

        found += [Leftover(f"{left.name} at {url}", left.drop) for left in leftovers(url)]
    if is_named or manifest["engine"] == "postgres":
        engine("postgres")
        from dqecir.index.postgres_records import leftover_stores

        found += [Leftover(*pair) for pair in leftover_stores(manifest["namespace"])]
    return found


def engine_of(folder: Path) -> str:
    """Return the name of an index's engine.

    Raises :class:`EngineError` if the folder is no index, or one of Qdrant Edge, an engine of version 0.1.0.
    """
    name: str = manifest_of(folder)["engine"]
    if name == "edge":
        raise EngineError(
            f"{folder} is an index of Qdrant Edge, which dqecir does not read since version 0.2.0: "
            f"move it with version 0.1.0 (dqecir index move {folder} NEW --engine exact)"
        )
    return name

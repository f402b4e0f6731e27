"""Compare an index with its catalogue: what to encode, to change and to delete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqecir.data.payload_fields import CONTENT, RESERVED
from dqecir.data.picture_files import UPLOADS_MARK, Refusal
from dqecir.data.picture_root import is_address
from dqecir.errors import EngineError
from dqecir.index.contract import Index
from dqecir.search.pictures import Picture, Pictures


@dataclass(frozen=True)
class UpdateSummary:
    """The result of an update: numbers of items."""

    new: int
    pictures_changed: int
    rows_changed: int
    """Number of items with the same picture but other attributes in the table."""
    removed: int
    unchanged: int
    kept: int
    """Number of items that stay because they were added through the service or from another folder."""
    refusals: tuple[Refusal, ...]
    """Files and folders that were left out, and why."""
    warnings: tuple[str, ...] = ()
    """Sentences about suspicious cells of the table."""


@dataclass
class UpdatePlan:
    """The steps of an update; ``gone``: ids to delete; ``unchanged`` and ``kept``: numbers of items."""

    encode: list[Picture] = field(default_factory=list)
    """New pictures, and those whose file has changed."""
    changed: set[str] = field(default_factory=set)
    """Ids of items whose picture has changed."""
    payloads: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Id -> new payload, for items with the same picture but other attributes."""
    gone: list[str] = field(default_factory=list)
    unchanged: int = 0
    kept: int = 0


def plan_update(index: Index, pictures: Pictures, root: Path, with_products: bool) -> UpdatePlan:
    """Compare the items of an index with the pictures of a folder (with SHA-256), and return what to do.

    ``root`` is the folder's absolute path; ``with_products``: whether payloads have product ids. Raises
    :class:`EngineError` if no indexed picture is in the folder, because the index then belongs to another
    catalogue, and if the index has columns of a table but the folder has no table any more.
    """
    plan = UpdatePlan()
    wanted = {picture.id: picture for picture in pictures.pictures}
    known: set[str] = set()
    is_related = had_table = False
    for item_id, payload in index.entries():
        known.add(item_id)
        picture = wanted.get(item_id)
        if not _is_of_folder(payload, root):
            plan.kept += 1
            continue
        is_related = is_related or picture is not None
        had_table = had_table or not payload.keys() <= RESERVED
        new = None if picture is None else picture.payload(root, with_products)
        if picture is None or new is None:
            plan.gone.append(item_id)
        elif new.get(CONTENT) != payload.get(CONTENT):
            plan.encode.append(picture)
            plan.changed.add(item_id)
        elif new != payload:
            plan.payloads[item_id] = new
        else:
            plan.unchanged += 1
    if plan.gone and not is_related:
        raise EngineError(
            f"{index.folder} holds no picture of {root}: it belongs to another catalogue. Build an index "
            "of this one with dqecir index build"
        )
    if had_table and not pictures.roles:
        raise EngineError(
            f"{root} has no table any more, and {index.folder} has columns of one: put the table back, or "
            "build an index without it with dqecir index build"
        )
    plan.encode += [picture for picture in pictures.pictures if picture.id not in known]
    return plan


def _is_of_folder(payload: Mapping[str, Any], root: Path) -> bool:
    """Return whether an item's picture is a file of ``root``, and was not added in another way."""
    stored = str(payload.get("path", ""))
    path = Path(stored)
    if is_address(stored):
        return False
    if not path.is_absolute():
        return True
    return path.is_relative_to(root) and not (path.parent / UPLOADS_MARK).exists()

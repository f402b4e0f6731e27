"""The pictures to index: a list of files, or a folder with an optional table of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.catalogue_table import SETTINGS, table_of_pictures
from dqecir.data.cells import has_value
from dqecir.data.column_roles import Role
from dqecir.data.payload_fields import CONTENT, PRODUCT, SOLD_OUT
from dqecir.data.picture_files import FETCHED, HALF_FETCHED, Refusal, list_pictures
from dqecir.data.picture_root import stored_path
from dqecir.encoders.store.encoding import usable_hashes
from dqecir.errors import DataError, listed


@dataclass(frozen=True)
class Picture:
    """A picture to index: the id of its item, its file, and its attributes from the table."""

    id: str
    path: Path
    attributes: Mapping[str, str | bool | list[str]] = field(default_factory=dict)
    product: str | None = None
    """Id of the product that the picture shows; None for a file that is in no table."""
    content: str | None = None
    """SHA-256 of the file's bytes, as hex; None if it was not computed."""

    def payload(self, root: Path | None, with_product: bool) -> dict[str, Any]:
        """Return the payload that the index stores for the item.

        Paths are stored relative to ``root``, or absolute if None; ``with_product``: whether to store the
        product's id.
        """
        fields = {PRODUCT: self.product if with_product else None, CONTENT: self.content}
        own = {name: value for name, value in fields.items() if value is not None}
        return {"path": stored_path(self.path, root), **own, **self.attributes}


@dataclass(frozen=True)
class Pictures:
    """The pictures to index, and what is known about their folder and its table.

    ``root`` is the folder that ids and paths are relative to; None for a list of files.
    """

    pictures: Sequence[Picture]
    root: Path | None = None
    left_out: tuple[Refusal, ...] = ()
    """Files of the folder that cannot be indexed, with the reasons."""
    has_products: bool = False
    """Whether some product has several pictures; then the index stores product ids."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Column of the table -> its role (:class:`Role`); empty without a table."""
    warnings: tuple[str, ...] = ()
    """Sentences about suspicious cells of the table."""

    def with_contents(self) -> Pictures:
        """Return a copy whose pictures have ``content``, the SHA-256 of each file that can be read."""
        found = usable_hashes([picture.path for picture in self.pictures])
        contents = (content if isinstance(content, str) else None for content in found)
        return replace(
            self,
            pictures=[
                replace(picture, content=content)
                for picture, content in zip(self.pictures, contents, strict=True)
            ],
        )

    @classmethod
    def of(cls, images: Path | str | Sequence[Path], sheet: str | None = None) -> Pictures:
        """List the pictures of ``images``: a list of files, or a folder, whose table (if any) names them.

        ``sheet`` names a sheet of the table's workbook. Default: the first. Raises :class:`DataError` if the
        folder or the sheet does not exist, if the table has mistakes, or if there is no picture.
        """
        if not isinstance(images, Path | str):
            return cls([Picture(Path(path).as_posix(), Path(path)) for path in images])
        root = Path(images)
        if not root.is_dir():
            raise DataError(f"there is no folder {root}: check the path")
        files = list_pictures(root)
        table = table_of_pictures(root, sheet)
        if table is None and sheet is not None:
            raise DataError(f"{root} has no table, so it has no sheet {sheet!r}: name no sheet")
        if table is None:
            if not files.pictures:
                reasons = [f"{one.path.relative_to(root)}: {one.reason}" for one in files.left_out]
                raise DataError(f"the folder {root} holds no pictures{listed(reasons)}")
            found = [Picture(path.relative_to(root).as_posix(), path) for path in files.pictures]
            return cls(found, root, files.left_out)
        catalogue = read_catalogue(root, sheet=sheet)
        named = _in_order(_of_catalogue(catalogue))
        unnamed = f"no row of {table.name} names it: add a row to index it"
        left_out = (*files.left_out, *(Refusal(path, unnamed) for path in files.pictures))
        # A picture of the table may be in a linked folder, which the listing does not follow.
        used = {table, root / SETTINGS, *(root / name for name in FETCHED), *(one.path for one in named)}
        others = tuple(
            refusal for refusal in left_out if refusal.path not in used or refusal.reason == HALF_FETCHED
        )
        return cls(named, root, others, catalogue.has_views, catalogue.roles, catalogue.warnings)


def _in_order(pictures: Sequence[Picture]) -> list[Picture]:
    """Sort pictures by path; all views of a product stand together, at the place of the first."""
    first: dict[str, Path] = {}
    for picture in pictures:
        first.setdefault(picture.product or picture.id, picture.path)
    return sorted(pictures, key=lambda one: (first[one.product or one.id], one.product or one.id))


def _of_catalogue(catalogue: Catalogue) -> list[Picture]:
    found = []
    for place, (item_id, path) in enumerate(zip(catalogue.image_ids, catalogue.image_paths, strict=True)):
        attributes: dict[str, str | bool | list[str]] = {}
        for name, cells in catalogue.attributes.items():
            several = catalogue.several.get(name, {}).get(place)
            if several is not None:
                attributes[name] = list(several)
            elif has_value(cells[place]):
                attributes[name] = cells[place]
        if catalogue.sold_out[place]:
            attributes[SOLD_OUT] = True
        found.append(Picture(item_id, path, attributes, catalogue.products[place]))
    return found

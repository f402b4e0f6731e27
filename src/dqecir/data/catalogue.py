"""Read a shop's catalogue: a folder of images, and a table of their attributes.

The table (``attributes.csv``, or another file that ``tables.py`` reads) has a column ``image`` (paths
relative to the folder), optionally a column ``split`` (train, val, test) and a column ``set`` (the name of a
set of near-identical images; empty for an image in none), and one column for each attribute. An empty cell
means that the attribute does not apply, ``?`` that it is unknown. Columns have roles (``column_roles.py``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dqecir.data.catalogue_table import SPLITS, CatalogueTable, read_catalogue_table
from dqecir.data.cells import UNKNOWN
from dqecir.data.column_roles import Role
from dqecir.data.row_pictures import path_problem
from dqecir.data.triplets import Positions
from dqecir.errors import CatalogueError, DataError
from dqecir.io.progress import track
from dqecir.settings import nearest

_DEV_SHARE = 0.15
_SPLIT_SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class CatalogueReport:
    """The result of checking a catalogue; it can be used if ``problems`` is empty."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: Mapping[str, int]
    """``images`` -> number of all images. If the table has no problem, also name of each split of
    ``Catalogue.splits`` -> number of its images."""
    products: int = 0
    variants: int = 0
    """Number of rows with a price (in a product without prices: with an attribute) whose product has several
    such rows."""
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Attribute -> value (also ``?``) -> number of images that have it, the commonest value first. An image
    may have several values."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Column of the table -> its role."""


@dataclass(frozen=True)
class Catalogue:
    """The images of a catalogue, their attributes and splits; an image is referred to by its position."""

    folder: Path
    image_ids: tuple[str, ...]
    """Paths of the files relative to the folder. If several products share a file, ``@`` and the product's id
    are appended for all but the first."""
    image_paths: tuple[Path, ...]
    attributes: Mapping[str, tuple[str, ...]]
    """Column -> one value for each image; empty if it does not apply, ``UNKNOWN`` if it is unknown. If an
    image has several prices, it is the lowest; several other values are joined with ", ". Empty columns
    are left out."""
    splits: Mapping[str, Positions]
    """Name -> positions: ``train``, ``dev`` (15 % of the products or sets in the table's train, drawn with
    the seed), ``train_all`` (both), ``val``, ``test``."""
    sets: tuple[str, ...] | None = None
    """Name of the set of near-identical images that each image is in, empty for none; all images of a set are
    in one split. None if the catalogue has no sets."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Column of the table -> its role."""
    sold_out: tuple[bool, ...] = ()
    """For each image, whether its product is sold out."""
    products: tuple[str, ...] = ()
    """For each image, the id of the product that it shows, or else the path of the product's first picture.
    May be empty if every image shows another product."""
    several: Mapping[str, Mapping[int, tuple[str, ...]]] = field(default_factory=dict)
    """Column -> position of an image -> its values, for images with several values."""
    warnings: tuple[str, ...] = ()
    """Sentences about suspicious cells of the table."""

    @property
    def has_views(self) -> bool:
        """Whether some product has several images."""
        return len(set(self.products)) < len(self.products)

    @property
    def units(self) -> tuple[str, ...]:
        """For each image, the name of its set, or else its product; images with one name share a split."""
        products = self.products if self.has_views else self.image_ids
        return tuple(name or product for name, product in zip(self.sets or products, products, strict=True))

    @property
    def comparable(self) -> dict[str, tuple[str, ...]]:
        """Column -> one value for each image, for questions; ``UNKNOWN`` if the image has several values.

        Of several prices the lowest counts.
        """
        found = dict(self.attributes)
        for column, several in self.several.items():
            if column in found and self.roles.get(column) != "price":
                cells = enumerate(found[column])
                found[column] = tuple(UNKNOWN if i in several else cell for i, cell in cells)
        return found

    def count_products(self, positions: Positions) -> int:
        """Return the number of products that the images at these positions show."""
        return len({self.products[i] for i in positions}) if self.has_views else len(positions)

    def with_columns(self, columns: Sequence[str]) -> Catalogue:
        """Return the catalogue with only these ``attributes``; ``roles`` and ``several`` keep all columns.

        Raises ``DataError`` for an unknown column.
        """
        for column in columns:
            if column not in self.attributes:
                hint = nearest(column, self.attributes)
                raise DataError(f"the catalogue {self.folder} has no column {column!r}{hint}")
        return replace(self, attributes={column: self.attributes[column] for column in columns})

    def split(self, name: str) -> Positions:
        """Return the positions of a split's images, ascending.

        Raises ``DataError`` if the split is unknown or has no image.
        """
        if name not in self.splits:
            raise DataError(f"the catalogue {self.folder} has no split {name!r}{nearest(name, self.splits)}")
        positions = self.splits[name]
        if positions.size == 0:
            raise DataError(
                f"the split {name!r} of the catalogue {self.folder} has no image: choose another split"
            )
        return positions


def read_catalogue(folder: Path, seed: int = 0, sheet: str | None = None) -> Catalogue:
    """Read the catalogue in ``folder``.

    ``seed`` draws ``dev``, and also train, val and test (80/10/10) if there is no column ``split``. ``sheet``
    names a sheet of a workbook. Default: the one that ``catalogue.yaml`` names, else the first visible one.
    Raises ``CatalogueError`` that lists every problem of the folder.
    """
    table = read_catalogue_table(Path(folder), sheet)
    if table.problems:
        raise CatalogueError(Path(folder), table.problems)
    return _catalogue(Path(folder), table, seed)


def check_catalogue(
    folder: Path,
    seed: int = 0,
    decode: Callable[[Path], object] | None = None,
    sheet: str | None = None,
    quiet: bool = True,
) -> CatalogueReport:
    """Check the catalogue in ``folder``: list every problem and warning, and count its images and values.

    ``decode`` opens one image, and raises ``ValueError`` or ``OSError`` if it cannot; without it, files only
    have to exist. ``seed`` and ``sheet`` as in :func:`read_catalogue`. ``quiet``: whether to hide the
    progress.
    """
    folder = Path(folder)
    table = read_catalogue_table(folder, sheet)
    problems = list(table.problems)
    files = dict.fromkeys(view.file for view in table.views if path_problem(view.file) is None)
    for name in track(list(files) if decode else [], "checking pictures", quiet=quiet):
        if decode and os.path.isfile(folder / name):  # noqa: PTH113  (as FileNames.find)
            try:
                decode(folder / name)
            except (ValueError, OSError) as error:
                problems.append(f"image {name!r} cannot be opened: {error}")
    values = {
        column: dict(Counter(filter(None, table.values(column))).most_common()) for column in table.attributes
    }
    counts = {"images": len(table.images)}
    if table.images and not table.problems:
        splits = _catalogue(folder, table, seed).splits
        counts |= {name: len(positions) for name, positions in splits.items()}
    return CatalogueReport(
        tuple(problems),
        tuple(table.warnings),
        counts,
        len(set(table.products)),
        table.variants,
        values,
        table.roles,
    )


def _catalogue(folder: Path, table: CatalogueTable, seed: int) -> Catalogue:
    attributes = {name: tuple(cells) for name, cells in table.attributes.items() if any(cells)}
    sets = tuple("" if name == UNKNOWN else name for name in table.of_role("set"))
    catalogue = Catalogue(
        folder,
        tuple(table.images),
        tuple(folder / view.file for view in table.views),
        attributes,
        {},
        sets if any(sets) else None,
        table.roles,
        tuple(table.sold_out),
        tuple(table.products),
        table.several,
        tuple(table.warnings),
    )
    return replace(catalogue, splits=_splits(catalogue, table.of_role("split"), seed))


def _splits(catalogue: Catalogue, named: Sequence[str], seed: int) -> dict[str, Positions]:
    units = catalogue.units
    rng = np.random.default_rng(seed)
    everything: Positions = np.arange(len(units), dtype=np.int64)
    if named:
        parts = [everything[np.array([value == name for value in named])] for name in SPLITS]
    else:
        parts = _cut(everything, units, _SPLIT_SHARES, rng)
    splits = dict(zip(SPLITS, parts, strict=True))
    train, dev = _cut(splits["train"], units, (1 - _DEV_SHARE, _DEV_SHARE), rng)
    return {
        "train": train,
        "dev": dev,
        "train_all": splits["train"],
        "val": splits["val"],
        "test": splits["test"],
    }


def _cut(
    positions: Positions, units: Sequence[str], shares: Sequence[float], rng: np.random.Generator
) -> list[Positions]:
    """Split positions at random into parts with these ``shares``; positions with the same unit stay together.

    The result does not depend on the order of rows.
    """
    members: dict[str, list[int]] = {}
    for position in positions.tolist():
        members.setdefault(units[position], []).append(position)
    by_name = sorted(members)
    drawn = [members[by_name[place]] for place in rng.permutation(len(by_name))]
    ends = np.rint(np.cumsum(shares[:-1]) * len(drawn)).astype(int).tolist()
    parts = [drawn[start:stop] for start, stop in zip([0, *ends], [*ends, None], strict=True)]
    return [np.array(sorted(i for unit in part for i in unit), dtype=np.int64) for part in parts]

"""A catalogue as a shop has one: a folder of images and a table of their attributes.

``attributes.csv`` has a column ``image`` (paths relative to the folder), perhaps a column ``split``
(train, val, test), perhaps a column ``set`` (names the sets of near-identical images; empty where an
image is in none), and one column an attribute. An empty cell does not apply, ``?`` is unknown.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from dqecir.data.cells import UNKNOWN, has_value
from dqecir.data.triplets import Positions
from dqecir.errors import CatalogueError, DataError
from dqecir.settings import nearest

TABLE = "attributes.csv"
SPLITS = ("train", "val", "test")
RESERVED = ("image", "split", "set")
"""Columns that are no attributes."""

_DEV_SHARE = 0.15
_SPLIT_SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class CatalogueReport:
    """What a check of a catalogue found; it can be used where ``problems`` is empty."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: Mapping[str, int]
    """Number of images: under ``images`` in all, and under the name of each split."""
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Number of images of each attribute's values, the commonest first."""


@dataclass(frozen=True)
class Catalogue:
    """Images, their attributes and their splits; images are spoken of by position."""

    folder: Path
    image_ids: tuple[str, ...]
    """The paths as the table writes them."""
    image_paths: tuple[Path, ...]
    attributes: Mapping[str, tuple[str, ...]]
    """Column -> one value an image; ``""`` where it does not apply, ``UNKNOWN`` where nobody knows it."""
    splits: Mapping[str, Positions]
    """``train``, ``dev`` (a seeded 15 % taken out of train), ``train_all`` (both), ``val``, ``test``."""
    sets: tuple[str, ...] | None = None
    """The set of near-identical images that each image is in, ``""`` for none; a set lies in one split.
    ``None`` where the catalogue has no sets."""

    def with_columns(self, columns: Sequence[str]) -> Catalogue:
        """The same images described by some of the columns alone; ``DataError`` for an unknown one."""
        for column in columns:
            if column not in self.attributes:
                hint = nearest(column, self.attributes)
                raise DataError(f"the catalogue {self.folder} has no column {column!r}{hint}")
        return replace(self, attributes={column: self.attributes[column] for column in columns})

    def split(self, name: str) -> Positions:
        """Positions, ascending, of the images of a split; ``DataError`` where there is none."""
        if name not in self.splits:
            raise DataError(f"the catalogue {self.folder} has no split {name!r}{nearest(name, self.splits)}")
        positions = self.splits[name]
        if positions.size == 0:
            raise DataError(f"the split {name!r} of the catalogue {self.folder} holds no image")
        return positions


def read_catalogue(folder: Path, seed: int = 0) -> Catalogue:
    """Read a catalogue; ``seed`` draws ``dev``, and train/val/test (80/10/10) where no column ``split`` does.

    Raises ``CatalogueError`` with every problem of the folder at once.
    """
    table = _Table.read(Path(folder))
    if table.problems:
        raise CatalogueError(table.folder, table.problems)
    return table.catalogue(seed)


def check_catalogue(
    folder: Path, seed: int = 0, decode: Callable[[Path], object] | None = None
) -> CatalogueReport:
    """Say everything that is wrong or odd with a catalogue, and count what it holds.

    ``decode`` opens one image and raises ``ValueError`` or ``OSError`` where it cannot; without it
    images are only looked for.
    """
    table = _Table.read(Path(folder))
    problems = list(table.problems)
    for name in dict.fromkeys(table.column("image")) if decode else ():
        path = table.folder / name
        if decode and not _path_problem(name) and path.is_file():
            try:
                decode(path)
            except (ValueError, OSError) as error:
                problems.append(f"image {name!r} cannot be opened: {error}")
    values = {
        column: dict(Counter(value for value in table.column(column) if value).most_common())
        for column in table.attribute_columns
    }
    counts = {"images": len(table.rows)}
    if not table.problems:
        counts |= {name: len(positions) for name, positions in table.catalogue(seed).splits.items()}
    return CatalogueReport(tuple(problems), tuple(table.warnings), counts, values)


class _Table:
    """The rows of ``attributes.csv`` and what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: list[str] = []
        self.rows: list[list[str]] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []

    @classmethod
    def read(cls, folder: Path) -> _Table:
        table = cls(folder)
        text = table._text()
        if text is None:
            return table
        table._parse(text)
        if table.rows:
            table._check_images()
            table._check_splits()
            table._check_attributes()
        return table

    @property
    def attribute_columns(self) -> list[str]:
        return [name for name in self.header if name not in (*RESERVED, "")]

    def column(self, name: str) -> list[str]:
        if name not in self.header:
            return []
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def catalogue(self, seed: int) -> Catalogue:
        ids = self.column("image")
        attributes = {name: tuple(self.column(name)) for name in self.attribute_columns}
        kept = {name: values for name, values in attributes.items() if any(values)}
        paths = tuple(self.folder / name for name in ids)
        sets = tuple("" if name == UNKNOWN else name for name in self.column("set"))
        splits = self._splits(ids, sets, seed)
        return Catalogue(self.folder, tuple(ids), paths, kept, splits, sets if any(sets) else None)

    def _text(self) -> str | None:
        path = self.folder / TABLE
        if not self.folder.is_dir():
            self.problems.append("there is no such folder")
        elif not path.is_file():
            self.problems.append(
                f"there is no file {TABLE} in it: write one with a column image and your attributes"
            )
        else:
            try:
                return path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                self.problems.append(f"{TABLE} is not UTF-8 text (byte {error.start}): save it as UTF-8")
            except OSError as error:
                self.problems.append(f"{TABLE} cannot be read: {error.strerror}")
        return None

    def _parse(self, text: str) -> None:
        reader = csv.reader(io.StringIO(text, newline=""))
        try:
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
        except csv.Error as error:
            self.problems.append(f"{TABLE} line {reader.line_num} is not CSV: {error}")
            return
        if not lines:
            self.problems.append(f"{TABLE} is empty")
            return
        self.header = lines[0][1]
        self._check_header()
        for number, row in lines[1:]:
            if len(row) == len(self.header):
                self.rows.append(row)
            else:
                self.problems.append(
                    f"{TABLE} line {number} has {len(row)} cells where the header has {len(self.header)}"
                )
        if len(lines) == 1:
            self.problems.append(f"{TABLE} has a header and no rows")

    def _check_header(self) -> None:
        if "image" not in self.header:
            hint = nearest("image", self.header) if self.header else ""
            self.problems.append(f"{TABLE} has no column image{hint}")
        if not self.attribute_columns:
            self.problems.append(f"{TABLE} has no attribute column: add one, such as color")
        if "path" in self.header:
            self.problems.append(f"{TABLE} has an attribute 'path', which an index needs: rename the column")
        for name, times in Counter(self.header).items():
            if not name:
                self.problems.append(f"{TABLE} has a column without a name")
            elif times > 1:
                self.problems.append(f"{TABLE} has {times} columns named {name!r}")

    def _check_images(self) -> None:
        for name, times in Counter(self.column("image")).items():
            problem = _path_problem(name)
            if problem:
                self.problems.append(problem)
                continue
            if times > 1:
                self.problems.append(f"image {name!r} stands in {times} rows")
            if not (self.folder / name).is_file():
                self.problems.append(f"image {name!r} is not in the folder")

    def _check_splits(self) -> None:
        for name, times in sorted(Counter(self.column("split")).items()):
            if name not in SPLITS:
                self.problems.append(f"{times} rows have the split {name!r}; a split is train, val or test")
        if not {"set", "split"} <= set(self.header):
            return
        splits_of: dict[str, set[str]] = {}
        for name, split in zip(self.column("set"), self.column("split"), strict=True):
            splits_of.setdefault(name, set()).add(split)
        for name, splits in splits_of.items():
            if has_value(name) and len(splits) > 1:
                self.problems.append(
                    f"the set {name!r} is in the splits {', '.join(sorted(splits))}: keep a set in one split"
                )

    def _check_attributes(self) -> None:
        for name in self.attribute_columns:
            values = {value for value in self.column(name) if value}
            if not values:
                self.warnings.append(f"column {name!r} is empty everywhere and is left out")
            elif len(values) > 20 and len(values) == len(self.rows):
                self.warnings.append(f"column {name!r} has another value in every row: is it an id?")
            folded: dict[str, list[str]] = {}
            for value in sorted(values):
                folded.setdefault(value.casefold(), []).append(value)
            for spellings in folded.values():
                if len(spellings) > 1:
                    self.warnings.append(
                        f"column {name!r} spells one value in several ways: {', '.join(spellings)}"
                    )

    def _splits(self, ids: Sequence[str], sets: Sequence[str], seed: int) -> dict[str, Positions]:
        units = [name or image for name, image in zip(sets, ids, strict=True)] if any(sets) else ids
        rng = np.random.default_rng(seed)
        everything: Positions = np.arange(len(ids), dtype=np.int64)
        named = self.column("split")
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
    """Part images at random by share, each unit whole; the order of the table's rows does not matter."""
    members: dict[str, list[int]] = {}
    for position in positions.tolist():
        members.setdefault(units[position], []).append(position)
    by_name = sorted(members)
    drawn = [members[by_name[place]] for place in rng.permutation(len(by_name))]
    ends = np.rint(np.cumsum(shares[:-1]) * len(drawn)).astype(int).tolist()
    parts = [drawn[start:stop] for start, stop in zip([0, *ends], [*ends, None], strict=True)]
    return [np.array(sorted(i for unit in part for i in unit), dtype=np.int64) for part in parts]


def _path_problem(name: str) -> str | None:
    if not name:
        return "a row names no image"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return f"image {name!r} is an absolute path: write it relative to the folder"
    if ".." in name.replace("\\", "/").split("/"):
        return f"image {name!r} leads out of the folder"
    return None

"""Read the table of a catalogue: its file, its columns with roles, the pictures of its rows, its problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dqecir.data.availability import is_sold_out, says_available
from dqecir.data.cells import currency_in, decimal_sign, folded, has_value, number_in, plainly
from dqecir.data.column_roles import NOT_IN_INDEX, Role, column_name, roles_of
from dqecir.data.currencies import currency_code
from dqecir.data.exports import plain_table
from dqecir.data.misspelt import misspelt_values
from dqecir.data.payload_fields import RESERVED
from dqecir.data.products import SEPARATOR, View, product_conflicts, product_ids, view_cells, views_of
from dqecir.data.row_pictures import row_pictures
from dqecir.data.tables import TABLE_SUFFIXES, read_table
from dqecir.errors import DataError, counted
from dqecir.settings import Strict, nearest, read_settings

TABLE = "attributes.csv"
SETTINGS = "catalogue.yaml"
_OTHER_SUFFIXES = (".txt", ".json", ".xls", ".xlsm", ".ods", ".html", ".htm", ".xml", ".pdf")
SPLITS = ("train", "val", "test")

_SHOWN = 10
_WRITTEN_UNKNOWN = frozenset({"n/a", "n.a.", "nan", "null", "unknown", "unbekannt", "tbd", "k.a.", "-", "--"})
"""Cells with which people write that a value is unknown."""
_NUMERIC = 0.8
"""Share of a column's cells that must be numbers for it to count as a column of numbers."""


class CatalogueSettings(Strict):
    """The settings in ``catalogue.yaml`` of a catalogue."""

    table: str | None = None
    """File name of the table. Default: as in :func:`find_table`."""
    sheet: str | None = None
    """Name of a workbook's sheet. Default: the first visible one."""
    roles: Mapping[str, Role] = {}
    """Column -> its role. Default: guessed from its name and its cells."""


@dataclass
class CatalogueTable:
    """The pictures that a table names, its columns, and its problems and warnings.

    A view is a picture of a product.
    """

    name: str = TABLE
    views: list[View] = field(default_factory=list)
    """The pictures, product by product."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """Column -> its cells, one for each view, without columns of pictures. If a view has several prices, the
    cell has the lowest; several other values are joined with ", "."""
    several: dict[str, dict[int, tuple[str, ...]]] = field(default_factory=dict)
    """Column -> number of a view -> its values, for views with several values."""
    variants: int = 0
    """Number of rows with a price (in a product without prices: with an attribute) whose product has several
    such rows."""
    roles: dict[str, Role] = field(default_factory=dict)
    """Column of the table -> its role."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[str]:
        """The id of each view."""
        return [view.id for view in self.views]

    @property
    def products(self) -> list[str]:
        """The id of the product that each view shows."""
        return [view.product for view in self.views]

    @property
    def attributes(self) -> dict[str, list[str]]:
        """Those of ``columns`` that are attributes of items."""
        return {name: cells for name, cells in self.columns.items() if self.roles[name] not in NOT_IN_INDEX}

    @property
    def sold_out(self) -> list[bool]:
        """For each view, whether its product is sold out."""
        told = {name: cells for name, cells in self.columns.items() if self.roles[name] == "availability"}
        rows = zip(*told.values(), strict=True) if told else [()] * len(self.images)
        return [is_sold_out(dict(zip(told, row, strict=True))) for row in rows]

    def values(self, name: str) -> list[str]:
        """Return all values of a column, view by view; a view may have several."""
        several = self.several.get(name, {})
        return [value for view, cell in enumerate(self.columns[name]) for value in several.get(view, (cell,))]

    def of_role(self, role: Role) -> list[str]:
        """Return the cells of the first column with this role; empty if there is none."""
        return next((cells for name, cells in self.columns.items() if self.roles[name] == role), [])


def find_table(folder: Path) -> Path | None:
    """Return the file of a folder's table; None if there is none.

    It is the file that ``catalogue.yaml`` names, else ``attributes.csv``, else ``attributes`` with another
    suffix, else the only table in the folder. Raises ``DataError`` if there are several, if
    ``catalogue.yaml`` cannot be read, or if the file that it names is missing.
    """
    return _find_table(folder, _settings(folder))


def table_of_pictures(folder: Path, sheet: str | None = None) -> Path | None:
    """Return the table of a folder of pictures, as :func:`find_table` does; None if there is none.

    Without ``sheet`` and settings in ``catalogue.yaml``, a table with another name than ``attributes`` counts
    only if it is the only one and names pictures. ``sheet`` is the sheet of a workbook that the user names.
    Raises ``DataError`` as :func:`find_table`.
    """
    settings = _settings(folder)
    if sheet is None and settings == CatalogueSettings() and not _called_attributes(folder):
        tables = _tables(folder)
        if len(tables) != 1 or not _names_pictures(tables[0]):
            return None
    return _find_table(folder, settings)


def read_catalogue_table(folder: Path, sheet: str | None = None) -> CatalogueTable:
    """Read the table of a folder; whatever cannot be used is listed in ``problems`` of the result.

    ``sheet`` names a sheet of a workbook. Default: the one that ``catalogue.yaml`` names, else the first
    visible one.
    """
    table = CatalogueTable()
    try:
        _read(table, folder, sheet)
    except DataError as error:
        table.problems.append(str(error))
    if table.views:
        _check_splits(table)
        for name in table.attributes:
            _check_values(table, name, table.values(name))
    return table


def _settings(folder: Path) -> CatalogueSettings:
    path = folder / SETTINGS
    if not path.is_file() and (other := path.with_suffix(".yml")).is_file():
        raise DataError(f"{other.name} is not read: name it {SETTINGS}")
    return read_settings(path, CatalogueSettings) if path.is_file() else CatalogueSettings()


def _find_table(folder: Path, settings: CatalogueSettings) -> Path | None:
    if settings.table is not None:
        if not (folder / settings.table).is_file():
            raise DataError(
                f"{SETTINGS} names the table {settings.table}, which is not there: correct its name"
            )
        return folder / settings.table
    called = _called_attributes(folder)
    tables = [path for path in called if path.name == TABLE] or called or _tables(folder)
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise DataError(
            f"there are several tables ({names}): write `table: {tables[0].name}` into {SETTINGS}"
        )
    return tables[0] if tables else None


def _tables(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        # Spreadsheet programs keep a file ~$NAME beside an open workbook.
        if path.suffix.casefold() in TABLE_SUFFIXES
        and not path.name.startswith((".", "~$"))
        and path.is_file()
    )


def _called_attributes(folder: Path) -> list[Path]:
    """Return the files named ``attributes`` with a known suffix; if there are none, those with any suffix."""
    named = sorted(path for path in folder.iterdir() if path.name.casefold().startswith("attributes."))
    for suffixes in (TABLE_SUFFIXES, _OTHER_SUFFIXES):
        if found := [path for path in named if path.suffix.casefold() in suffixes and path.is_file()]:
            return found
    return []


def _names_pictures(path: Path) -> bool:
    try:
        table = plain_table(read_table(path))
    except DataError:
        return False
    names = [column_name(name) for name in table.header]
    return "image" in roles_of(
        names, [[row.cells[place] for row in table.rows] for place in range(len(names))]
    )


def _read(table: CatalogueTable, folder: Path, sheet: str | None) -> None:
    if not folder.is_dir():
        raise DataError("there is no such folder: check the path")
    settings = _settings(folder)
    path = _find_table(folder, settings)
    if path is None:
        raise DataError(f"there is no file {TABLE} in it: write one with a column image and your attributes")
    table.name = path.name
    if others := [one.name for one in _called_attributes(folder) if one != path and settings.table is None]:
        table.warnings.append(
            f"{path.name} is read, and not {', '.join(others)}: write `table: {others[0]}` into {SETTINGS} "
            "to read that"
        )
    raw = plain_table(read_table(path, sheet or settings.sheet))
    table.problems += raw.problems
    table.warnings += raw.notes
    names = [column_name(name) for name in raw.header]
    columns = [[row.cells[place] for row in raw.rows] for place in range(len(names))]
    roles = roles_of(names, columns)
    _tell(table, names, roles, settings.roles)
    table.roles = dict(zip(names, roles, strict=True))
    if names:
        _check_header(table, names)
    if "image" not in roles or not raw.rows:
        return
    lines = [row.line for row in raw.rows]
    columns = [
        _with_plain_numbers(table, name, cells, role == "price") if role in ("attribute", "price") else cells
        for name, role, cells in zip(names, roles, columns, strict=True)
    ]
    shown = [columns[roles.index("image")]]
    shown += [cells for role, cells in zip(roles, columns, strict=True) if role == "further images"]
    pictures = row_pictures(folder, list(zip(*shown, strict=True)), lines)
    attributes = [cells for role, cells in zip(roles, columns, strict=True) if role == "attribute"]
    found = views_of(pictures.pictures, product_ids(names, roles, columns), lines, attributes)
    table.views = [*found.views]
    table.problems += found.problems
    table.warnings += [*pictures.warnings, *found.warnings]
    for name, role, cells in zip(names, roles, columns, strict=True):
        if role not in ("image", "further images"):
            _add_column(table, name, role, view_cells(table.views, cells, name, role))
        if role == "title" and (conflicts := product_conflicts(table.views, cells, lines)):
            _warn_of_conflicts(table, name, conflicts)
    table.variants = _count_variants(table.views, roles, columns)


def _add_column(table: CatalogueTable, name: str, role: Role, values: Sequence[tuple[str, ...]]) -> None:
    shown = [own[:1] if role == "price" else own for own in values]
    table.columns[name] = [", ".join(own) for own in shown]
    several = {view: own for view, own in enumerate(values) if len(own) > 1}
    if several:
        table.several[name] = several


def _warn_of_conflicts(table: CatalogueTable, name: str, conflicts: Sequence[str]) -> None:
    more = f"; and {len(conflicts) - _SHOWN} more products" if len(conflicts) > _SHOWN else ""
    table.warnings.append(
        f"rows of one product differ in {name!r}, so each picture has the value of its own row: "
        f"{'; '.join(conflicts[:_SHOWN])}{more}"
    )


def _count_variants(views: Sequence[View], roles: Sequence[Role], columns: Sequence[Sequence[str]]) -> int:
    """Return how many rows with a price (or else an attribute) belong to products with several such rows."""
    priced, described = (
        [cells for its, cells in zip(roles, columns, strict=True) if its == role]
        for role in ("price", "attribute")
    )
    count = 0
    for rows in {view.product: view.variants for view in views if len(view.variants) > 1}.values():
        with_price, with_attribute = (
            sum(any(has_value(cells[row]) for cells in of_role) for row in rows)
            for of_role in (priced, described)
        )
        own = with_price or with_attribute
        count += own if own > 1 else 0
    return count


def _tell(table: CatalogueTable, names: Sequence[str], roles: list[Role], told: Mapping[str, Role]) -> None:
    """Set the roles that the user gives in ``told``; if one is ``image``, no other column keeps that role."""
    for name, role in told.items():
        if column_name(name) not in names:
            table.problems.append(
                f"{SETTINGS} names the column {name!r}, which {table.name} does not "
                f"have{nearest(name, names)}"
            )
            continue
        if role == "image":
            roles[:] = ["further images" if its == "image" else its for its in roles]
        roles[names.index(column_name(name))] = role


def _with_plain_numbers(table: CatalogueTable, name: str, cells: list[str], is_price: bool) -> list[str]:
    """Rewrite the cells of a column of numbers so that each can be read without the others.

    The cells of other columns are returned unchanged. Adds warnings about the column to ``table``.
    """
    given = [value for cell in cells for value in cell.split(SEPARATOR) if has_value(value)]
    odd = [value for value in given if number_in(value) is None]
    if not given or (not is_price and len(odd) > (1 - _NUMERIC) * len(given)):
        return cells
    if odd:
        table.warnings.append(f"column {name!r} has no number in {len(odd)} of its cells: {_listed(odd)}")
    currencies = sorted({currency for value in given if (currency := currency_in(value)) is not None})
    if len(currencies) > 1:
        table.warnings.append(_several_currencies(name, currencies))
    sign = decimal_sign(given)
    plain = {value: plainly(value, sign, is_price) for value in given}
    if changed := next((value for value in plain if plain[value] != value), None):
        table.warnings.append(
            f"column {name!r}: {changed!r} is read as {plain[changed]!r}, as the column writes its numbers"
        )
    return [SEPARATOR.join(plain.get(value, value) for value in cell.split(SEPARATOR)) for cell in cells]


def _several_currencies(name: str, currencies: Sequence[str]) -> str:
    return (
        f"column {name!r} has several currencies ({_listed(currencies)}), and prices are compared without "
        "converting them: write all prices in one currency"
    )


def _listed(cells: Sequence[str]) -> str:
    different = [*dict.fromkeys(cells)]
    return ", ".join(map(repr, different[:_SHOWN])) + (", …" if len(different) > _SHOWN else "")


def _check_header(table: CatalogueTable, names: Sequence[str]) -> None:
    if "image" not in table.roles.values():
        hint = nearest("image", [name for name in names if name not in ("", "image")])
        table.problems.append(
            f"{table.name} has no column image: name the column of the pictures so, or give it this role in "
            f"{SETTINGS}{hint}"
        )
    if not any(role not in NOT_IN_INDEX for name, role in table.roles.items() if name):
        table.problems.append(f"{table.name} has no attribute column: add one, such as color")
    for name in sorted(RESERVED):
        if table.roles.get(name) not in (None, *NOT_IN_INDEX):
            table.problems.append(
                f"{table.name} has a column {name!r}, a name that an index uses itself: rename the column"
            )
    for name, times in Counter(names).items():
        if not name:
            table.problems.append(f"{table.name} has a column without a name: name it or remove it")
        elif times > 1:
            table.problems.append(
                f"{table.name} has {times} columns named {name!r}: rename or remove all but one"
            )


def _check_splits(table: CatalogueTable) -> None:
    splits, sets = table.of_role("split"), table.of_role("set")
    for name, times in sorted(Counter(splits).items()):
        if name not in SPLITS:
            first = table.views[splits.index(name)].file
            who = f"{first} has" if times == 1 else f"{first} and {counted(times - 1, 'more picture')} have"
            table.problems.append(f"{who} the split {name!r}: write train, val or test")
    for kind, units in (("set", sets), ("product", table.products)):
        splits_of: dict[str, set[str]] = {}
        # A table may have no column of splits, or none of sets.
        for name, split in zip(units, splits, strict=True) if units and splits else ():
            splits_of.setdefault(name, set()).add(split)
        for name, found in splits_of.items():
            if has_value(name) and len(found) > 1:
                names = ", ".join(sorted(found))
                table.problems.append(
                    f"the {kind} {name!r} is in the splits {names}: keep a {kind} in one split"
                )


def _check_values(table: CatalogueTable, name: str, cells: Sequence[str]) -> None:
    counts = Counter(cell for cell in cells if cell)
    if not counts:
        table.warnings.append(f"column {name!r} is empty everywhere and is left out")
        return
    if table.roles[name] == "availability" and (
        odd := [cell for cell in counts if has_value(cell) and says_available(name, cell) is None]
    ):
        table.warnings.append(
            f"column {name!r} does not say whether the product is in stock in {sum(counts[c] for c in odd)} "
            f"of its cells, which count as in stock: {_listed(odd)}"
        )
    if table.roles[name] == "currency":
        currencies = sorted({currency_code(cell) for cell in counts if has_value(cell)})
        if len(currencies) > 1:
            table.warnings.append(_several_currencies(name, currencies))
    if table.roles[name] != "attribute":
        return
    if len(counts) > 20 and len(counts) == len(cells):
        table.warnings.append(f"column {name!r} has another value in every row: is it an id?")
    for value in counts:
        if folded(value) in _WRITTEN_UNKNOWN:
            table.warnings.append(
                f"column {name!r} has {value!r} {_times(counts[value])}: write ? for an unknown value, or "
                "leave the cell empty if none applies"
            )
    spellings: dict[str, list[str]] = {}
    for value in sorted(counts):
        spellings.setdefault(folded(value), []).append(value)
    for alike in spellings.values():
        if len(alike) > 1:
            table.warnings.append(f"column {name!r} spells one value in several ways: {', '.join(alike)}")
    for value, meant in misspelt_values(counts).items():
        table.warnings.append(
            f"column {name!r} has {value!r} {_times(counts[value])} and {meant!r} {_times(counts[meant])}: "
            "is it misspelt?"
        )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"

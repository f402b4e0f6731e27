"""Read a table: CSV from any program, Excel workbooks (.xlsx) and JSON lines.

The format is recognised by the contents of the file, not by its name.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from dqecir.data.cells import UNKNOWN
from dqecir.data.picture_files import PICTURE_SUFFIXES
from dqecir.errors import DataError, counted, reason_of
from dqecir.settings import nearest

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson")
_NO_TABLE = re.compile(r"\s*(?:<(?:!doctype|\?xml|html|table|rss|feed)\b|\[(?=\s*[{\]]))", re.IGNORECASE)
"""How files begin that are no tables: web pages, XML, JSON arrays."""
_EXPORT = "export it as CSV, as .xlsx or as JSON lines (an object a line)"
MAX_BYTES = 500_000_000
MAX_UNPACKED = 500_000_000
"""Most bytes of all parts of a workbook, unpacked."""
MAX_ROWS = 2_000_000
MAX_COLUMNS = 1_000
MAX_CELL = 1_000_000
"""Most characters of a cell in CSV."""
_LISTED = 5

_PICTURE = re.compile(
    rf"(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))})(?:[?#].*)?$|^(?:https?:)?//", re.IGNORECASE
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_MANY = 8
"""If so many of the first bytes are of this kind, the file is no text."""
_AROUND = "\u200b\u2060\ufeff"
"""Characters without width that copying leaves around cells."""
_ERROR = re.compile(r"#(?:N/A|REF!|VALUE!|DIV/0!|NAME\?|NULL!|NUM!|SPILL!|CALC!)")
"""What a spreadsheet shows if a formula fails."""
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="(([A-Z]+)([0-9]+):[A-Z]+([0-9]+))"')
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")


@dataclass(frozen=True)
class Row:
    """The cells of a row, one for each column, and its first line in the file (or its row in the sheet)."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A header and the rows below it.

    ``problems`` are sentences about what the user must correct: rows that could not be read, a missing
    header, too many rows or columns.
    """

    name: str
    header: tuple[str, ...]
    """Names of the columns, without blanks at the ends."""
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for the user about how the file was read."""


def read_table(path: Path, sheet: str | None = None) -> Table:
    """Read a table; cells are in one Unicode form (NFC), and without blanks at the ends.

    ``sheet`` names a sheet of a workbook. Default: the first visible one. A cell with an error of a
    spreadsheet, such as ``#REF!``, becomes ``?``. A list in JSON becomes its entries with ", " between them.

    Raises :class:`DataError` if the file cannot be read or is no table, and for a sheet that it does not
    have; problems of single rows are in ``problems`` of the result.
    """
    name = path.name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{name} is larger than {MAX_BYTES:,} bytes: split it")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}; check the path") from None
    if data.startswith(b"PK\x03\x04"):
        return _workbook(name, data, sheet)
    if sheet is not None:
        raise DataError(f"{name} is not a workbook (.xlsx), so it has no sheet {sheet!r}: name no sheet")
    if data.startswith(b"\xd0\xcf\x11\xe0") and "EncryptedPackage".encode("utf-16-le") in data:
        raise DataError(f"{name} is a workbook with a password: save it without one")
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{name} is an old Excel workbook (.xls): save it as .xlsx or as CSV")
    if data.startswith(b"%PDF-"):
        raise DataError(f"{name} is a PDF, not a table: {_EXPORT}")
    text, notes = _text(name, data)
    if found := _NO_TABLE.match(text):
        kind = "a JSON array" if found[0].endswith("[") else "a web page or XML"
        raise DataError(f"{name} is {kind}, not a table: {_EXPORT}")
    if text.lstrip().startswith("{"):
        return _json_lines(name, text, notes)
    return _csv(name, text, notes)


def _text(name: str, data: bytes) -> tuple[str, list[str]]:
    """Decode a file to its text and notes: UTF-8, UTF-16, UTF-32, or else Windows-1252 with a note."""
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif (zeros := data[:4096].count(0)) and zeros >= len(data[:4096]) // 4:
        # Without a byte order mark, the zero bytes of Latin letters show the byte order.
        encoding = "utf-16-le" if data[1:4096:2].count(0) > data[0:4096:2].count(0) else "utf-16-be"
    elif len(_BINARY.findall(data[:4096])) > _MANY:
        raise DataError(f"{name} is not a text and not a workbook, so it is not a table: {_EXPORT}")
    try:
        text, notes = data.decode(encoding), []
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise DataError(
                f"{name} begins as {encoding.upper()} and cannot be read to its end: save it as UTF-8"
            ) from None
        if any(not line.isascii() and _is_utf8(line) for line in data.splitlines()):
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{name}, line {line}: this line is not UTF-8, but other lines are: save the whole table as "
                "UTF-8"
            ) from None
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError as other:
            line = data.count(b"\n", 0, other.start) + 1
            raise DataError(
                f"{name}, line {line}: it is not UTF-8 text, and not Windows-1252: save it as UTF-8"
            ) from None
        notes = [f"{name} is not UTF-8; it is read as Windows-1252: check its accents, or save it as UTF-8"]
    if found := _CONTROLS.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise DataError(
            f"{name}, line {line}: the character {found[0]!r} is not allowed in a text: remove it"
        )
    return text, notes


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _csv(name: str, text: str, notes: Sequence[str]) -> Table:
    csv.field_size_limit(MAX_CELL)
    told = re.match(r'"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', text, re.IGNORECASE)
    body, first = (text[told.end() :], 2) if told else (text, 1)
    delimiter = told[1] if told else _delimiter(body)
    rows: list[Row] = []
    problems: list[str] = []
    for found in _records(body, delimiter):
        line = found.line + first - 1
        if isinstance(found, _Broken):
            problems.append(f"{name}, line {line}: {found.why}")
        elif any(found.cells):
            rows.append(Row(line, found.cells))
    return _table(name, rows, problems, notes)


def _delimiter(text: str) -> str:
    """Return the character (comma, semicolon, tab or bar) with which most first rows have one width."""

    def fitness(delimiter: str) -> tuple[bool, int, int]:
        sample = islice(_records(text[:100_000], delimiter), 50)
        widths = Counter(len(row.cells) for row in sample if any(row.cells))
        ((width, alike),) = widths.most_common(1) or [(0, 0)]
        return width > 1, alike, width

    return max(",;\t|", key=fitness)


@dataclass(frozen=True)
class _Broken(Row):
    """A row that cannot be used, and why."""

    why: str


def _records(text: str, delimiter: str) -> Iterator[Row]:
    """Yield every row of a CSV text.

    A row is :class:`_Broken` if a quotation mark is not closed, or only in a later row, or if a cell is
    too long; after a cell that is too long, no more rows are yielded.
    """
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    width = 0
    while True:
        start = reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error:
            too_long = (
                f"a cell has more than {MAX_CELL:,} characters: shorten it, or close its quotation mark"
            )
            yield _Broken(start + 1, (), too_long)
            return
        if cells is None:
            return
        width = width or len(cells)
        taken = lines[start : reader.line_num]
        may_swallow = len(taken) > 1 or reader.line_num == len(lines)
        why = _swallowed(taken, delimiter, width) if may_swallow else None
        row = Row(start + 1, tuple(map(_clean, cells)))
        yield _Broken(row.line, row.cells, why) if why else row


def _swallowed(lines: Sequence[str], delimiter: str, width: int) -> str | None:
    """Return why ``lines`` cannot be one row; None if they can, as with a cell of several lines.

    They cannot if a quotation mark is never closed, or if a later line seems to be a row of its own.
    ``width`` is the number of columns.
    """
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error as error:
        # On one line a mark that is closed too early is harmless: "13" wide.
        if len(lines) == 1 and "end of data" not in str(error):
            return None
        return "a quotation mark is never closed: close it, or write two for an inch sign"
    # A line is a row of its own if it names a picture in the same column as the first.
    first, *others = (_picture_columns(line, delimiter) for line in lines)
    for line, columns in zip(lines[1:], others, strict=True):
        if columns & (first or columns) and len(_cells(line, delimiter)) >= width > 1:
            return "a quotation mark is closed only in a later row: close it in its own row"
    return None


def _picture_columns(line: str, delimiter: str) -> set[int]:
    """Return the positions of the cells of a line that name pictures."""
    return {place for place, cell in enumerate(_cells(line, delimiter)) if _PICTURE.search(cell.strip())}


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _json_lines(name: str, text: str, notes: Sequence[str]) -> Table:
    found: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    broken = 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        try:
            if line.strip():
                found.append((number, _json_cells(line)))
        except DataError as error:
            problems.append(f"{name}, line {number}: {error}")
        except (ValueError, RecursionError) as error:
            broken += 1
            problems.append(f"{name}, line {number}: this is not JSON: {error}")
    if broken > 1 and not found:
        raise DataError(f"{name} does not hold one object in each line: {_EXPORT}")
    header = tuple(dict.fromkeys(key for _, values in found for key in values))
    rows = [Row(number, tuple(values.get(key, "") for key in header)) for number, values in found]
    return _table(name, [Row(0, header), *rows], problems, notes)


def _json_cells(line: str) -> dict[str, str]:
    """Return name -> cell of a JSON object in a line; raises :class:`DataError` if it is no row."""
    # Numbers stay as they are written; a code of 18 digits does not fit a float.
    values = json.loads(
        line, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_without_repetition
    )
    if not isinstance(values, dict):
        raise DataError('an object is expected, such as {"image": "a.jpg"}')
    for key, value in values.items():
        if not _is_cell(value):
            raise DataError(f"{key!r} holds an object: write a text or a number")
    cells = {_clean(key): _of_json(value) for key, value in values.items()}
    for key, cell in cells.items():
        if found := _CONTROLS.search(key + cell):
            raise DataError(f"the character {found[0]!r} in {key!r} is not allowed in a text: remove it")
    return cells


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise DataError(f"the name {key!r} comes several times: keep one")
    return values


def _is_cell(value: object) -> bool:
    if isinstance(value, list):
        return not any(isinstance(part, dict | list) for part in value)
    return not isinstance(value, dict)


def _of_json(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_of_json(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else _clean(value)


def _workbook(name: str, data: bytes, sheet: str | None) -> Table:
    # Imported here, because the library is slow to import and most tables are CSV.
    from openpyxl import load_workbook

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
            if unpacked > MAX_UNPACKED:
                raise DataError(
                    f"{name} unpacks to {unpacked:,} bytes; at most {MAX_UNPACKED:,} are read: split it"
                )
            book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = {one.title: one for one in book.worksheets}
            if not sheets:
                raise DataError(
                    f"{name} has no sheet that can be read: save it as a common .xlsx, not a strict one"
                )
            if sheet is not None and sheet not in sheets:
                raise DataError(f"{name} has no sheet {sheet!r}{nearest(sheet, sheets)}")
            shown = [title for title, one in sheets.items() if one.sheet_state == "visible"]
            chosen: Any = sheets[sheet if sheet is not None else next(iter(shown or sheets))]
            # The library reads merged cells only together with the whole workbook.
            xml = parts.read(chosen._worksheet_path)
        # The size that a sheet states may be wrong.
        chosen.reset_dimensions()
        rounded: list[str] = []
        areas = [tuple(map(bytes.decode, area)) for area in _MERGED.findall(xml)]
        merged = {
            area: (column, int(first), int(last)) for area, column, first, last in areas if first != last
        }
        dates: dict[int, dict[int, str]] = {}
        rows = _with_merged_cells(list(_sheet_rows(chosen, rounded, dates)), merged.values())
        empty = _without_value(data, chosen) if _FORMULA.search(xml) else []
    except DataError:
        raise
    except Exception as error:  # The library raises any kind of exception on damaged files.
        raise DataError(
            f"{name} cannot be read as a workbook ({reason_of(error)}): save it as .xlsx again"
        ) from None
    notes = []
    if others := [title for title in sheets if title != chosen.title]:
        notes.append(
            f"{name}: the sheet {chosen.title!r} is read, and not {', '.join(others)}: "
            "--sheet-name names another one"
        )
    if merged:
        notes.append(
            f"{name}: cells that are merged over several rows count for each of them ({_listed([*merged])})"
        )
    if rounded:
        notes.append(
            f"{name}: spreadsheets round numbers of more than 15 digits ({_listed(rounded)}): give codes the "
            "format of a text, and write them again"
        )
    if odd := _dates_among_others(rows, dates):
        notes.append(
            f"{name}: {counted(len(odd), 'cell')} with a date in columns of other values ({_listed(odd)}): "
            "spreadsheets change sizes such as 10-12 to dates; give the column the format of a text, and "
            "write them again"
        )
    problems = []
    if empty:
        problems = [
            f"{name}: {counted(len(empty), 'formula')} without a stored value ({_listed(empty)}): open the "
            "file in a spreadsheet program and save it there"
        ]
    return _table(name, rows, problems, notes)


def _listed(places: Sequence[str]) -> str:
    return ", ".join(places[:_LISTED]) + (", …" if len(places) > _LISTED else "")


def _with_merged_cells(rows: list[Row], merged: Iterable[tuple[str, int, int]]) -> list[Row]:
    """Give all rows of merged cells (column, first row, last row) the value, which only the first stores."""
    from openpyxl.utils.cell import column_index_from_string

    places = {row.line: place for place, row in enumerate(rows)}
    for letters, first, last in merged:
        column = column_index_from_string(letters)
        for line in range(first + 1, last + 1) if first in places else ():
            if line in places:
                value = rows[places[first]].cells[column - 1 : column]
                cells = rows[places[line]].cells
                rows[places[line]] = Row(line, (*cells[: column - 1], *value, *cells[column:]))
    return rows


def _without_value(data: bytes, values: Any) -> list[str]:
    """Return the places (such as C2) of formulas without a stored value, which would be read as empty."""
    from openpyxl import load_workbook

    formulas: Any = load_workbook(io.BytesIO(data), read_only=True)[values.title]
    formulas.reset_dimensions()
    bounds = {"max_col": MAX_COLUMNS + 1, "max_row": MAX_ROWS + 2}
    return [
        str(formula.coordinate)
        for both in zip(formulas.iter_rows(**bounds), values.iter_rows(**bounds), strict=True)
        for formula, value in zip(*both, strict=True)
        # A formula whose value is an empty text has the kind of a text.
        if formula.data_type == "f" and value.value is None and value.data_type == "n"
    ]


def _dates_among_others(rows: Sequence[Row], dates: Mapping[int, Mapping[int, str]]) -> list[str]:
    """Return the places of dates in columns that also have other values with digits.

    ``dates`` is column -> line -> place. The first row is the header.
    """

    def has_other(column: int, lines: Mapping[int, str]) -> bool:
        cells = (row.cells[column : column + 1] for row in rows[1:] if row.line not in lines)
        return any(any(map(str.isdigit, cell)) for found in cells for cell in found)

    return [place for column, lines in dates.items() if has_other(column, lines) for place in lines.values()]


def _sheet_rows(sheet: Any, rounded: list[str], dates: dict[int, dict[int, str]]) -> Iterator[Row]:
    """Yield the rows of a sheet.

    The places of rounded numbers are added to ``rounded``, and those of dates to ``dates`` (column -> line ->
    place).
    """
    width = 0
    for number, cells in enumerate(sheet.iter_rows(max_col=MAX_COLUMNS + 1, max_row=MAX_ROWS + 2), start=1):
        values = [_of_cell(cell) for cell in cells]
        rounded += [
            cell.coordinate for cell in cells if isinstance(cell.value, float) and abs(cell.value) >= 1e15
        ]
        for column, cell in enumerate(cells):
            if isinstance(cell.value, date):
                dates.setdefault(column, {})[number] = cell.coordinate
        while values and not values[-1]:
            values.pop()
        if values:
            width = width or len(values)
            yield Row(number, tuple(values + [""] * (width - len(values))))


def _of_cell(cell: Any) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and re.fullmatch(r"0+", str(cell.number_format)):
        return str(value).zfill(len(cell.number_format))
    if isinstance(value, float):
        return _of_number(value, "%" in str(cell.number_format))
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).removesuffix("T00:00:00")
    return _clean(str(value))


def _of_number(value: float, is_percent: bool) -> str:
    """Return a number with 15 digits, as a spreadsheet shows it, and without an exponent."""
    digits = f"{100 * value if is_percent else value:.15g}"
    return f"{Decimal(digits):f}" + ("%" if is_percent else "")


def _table(name: str, rows: Iterable[Row], problems: Sequence[str], notes: Sequence[str]) -> Table:
    """Return a table whose header is the first row; rows that do not fit the header become problems."""
    found = list(rows)
    said, told = list(problems), list(notes)
    if not found or not any(found[0].cells):
        return Table(name, (), (), (*said, *(() if said else (f"{name} is empty",))), tuple(notes))
    header, body = found[0].cells, found[1:]
    if sum(map(bool, header)) == 1 and any(sum(map(bool, row.cells)) > 1 for row in body):
        line = found[0].line
        said.append(
            f"{name}, line {line}: this line has one cell, and the lines below have more: remove the lines "
            "above the names of the columns"
        )
        return Table(name, (), (), tuple(said), tuple(notes))
    # Some programs write columns with neither a name nor a value, and cells behind the last column.
    body = [_without_empty_end(row, len(header)) for row in body]
    named = [
        place
        for place, title in enumerate(header)
        if title or any(any(row.cells[place : place + 1]) for row in body)
    ]
    kept = []
    for row in body:
        if len(row.cells) == len(header):
            kept.append(replace(row, cells=tuple(row.cells[place] for place in named)))
        else:
            said.append(
                f"{name}, line {row.line}: the row has {len(row.cells)} cells, but the header has "
                f"{len(header)}: write a cell for each column, and quote cells that contain the separator"
            )
    header = tuple(header[place] for place in named)
    kept, failed = _without_errors(kept)
    if failed:
        told.append(
            f"{name}: {counted(len(failed), 'cell')} with an error of a spreadsheet, taken as unknown "
            f"(lines {_listed(list(dict.fromkeys(map(str, failed))))}): correct their formulas"
        )
    if not body and not said:
        said.append(f"{name} has a header but no rows: add a row for each picture")
    if len(header) > MAX_COLUMNS:
        said.append(f"{name} has more than {MAX_COLUMNS:,} columns: remove those that you do not need")
    if len(kept) > MAX_ROWS:
        said.append(f"{name} has more than {MAX_ROWS:,} rows: split it")
    return Table(name, header, tuple(kept), tuple(said), tuple(told))


def _without_empty_end(row: Row, width: int) -> Row:
    """Return a row without empty cells beyond column number ``width``."""
    cells = row.cells
    while len(cells) > width and not cells[-1]:
        cells = cells[:-1]
    return replace(row, cells=cells)


def _without_errors(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Return rows in which unknown cells replace a spreadsheet's errors, and the line of each such cell."""
    found: list[Row] = []
    lines: list[int] = []
    for row in rows:
        failed = [place for place, cell in enumerate(row.cells) if cell[:1] == "#" and _ERROR.fullmatch(cell)]
        lines += [row.line] * len(failed)
        cells = tuple(UNKNOWN if place in failed else cell for place, cell in enumerate(row.cells))
        found.append(replace(row, cells=cells) if failed else row)
    return found, lines


def _clean(cell: str) -> str:
    return unicodedata.normalize("NFC", cell).strip().strip(_AROUND).strip()

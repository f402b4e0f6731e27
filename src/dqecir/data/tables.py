"""Read a file of rows: CSV as it is exported anywhere, Excel workbooks (.xlsx) and JSON lines.

The format of a file is recognised by its content, not by its name.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dqecir.errors import DataError
from dqecir.settings import nearest

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson")
_NO_TABLE = re.compile(r"\s*(?:<(?:!doctype|\?xml|html|table|rss|feed)\b|\[(?=\s*[{\]]))", re.IGNORECASE)
"""Beginnings of files that are not tables: web pages, XML, JSON arrays."""
_EXPORT = "export it as CSV, as .xlsx or as JSON lines (an object a line)"
MAX_BYTES = 500_000_000
MAX_UNPACKED = 500_000_000
"""Most bytes of a workbook's parts, unpacked."""
MAX_ROWS = 2_000_000
MAX_COLUMNS = 1_000
MAX_CELL = 1_000_000
"""Most characters of a cell."""
_LISTED = 5

_PICTURE = re.compile(r"\.(?:jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf]|jp2)$", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Row:
    """The cells of a row, one for each column, and its first line in the file (or its row in the sheet)."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A header and the rows below it; ``problems`` names every row that could not be read."""

    name: str
    header: tuple[str, ...]
    """The header's cells, without blanks at the ends."""
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Notes for the user on how the file was read."""


def read_table(path: Path, sheet: str | None = None) -> Table:
    """Read a table; cells are normalised to one Unicode form, without blanks at the ends.

    ``sheet`` names a sheet of a workbook. Default: the first. Raises :class:`DataError` if the file is
    not a table.
    """
    name = path.name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{name} is larger than {MAX_BYTES:,} bytes: split it")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from None
    if data.startswith(b"PK\x03\x04"):
        return _workbook(name, data, sheet)
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
    """Decode a file: UTF-8, UTF-16, UTF-32, or else Windows-1252 with a note."""
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif (zeros := data[:4096].count(0)) and zeros >= len(data[:4096]) // 4:
        # Without a byte order mark, the zero bytes of Latin letters show the byte order.
        encoding = "utf-16-le" if data[1:4096:2].count(0) > data[0:4096:2].count(0) else "utf-16-be"
    try:
        text, notes = data.decode(encoding), []
    except UnicodeDecodeError as error:
        if any(not line.isascii() and _is_utf8(line) for line in data.splitlines()):
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{name}, line {line}: this line is not UTF-8, but other lines are: save the whole table as "
                "UTF-8"
            ) from None
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise DataError(f"{name} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
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
    """Return the sign between cells (comma, semicolon or tab) that gives the first rows equal widths."""

    def fitness(delimiter: str) -> tuple[bool, float, int]:
        sample = [row.cells for row in islice(_records(text[:100_000], delimiter), 50)]
        width = len(sample[0]) if sample else 0
        alike = sum(len(cells) == width for cells in sample) / max(1, len(sample))
        return width > 1, alike, width

    return max(",;\t", key=fitness)


@dataclass(frozen=True)
class _Broken(Row):
    """A row that cannot be used."""

    why: str


def _records(text: str, delimiter: str) -> Iterator[Row]:
    """Yield every record of a CSV text; a :class:`_Broken` one if a quotation mark is never closed."""
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=delimiter)
    width = 0
    while True:
        start = reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield _Broken(start + 1, (), f"this is not CSV: {error}")
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
    """Return why a record of several lines is wrong: its quotation mark is not closed in its own row."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        # On one line a mark that is closed too early is harmless: "13" wide.
        if len(lines) == 1 and "end of data" not in str(error):
            return None
        return "a quotation mark is never closed: close it, or write two for an inch sign"
    for line in lines[1:]:
        cells = line.strip().split(delimiter)
        if len(cells) >= width > 1 and any(_PICTURE.search(cell.strip('" ')) for cell in cells):
            return "a quotation mark is closed only in a later row: close it in its own row"
    return None


def _json_lines(name: str, text: str, notes: Sequence[str]) -> Table:
    found: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            # Numbers stay as they are written; a code of 18 digits does not fit a float.
            values = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}, line {number}: this is not JSON: {error}")
            continue
        if not isinstance(values, dict):
            problems.append(f'{name}, line {number}: an object is expected, such as {{"image": "a.jpg"}}')
            continue
        if odd := [key for key, value in values.items() if not _is_cell(value)]:
            problems.append(f"{name}, line {number}: {odd[0]!r} holds an object: write a text or a number")
            continue
        found.append((number, {key.strip(): _of_json(value) for key, value in values.items()}))
    header = tuple(dict.fromkeys(key for _, values in found for key in values))
    rows = [Row(number, tuple(values.get(key, "") for key in header)) for number, values in found]
    return _table(name, [Row(0, header), *rows], problems, notes)


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
    # Imported here, because it is slow to import and most tables are CSV.
    from openpyxl import load_workbook

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
            sheets = [part for part in parts.namelist() if part.startswith("xl/worksheets/")]
            has_formulas = unpacked <= MAX_UNPACKED and any(b"<f" in parts.read(part) for part in sheets)
        if unpacked > MAX_UNPACKED:
            raise DataError(
                f"{name} unpacks to {unpacked:,} bytes; at most {MAX_UNPACKED:,} are read: split it"
            )
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        names = [one.title for one in book.worksheets]
        if sheet is not None and sheet not in names:
            raise DataError(f"{name} has no sheet {sheet!r}{nearest(sheet, names)}")
        chosen = book[sheet if sheet is not None else names[0]]
        # The size that a sheet states may be wrong.
        chosen.reset_dimensions()
        rows = list(_sheet_rows(name, chosen))
        empty = _without_value(data, chosen) if has_formulas else []
    except DataError:
        raise
    except Exception as error:  # The library raises any kind of exception on damaged files.
        raise DataError(f"{name} cannot be read as a workbook ({error}): save it as .xlsx again") from None
    others = [one for one in names if one != chosen.title]
    notes = [f"{name}: the sheet {chosen.title!r} is read, and not {', '.join(others)}"] if others else []
    problems = []
    if empty:
        listed = ", ".join(empty[:_LISTED]) + (", …" if len(empty) > _LISTED else "")
        problems = [
            f"{name}: {len(empty):,} formulas have no stored value ({listed}): open the file in a "
            "spreadsheet program and save it there"
        ]
    return _table(name, rows, problems, notes)


def _without_value(data: bytes, values: Any) -> list[str]:
    """Return the places of formulas without a stored value, such as C2; they would be read as empty cells."""
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


def _sheet_rows(name: str, sheet: Any) -> Iterator[Row]:
    width = 0
    for number, cells in enumerate(sheet.iter_rows(max_col=MAX_COLUMNS + 1, max_row=MAX_ROWS + 2), start=1):
        values = [_of_cell(cell) for cell in cells]
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
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).removesuffix("T00:00:00")
    return _clean(str(value))


def _table(name: str, rows: Iterable[Row], problems: Sequence[str], notes: Sequence[str]) -> Table:
    """Take the first row as the header, and check the other rows against it."""
    found = list(rows)
    said = list(problems)
    if not found or not any(found[0].cells):
        return Table(name, (), (), (*said, *(() if said else (f"{name} is empty",))), tuple(notes))
    header, body = found[0].cells, found[1:]
    # Some programs write columns with neither a name nor a value.
    while header and not header[-1] and not any(any(row.cells[len(header) - 1 :]) for row in body):
        header = header[:-1]
        body = [Row(row.line, row.cells[: len(header)]) for row in body]
    kept = []
    for row in body:
        if len(row.cells) == len(header):
            kept.append(row)
        else:
            said.append(
                f"{name} line {row.line} has {len(row.cells)} cells, but the header has {len(header)}"
            )
    if not body and not said:
        said.append(f"{name} has a header but no rows: add a row for each picture")
    if len(header) > MAX_COLUMNS:
        said.append(f"{name} has more than {MAX_COLUMNS:,} columns: remove those that you do not need")
    if len(kept) > MAX_ROWS:
        said.append(f"{name} has more than {MAX_ROWS:,} rows: split it")
    return Table(name, header, tuple(kept), tuple(said), tuple(notes))


def _clean(cell: str) -> str:
    return unicodedata.normalize("NFC", cell).strip()

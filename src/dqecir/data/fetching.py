"""Make a catalogue from a table that names pictures by address: download the pictures.

The new folder has ``images/``; ``attributes.csv``, which is the table with file names instead of addresses,
and the addresses in separate columns, without rows that have no picture; ``catalogue.yaml``, if the user sets
roles; ``not-fetched.txt``, if something is missing; and ``fetched.log`` with one line for each finished
address, so that an interrupted run continues, and a later run fetches only addresses that are new or failed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import yaml
from filelock import lock_descriptor

from dqecir.data.catalogue_table import SETTINGS, TABLE, CatalogueSettings
from dqecir.data.column_roles import ADDRESS, Role, column_name, roles_of
from dqecir.data.exports import plain_table
from dqecir.data.images import format_of, load_image
from dqecir.data.picture_files import FETCHED, FETCHED_ALL
from dqecir.data.tables import Row, Table, read_table
from dqecir.errors import CatalogueError, DataError, ImageError
from dqecir.io.downloads import Downloader, DownloadError
from dqecir.io.files import write_bytes, write_text
from dqecir.io.progress import track
from dqecir.settings import read_settings

MOST_BYTES = 50_000_000
"""Most bytes of one picture."""
MOST_ADDRESSES = 200_000
LEDGER, MISSING = FETCHED
IMAGES = "images"
_SILENT = 10
"""After this many temporary failures without a success between them, a host gets no more requests."""
_ADDRESS = re.compile(r"(?:https?:)?//\S", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s,;|]+(?=(?:https?:)?//)", re.IGNORECASE)
"""What separates several addresses in a cell; a comma may also be part of an address."""
_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "HEIF": "heic"}
_LONGEST_NAME = 60
_PICTURES: tuple[Role, ...] = ("image", "further images")


@dataclass(frozen=True)
class FetchSummary:
    """The result of a run over all addresses of a table: numbers of pictures and rows."""

    fetched: int
    kept: int
    """Number of pictures that an earlier run has fetched."""
    rows: int
    """Number of rows in the new table."""
    missing: tuple[str, ...]
    """One sentence, with the line of the table, for every address that was not fetched and every row left
    out."""


@dataclass(frozen=True)
class _Source:
    """A table, and the positions of the columns that name pictures."""

    table: Table
    places: tuple[int, ...]
    """Positions of the columns; that of the main pictures comes first."""
    is_export: bool
    settings: CatalogueSettings

    def addresses(self) -> dict[str, int]:
        """Return address -> line of the table in which it occurs first."""
        found: dict[str, int] = {}
        for row in self.table.rows:
            for place in self.places:
                for part in _parts(row.cells[place]):
                    if _ADDRESS.match(part):
                        found.setdefault(part, row.line)
        return found


def fetch_pictures(
    table: Path, out: Path, downloader: Downloader, sheet: str | None = None, quiet: bool = False
) -> FetchSummary:
    """Download the pictures that ``table`` names by http or https, and write the catalogue ``out``.

    A ``catalogue.yaml`` next to the table may set roles of columns and the sheet, which ``sheet`` overrides;
    it is ignored if it names another table. ``downloader`` fetches one address after another; addresses that
    begin with ``//`` are fetched by https. ``quiet``: whether to hide the progress.

    Raises :class:`DataError` if the table cannot be used, if it has no address or more than
    :data:`MOST_ADDRESSES`, if ``out`` holds other files or another process writes to it, or if no picture
    could be fetched.
    """
    source = _read(table, sheet)
    addresses = source.addresses()
    if not addresses:
        raise DataError(
            f"{table.name} has no address of a picture that begins with http:// or https://: name "
            "a table that has some"
        )
    if len(addresses) > MOST_ADDRESSES:
        raise DataError(
            f"{table.name} names {len(addresses):,} addresses, more than {MOST_ADDRESSES:,}: split it"
        )
    with _Ledger.of(out) as ledger:
        kept = len(addresses.keys() & ledger.files)
        failures = _download(addresses, ledger, downloader, quiet)
        ledger.finish()
        fetched = len(addresses.keys() & ledger.files) - kept
        not_fetched = [
            f"line {addresses[address]}: {address}: {reason}" for address, reason in failures.items()
        ]
        if not fetched + kept:
            _list_missing(out, not_fetched)
            address, reason = next(iter(failures.items()))
            raise DataError(
                f"none of the pictures could be fetched, as {out / MISSING} says; the first: "
                f"{address}: {reason}"
            )
        rows, left_out = _with_files(source, ledger.files)
        missing = [
            *not_fetched,
            *(f"line {line}: the row is left out, because it has no picture" for line in left_out),
        ]
        _write(out, source, rows, missing)
    return FetchSummary(fetched, kept, len(rows), tuple(missing))


def _read(path: Path, sheet: str | None) -> _Source:
    beside = path.parent / SETTINGS
    settings = read_settings(beside, CatalogueSettings) if beside.is_file() else CatalogueSettings()
    if settings.table not in (None, path.name):
        settings = CatalogueSettings()
    table = read_table(path, sheet or settings.sheet)
    if table.problems:
        raise CatalogueError(path, table.problems)
    names = [column_name(name) for name in table.header]
    columns = [[row.cells[place] for row in table.rows] for place in range(len(names))]
    told = {column_name(name): role for name, role in settings.roles.items()}
    roles = [told.get(name, role) for name, role in zip(names, roles_of(names, columns), strict=True)]
    places = [place for wanted in _PICTURES for place, role in enumerate(roles) if role == wanted]
    return _Source(table, tuple(places), plain_table(table) is not table, settings)


def _parts(cell: str) -> list[str]:
    return [part.rstrip(",;|") for part in _BETWEEN.split(cell) if part.rstrip(",;|")]


def _download(
    addresses: Sequence[str] | Mapping[str, int], ledger: _Ledger, downloader: Downloader, quiet: bool
) -> dict[str, str]:
    """Fetch the addresses that the ledger does not have.

    Return address -> reason, for each that is missing.
    """
    failures: dict[str, str] = {}
    silent: Counter[str] = Counter()
    for address in track(list(addresses), "fetching pictures", quiet=quiet):
        if address in ledger.files:
            continue
        host = address.split("/")[2]
        if address in ledger.failures:
            failures[address] = ledger.failures[address]
        elif silent[host] >= _SILENT:
            failures[address] = f"{host} failed {_SILENT} times in a row and was not tried again"
        else:
            try:
                ledger.keep(address, downloader.get(f"https:{address}" if address[0] == "/" else address))
                silent[host] = 0
            except DownloadError as error:
                failures[address] = str(error)
                if error.may_pass:
                    silent[host] += 1
                else:
                    ledger.give_up(address, str(error))
    return failures


class _Ledger:
    """The finished addresses of a folder, in a file that is locked during a run; opened by :meth:`of`."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self._folder, self._file = folder, file
        self.files: dict[str, str] = {}
        """Address -> file, relative to the folder."""
        self.failures: dict[str, str] = {}
        """Address -> why fetching it failed for good, in this run or the interrupted run that it continues.
        Such an address is tried again only in a run after :meth:`finish`."""
        self._file.seek(0)
        data = self._file.read()
        for line in data.splitlines():
            with suppress(ValueError):  # A killed run may have written half a line.
                self._take(json.loads(line))
        if not data.endswith(b"\n"):
            self._file.write(b"\n")

    @classmethod
    @contextmanager
    def of(cls, folder: Path) -> Iterator[_Ledger]:
        """Open the ledger of ``folder``, which must be new, empty, or a catalogue that dqecir fetched.

        A context manager, which locks the ledger. Raises :class:`DataError` for any other folder, and if
        another process has locked it.
        """
        if folder.exists() and not (folder / LEDGER).exists() and any(folder.iterdir()):
            raise DataError(f"{folder} holds files that dqecir did not fetch: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LEDGER).open("a+b") as file:
            if not lock_descriptor(file.fileno(), blocking=False):
                raise DataError(f"{folder} is being fetched by another process: try again when it has ended")
            yield cls(folder, file)

    def keep(self, address: str, data: bytes) -> None:
        """Store the picture of an address; raises :class:`DownloadError` if the data are no picture."""
        file = f"{IMAGES}/{_file_name(address, data)}"
        write_bytes(self._folder / file, data)
        self._note({"address": address, "file": file})

    def give_up(self, address: str, reason: str) -> None:
        """Store the reason why an address is missing."""
        self._note({"address": address, "failed": reason})

    def finish(self) -> None:
        """Store that all addresses of the table were tried, and forget failures: the next run retries."""
        self._file.write(FETCHED_ALL)
        self._file.flush()
        self.failures.clear()

    def _note(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode("ascii") + b"\n")
        self._file.flush()
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if entry.get("finished"):
            self.failures.clear()
        elif "failed" in entry:
            self.failures[entry["address"]] = entry["failed"]
        elif (self._folder / entry["file"]).is_file():
            self.files[entry["address"]] = entry["file"]


def _file_name(address: str, data: bytes) -> str:
    """Return the file name for a picture, which depends only on its address and format.

    Raises :class:`DownloadError` if the data are no picture.
    """
    try:
        load_image(data)
        kind = format_of(data)
    except ImageError as error:
        page = data.lstrip()[:1] == b"<"
        raise DownloadError(
            "it is a web page or a drawing (SVG), not a picture" if page else error.reason
        ) from None
    last = PurePosixPath(unquote(urlsplit(address).path)).stem
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", last)[:_LONGEST_NAME].strip("-") or "picture"
    digest = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{plain}-{digest}.{_ENDINGS.get(kind, kind.casefold())}"


def _with_files(source: _Source, files: Mapping[str, str]) -> tuple[list[Row], list[int]]:
    """Return rows with file names instead of addresses, and the lines of rows that are left out.

    The addresses are in further columns at the end. A row without a main picture gets its first further
    picture that no other row shows; without one, it is left out. Rows of an export are never left out.
    """
    rows: list[Row] = []
    left_out: list[int] = []
    main, *further = source.places
    shown = {files.get(row.cells[main]) for row in source.table.rows}
    for row in source.table.rows:
        cells = list(row.cells)
        for place in source.places:
            named = (files.get(part, "" if _ADDRESS.match(part) else part) for part in _parts(cells[place]))
            cells[place] = ", ".join(filter(None, named))
        # In a plain table every row shows its product; in an export some rows have no picture of their own.
        if not cells[main] and not source.is_export:
            others = (file for place in further for file in cells[place].split(", "))
            cells[main] = next((file for file in others if file and file not in shown), "")
            shown.add(cells[main])
            if not cells[main]:
                left_out.append(row.line)
                continue
        rows.append(Row(row.line, (*cells, *(row.cells[place] for place in source.places))))
    return rows, left_out


def _write(out: Path, source: _Source, rows: Sequence[Row], missing: Sequence[str]) -> None:
    header = source.table.header
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*header, *(header[place] + ADDRESS for place in source.places)])
    writer.writerows(row.cells for row in rows)
    write_text(out / TABLE, text.getvalue())
    if source.settings.roles and not (out / SETTINGS).exists():
        write_text(out / SETTINGS, yaml.safe_dump({"roles": dict(source.settings.roles)}, allow_unicode=True))
    _list_missing(out, missing)


def _list_missing(out: Path, missing: Sequence[str]) -> None:
    if missing:
        write_text(out / MISSING, "".join(f"{one}\n" for one in missing))
    else:
        (out / MISSING).unlink(missing_ok=True)

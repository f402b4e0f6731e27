"""Read i-CIR: find the same object in another setting, in a gallery with hard negatives.

Source: the published loader and evaluation (arXiv 2510.25387, billpsomas/icir).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dqecir.data.annotations import require_images
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError

QUERIES, DATABASE = "query_files.csv", "database_files.csv"


def read_icir(
    folder: Path, split: str = "test", *, images: Path | None = None, check_images: bool = True
) -> Benchmark:
    """Read ``query_files.csv`` and ``database_files.csv`` in ``folder``: lines ``picture,text,instance``.

    Every instance with a query is a category with a gallery of its own. A gallery picture is a right answer
    if it has the query's instance and text; the first is the target. Pictures are in ``images`` (default:
    ``folder``, or its parent if only there the first query's picture exists, as for paths ``icir/query/…``).
    The only split is ``test``; ``val`` means the same. With ``check_images=False`` pictures need not exist.

    Raises :class:`DataError` for another split, a file that is missing or damaged, a query without a right
    answer, and missing pictures.
    """
    if split not in ("test", "val"):
        raise DataError(f"i-CIR has no split {split!r}: its one split is 'test'")
    queries, database = (_rows(folder / name) for name in (QUERIES, DATABASE))
    root = images or next(
        (place for place in (folder, folder.parent) if (place / queries[0][0]).is_file()), folder
    )
    names = tuple(row[0] for row in (*queries, *database))
    paths = tuple(root / name for name in names)
    if check_images:
        require_images(paths, "i-cir")
    members: dict[str, list[int]] = {}
    answers: dict[tuple[str, str], list[int]] = {}
    for place, (_, text, instance) in enumerate(database, len(queries)):
        members.setdefault(instance, []).append(place)
        answers.setdefault((instance, text), []).append(place)
    triplets = []
    for place, (name, text, instance) in enumerate(queries):
        right = answers.get((instance, text))
        if right is None:
            raise DataError(
                f"{folder / QUERIES}: the query {name!r} has no right answer, as no line of {DATABASE} has "
                f"the instance {instance!r} and the text {text!r}"
            )
        triplets.append(Triplet(place, right[0], (text,), instance, tuple(right), pair_id=str(place)))
    asked = dict.fromkeys(instance for _, _, instance in queries)
    galleries = {instance: np.array(members[instance], dtype=np.int64) for instance in asked}
    return Benchmark("i-cir", split, names, paths, galleries, tuple(triplets), False)


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """Return the lines of a file as three fields; fields contain no commas, and there is no header."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}: name the folder of i-CIR, in which {path.name} lies"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from None
    rows = []
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 3 or not all(fields):
            raise DataError(
                f"{path}, line {number}: the three fields picture,text,instance are expected, not {line!r}: "
                "fetch it again"
            )
        rows.append((fields[0], fields[1], fields[2]))
    if not rows:
        raise DataError(f"{path} is empty: fetch it again")
    return rows

"""List the benchmarks: which files each needs, which exist, published numbers, and how it was checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dqecir.errors import DataError
from dqecir.evaluation.protocols import PROTOCOLS
from dqecir.experiments.reproduce.published_rows import PublishedRow, published_rows
from dqecir.experiments.reproduce.request import DATA_SETS


@dataclass(frozen=True)
class Entry:
    """A benchmark that can be measured."""

    name: str
    needed: tuple[str, ...]
    """Names or patterns of the files and folders that the published data set must have."""
    verified: str
    """What was checked without its pictures, and by which tests."""


ENTRIES = (
    Entry(
        "fashioniq",
        ("captions/cap.*.json", "image_splits/split.*.json", "images"),
        "real annotations; metrics of seven published evaluators (tests/evaluation/test_protocols.py); the "
        "whole command in miniature (tests/experiments/reproduce)",
    ),
    Entry(
        "cirr",
        ("captions/cap.rc2.*.json", "image_splits/split.rc2.*.json", "train", "dev", "test1"),
        "real annotations of val and test1; metrics of published evaluators and the submission files "
        "(tests/evaluation); the whole command in miniature (tests/experiments/reproduce)",
    ),
    Entry(
        "circo",
        (
            "annotations/*.json",
            "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json",
            "COCO2017_unlabeled/unlabeled2017",
        ),
        "real annotations; average precision of its own evaluator and the submission file "
        "(tests/evaluation); the whole command in miniature (tests/experiments/reproduce)",
    ),
    Entry(
        "hp-fashioniq",
        ("hpfiq.json", "images"),
        "real judgements; the preference ratio by hand (tests/evaluation/test_preferences.py); the whole "
        "command in miniature (tests/experiments/reproduce)",
    ),
    Entry(
        "genecis",
        ("genecis/*.json", "val2017", "VG_100K_all"),
        "recall of its own evaluator on made-up scores (tests/evaluation/test_protocols.py); reader and "
        "command in miniature (tests/data/test_genecis.py, tests/e2e/test_benchmarks.py)",
    ),
    Entry(
        "i-cir",
        ("query_files.csv", "database_files.csv", "query", "database"),
        "average precisions of its own evaluator on made-up rankings (tests/evaluation/test_protocols.py); "
        "reader and command in miniature (tests/data/test_icir.py, tests/e2e/test_benchmarks.py)",
    ),
    Entry(
        "lasco",
        ("lasco_val.json", "lasco_val_corpus.json", "val2014"),
        "reader and command in miniature (tests/data/test_lasco.py, tests/e2e/test_benchmarks.py); its "
        "authors publish no evaluation code",
    ),
    Entry(
        "shoes",
        ("relative_captions_shoes.json", "eval_im_names.txt", "womens_*"),
        "numbers of pictures and questions of the real annotations; reader and command in miniature "
        "(tests/data/test_shoes.py, tests/e2e/test_benchmarks.py); its authors publish no such evaluation",
    ),
    Entry(
        "fashion200k",
        ("labels/*test*.txt", "test_queries.txt", "women"),
        "reader, metric and command in miniature, by hand (tests/data/test_fashion200k.py, "
        "tests/e2e/test_benchmarks.py)",
    ),
    Entry(
        "multiturn-fashioniq",
        ("data/*.val.json", "image_splits/split.*.val.json", "images"),
        "numbers of pictures and dialogues of the real annotations; reader and command in miniature "
        "(tests/data/test_multiturn_fashioniq.py, tests/e2e/test_benchmarks.py)",
    ),
)
"""All benchmarks of the package."""


def listing(data: Path | None) -> Iterator[str]:
    """Yield the lines of the list; with ``data``, also which files exist in ``data/NAME``.

    Raises :class:`DataError` if ``data`` is no folder.
    """
    if data is not None and not data.is_dir():
        raise DataError(f"{data} is no folder: name one that holds a folder for each benchmark")
    rows = published_rows()
    for entry in ENTRIES:
        own = [protocol.name for protocol in PROTOCOLS.values() if protocol.data == entry.name]
        command = "reproduce" if entry.name in DATA_SETS else "protocol"
        yield entry.name
        yield f"  command: dqecir {command} {entry.name}"
        if own:
            yield f"  protocols: {', '.join(own)}"
        yield f"  needed: {', '.join(entry.needed)}"
        yield f"  present: {_present(entry, data)}"
        published = [row for row in rows if row.benchmark == entry.name]
        yield f"  published: {len(published) or 'no'} rows in the package"
        yield from (f"    {_published(row)}" for row in published)
        yield f"  verified: {entry.verified}"


def _present(entry: Entry, data: Path | None) -> str:
    if data is None:
        return "not looked for (name a folder of folders with --data)"
    folder = next(
        (own for own in (data / entry.name, data / entry.name.replace("-", "_")) if own.is_dir()), None
    )
    if folder is None:
        return f"no folder {entry.name} in {data}"
    there = [need for need in entry.needed if any(folder.glob(need))]
    missing = [need for need in entry.needed if need not in there]
    if not there:
        return f"nothing in {folder}"
    return f"{', '.join(there)} in {folder}" + (f"; missing: {', '.join(missing)}" if missing else "; all")


def _published(row: PublishedRow) -> str:
    """Return a published row in short: its means, its source, and whether the figures were verified."""
    means = {name: value for name, value in row.metrics.items() if " " not in name}
    figures = ", ".join(f"{name} {value:.2f}" for name, value in (means or row.metrics).items())
    verified = "not verified" if row.checked == "unchecked" else f"checked by {row.checked}"
    return f"{row.method} ({row.variant}), {row.split}: {figures} [{row.source}; {verified}]"

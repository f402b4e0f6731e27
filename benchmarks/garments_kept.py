"""Measure whether results show the right garment: the one that a text names, or else the reference's.

    python benchmarks/garments_kept.py --data PHOTOS --split dev --strictness 0 1 2 --out
    WORK/garments-kept.json

Named: each garment is requested ("is a dress") from ten references of other garments; counted is the share of
the first five results that show it. Kept: "in red" is requested from 100 references for which the gallery has
five items of the same garment in red; counted is the share of the first five results that show the
reference's garment. Both are in percent, by the table, for an index with the table and for one of pictures
only.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.io.files import write_json
from dqecir.search.retriever import ComposedRetriever

FIRST = 5
REFERENCES = 10
KEPT = 100
COLORS = ("black", "white", "blue", "red", "grey", "green", "pink", "beige", "yellow", "brown", "navy")

Question = tuple[int, str, str]
"""A place of a reference, a text, and the garment that the results should be."""


def named(rows: Sequence[tuple[str, str]], seed: int) -> Iterator[Question]:
    """Return texts that name a garment, with references of other garments."""
    draw = random.Random(seed)
    for garment, count in sorted(Counter(garment for garment, _ in rows).items()):
        if garment and count >= FIRST:
            others = [place for place, (own, _) in enumerate(rows) if own and own != garment]
            for place in draw.sample(others, REFERENCES):
                yield place, f"is a {garment}", garment


def kept(rows: Sequence[tuple[str, str]], seed: int) -> Iterator[Question]:
    """Return texts that request only a colour, if five other items show the reference's garment in it."""
    draw = random.Random(seed)
    counts = Counter(rows)
    usable = [
        (place, color)
        for place, (garment, own) in enumerate(rows)
        for color in COLORS
        if garment and color != own and counts[garment, color] >= FIRST
    ]
    for place, color in draw.sample(usable, min(KEPT, len(usable))):
        yield place, f"in {color}", rows[place][0]


def share(
    retriever: ComposedRetriever,
    paths: Sequence[Path],
    garments: dict[str, str],
    asked: list[Question],
    s: float,
) -> float:
    """Return the percentage of the first results that show the right garment."""
    found = []
    for place, text, garment in asked:
        results = retriever.search(paths[place], text, FIRST, strictness=s).results
        found += [garments[Path(one.payload["path"]).name] == garment for one in results]
    return 100 * float(np.mean(found))


def write_split(catalogue: Catalogue, places: Sequence[int], folder: Path, with_table: bool) -> None:
    """Write some images as a separate folder, with or without their cells."""
    for place in places:
        image = folder / catalogue.image_ids[place]
        image.parent.mkdir(exist_ok=True, parents=True)
        image.hardlink_to(catalogue.image_paths[place])
    if with_table:
        with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", *catalogue.attributes])
            for place in places:
                cells = [values[place] for values in catalogue.attributes.values()]
                table.writerow([catalogue.image_ids[place], *cells])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strictness", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument(
        "--work", type=Path, help="A folder on the disk of the data. Default: a temporary one."
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    catalogue = read_catalogue(given.data)
    places = [int(place) for place in catalogue.splits[given.split]]
    rows = [(catalogue.attributes["garment"][i], catalogue.attributes["color"][i]) for i in places]
    garments = {Path(catalogue.image_ids[i]).name: catalogue.attributes["garment"][i] for i in places}
    table = []
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        for knows in (True, False):
            folder = Path(work) / ("table" if knows else "pictures")
            write_split(catalogue, places, folder, knows)
            retriever = ComposedRetriever.from_pretrained()
            retriever.build_index(folder, f"{folder}-index", tokens=Path(work) / "tokens", quiet=True)
            paths = [folder / catalogue.image_ids[place] for place in places]
            for strictness in given.strictness:
                for seed in given.seeds:
                    row = {
                        kind: share(retriever, paths, garments, list(questions(rows, seed)), strictness)
                        for kind, questions in (("named", named), ("kept", kept))
                    }
                    table.append({"table": knows, "strictness": strictness, "seed": seed, **row})
                    print(table[-1], flush=True)
    write_json(given.out, {"split": given.split, "items": len(places), "rows": table})


if __name__ == "__main__":
    main()

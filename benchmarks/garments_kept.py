"""Measure whether results show the right garment: the one that a text names, or else the reference's.

    python -m benchmarks.garments_kept --data PHOTOS --write docs/language.md

Named: each garment is requested ("is a dress") from ten references of other garments; counted is the share of
the first five results that show it. Kept: "in red" is requested from 100 references for which the gallery has
five items of the same garment in red; counted is the share of the first five results that show the
reference's garment, and the share that show the colour. Read: the share of these references whose garment the
model reads rightly, and the share of kept garments among them. All are in percent, by the table, for an index
with the table and for one of pictures only.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.pages import write_part
from numpy.typing import NDArray

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.io.markdown import table
from dqecir.search.retriever import ComposedRetriever
from dqecir.training.pretraining_data import HELD_OUT, hold_out

HELD_OUT_SHARE = 0.08
"""Share of the photos that the shipped model's training held out (recipes/data/shop-sources.yaml)."""
FIRST = 5
REFERENCES = 10
KEPT = 100
COLORS = ("black", "white", "blue", "red", "grey", "green", "pink", "beige", "yellow", "brown", "navy")
HEADS = ("named", "kept", "in the colour", "reference read rightly", "kept of these")

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


def read_garments(
    retriever: ComposedRetriever, paths: Sequence[Path], asked: Sequence[Question]
) -> list[str]:
    """Return the garment that the model reads in the reference of each question."""
    parts = retriever.compose([paths[place] for place, *_ in asked], [text for _, text, _ in asked]).parts
    assert parts is not None
    values = retriever.model.method.target_values["garment"]
    return [values[best] for best in parts.wanted[parts.columns.index("garment")].argmax(dim=1).tolist()]


def measured(
    retriever: ComposedRetriever,
    paths: Sequence[Path],
    rows: Sequence[tuple[str, str]],
    seed: int,
    strictness: float,
) -> list[float]:
    """Return the percentages of one seed, in the order of ``HEADS``."""
    shown = dict(zip((path.name for path in paths), rows, strict=True))

    def results(asked: Sequence[Question]) -> NDArray[np.str_]:
        """Return the garment and the colour of each question's first results, [questions, results, 2]."""
        answers = (retriever.search(paths[i], text, FIRST, strictness=strictness) for i, text, _ in asked)
        return np.array(
            [[shown[Path(one.payload["path"]).name] for one in answer.results] for answer in answers]
        )

    naming, keeping = list(named(rows, seed)), list(kept(rows, seed))
    asked = np.array([(garment, text.removeprefix("in ")) for _, text, garment in keeping])
    same = results(keeping) == asked[:, None]
    read = np.array(read_garments(retriever, paths, keeping)) == asked[:, 0]
    shares = (
        results(naming)[..., 0] == np.array([garment for *_, garment in naming])[:, None],
        same[..., 0],
        same[..., 1],
        read,
        same[read, :, 0],
    )
    return [100 * float(one.mean()) for one in shares]


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
    parser.add_argument("--splits", nargs="+", default=[HELD_OUT, "val"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--strictness", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument(
        "--work", type=Path, help="A folder on the disk of the data. Default: a temporary one."
    )
    parser.add_argument("--write", type=Path, required=True, help="The document whose table is replaced.")
    given = parser.parse_args()
    catalogue = hold_out(read_catalogue(given.data), "train_all", HELD_OUT_SHARE, 0)
    lines = []
    for split in given.splits:
        places = [int(place) for place in catalogue.splits[split]]
        rows = [(catalogue.attributes["garment"][i], catalogue.attributes["color"][i]) for i in places]
        for knows in ("table", "pictures"):
            with tempfile.TemporaryDirectory(dir=given.work) as work:
                folder = Path(work) / knows
                write_split(catalogue, places, folder, knows == "table")
                retriever = ComposedRetriever.from_pretrained()
                retriever.build_index(folder, f"{folder}-index", quiet=True)
                paths = [folder / catalogue.image_ids[place] for place in places]
                for strictness in given.strictness:
                    seeds = [measured(retriever, paths, rows, seed, strictness) for seed in given.seeds]
                    figures = zip(np.mean(seeds, axis=0), np.std(seeds, axis=0, ddof=1), strict=True)
                    own = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in figures]
                    lines.append([f"{split} ({len(places)})", knows, f"{strictness:g}", *own])
                    print(*lines[-1], seeds, file=sys.stderr, flush=True)
    said = f"Percent, mean ± standard deviation over {len(given.seeds)} seeds:"
    heads = ["photos", "index", "strictness", *HEADS]
    write_part(given.write, "garments", [said, "", *table(heads, lines)])


if __name__ == "__main__":
    main()

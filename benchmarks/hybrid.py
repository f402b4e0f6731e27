"""Search by picture, cells and words together against its rivals, on a split of products.

    python -m benchmarks.hybrid --data PRODUCTS --split val --write docs/language.md

A question shows a product and asks for another colour or another gender, or for both ("in red", "but for
women"). A right answer has the reference's article, the requested values, and the reference's colour or
gender where the text requests none. The rivals are the picture alone, BM25 of the titles with the text,
and BM25 with the reference's title and the text. All rank the same items, without the reference.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.pages import write_part
from benchmarks.word_weight import average_precision, write_split

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.index.contract import Index
from dqecir.io.markdown import table
from dqecir.language.tagging import words_of
from dqecir.search.retriever import ComposedRetriever

TEXTS = {"color": "in {}", "gender": "but for {}"}
"""How a question asks for a value of a column."""
KEPT = ("article", "color", "gender")
LEAST = 3
"""Right answers that a question has."""
ROWS = ("picture and words", "BM25, reference's title and text", "BM25, text", "picture alone")


Question = tuple[int, str, np.ndarray]
"""A place of a reference, a text, and which items are right."""


def questions(catalogue: Catalogue, places: Sequence[int], seed: int, count: int) -> list[Question]:
    """Draw questions that have enough right answers."""
    draw = random.Random(seed)
    cells = {name: np.array([catalogue.attributes[name][i] for i in places]) for name in KEPT}
    found: list[Question] = []
    while len(found) < count:
        reference, target = draw.randrange(len(places)), draw.randrange(len(places))
        asked = [name for name in TEXTS if cells[name][reference] != cells[name][target]]
        if not asked or not all(cells[name][place] for name in KEPT for place in (reference, target)):
            continue
        wanted = {name: cells[name][target if name in asked else reference] for name in KEPT}
        wanted["article"] = cells["article"][reference]
        right = np.logical_and.reduce([cells[name] == value for name, value in wanted.items()])
        if right.sum() >= LEAST:
            text = " and ".join(TEXTS[name].format(wanted[name].lower()) for name in asked)
            found.append((reference, text, right))
    return found


def measured(
    retriever: ComposedRetriever,
    index: Index,
    catalogue: Catalogue,
    places: Sequence[int],
    paths: Sequence[Path],
    asked: Sequence[Question],
) -> dict[str, float]:
    """Return the mAP@10 of every row."""
    assert index.text is not None
    row_of = {name: row for row, name in enumerate(index.ids())}
    order = np.array([row_of[catalogue.image_ids[place]] for place in places])
    place_of = {row: place for place, row in enumerate(order.tolist())}
    found: dict[str, list[float]] = {row: [] for row in ROWS}

    def by_search(reference: int, text: str) -> np.ndarray:
        scores = np.full(len(places), -1e9, dtype=np.float32)
        for rank, hit in enumerate(retriever.search(paths[reference], text, 11).results):
            scores[place_of[row_of[hit.id]]] = -rank
        return scores

    def by_words(text: str) -> np.ndarray:
        assert index.text is not None
        words = [word.text for word in words_of(text)]
        return np.concatenate(index.text.relevance(words))[order]

    for reference, text, right in asked:
        title = catalogue.attributes["title"][places[reference]]
        rankings = {
            ROWS[0]: by_search(reference, text),
            ROWS[1]: by_words(f"{title} {text}"),
            ROWS[2]: by_words(text),
            ROWS[3]: by_search(reference, ""),
        }
        for row, scores in rankings.items():
            found[row].append(average_precision(scores, right, reference))
    return {row: float(np.mean(values)) for row, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokens", type=Path, help="A folder that keeps image tokens. Default: none.")
    parser.add_argument("--write", type=Path, required=True, help="The document whose table is replaced.")
    given = parser.parse_args()
    catalogue = read_catalogue(given.data)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / given.split
        folder.mkdir()
        places = write_split(catalogue, given.split, folder)
        retriever = ComposedRetriever.from_pretrained()
        retriever.build_index(folder, Path(work) / "index", tokens=given.tokens, quiet=True)
        index = retriever.index
        assert index is not None
        paths = [folder / catalogue.image_ids[place] for place in places]
        seeds = []
        for seed in given.seeds:
            asked = questions(catalogue, places, seed, given.questions)
            seeds.append(measured(retriever, index, catalogue, places, paths, asked))
            print(seed, seeds[-1], file=sys.stderr, flush=True)
    heads = ["ranked by", *(f"seed {seed}" for seed in given.seeds)]
    rows = [[row, *(f"{one[row]:.1f}" for one in seeds)] for row in ROWS]
    said = (
        f"mAP@10 in percent, {given.questions} questions a seed over {len(places):,} products "
        f"({given.split}):"
    )
    write_part(given.write, "hybrid", [said, "", *table(heads, rows)])


if __name__ == "__main__":
    main()

"""Measure the best weight of words of titles besides the picture: two rules of fusion on dev questions.

    python -m benchmarks.word_weight --data PRODUCTS --out WORK/word-weight.json

A question shows a product of the dev split and says "in leather": a word of another title of the same kind
of article, which is no value of a column. Right answers are the products of the reference's article and
gender whose titles hold the word. A calibrated sum adds to the picture's score the title's share of the
highest BM25 score, times a weight in standard deviations of the picture's scores; reciprocal rank fusion adds
1 / (c + rank) of both. ``WORDS`` of ``dqecir.search.preferring`` is among the best weights. Whole searches
with each weight, which also keep the reference's garment, show how many of the first five are of its article.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.io.files import write_json
from dqecir.methods.scoring import score
from dqecir.search import preferring
from dqecir.search.preferring import WORDS
from dqecir.search.retriever import ComposedRetriever

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
CONSTANTS = (1, 10, 60)
RARE, COMMON = 5, 200
"""Titles that hold the word of a question: at least, at most."""
KEPT = ("article", "gender")

Scores = NDArray[np.float32]
Right = NDArray[np.bool_]


def write_split(catalogue: Catalogue, split: str, folder: Path) -> list[int]:
    """Write one split as a separate catalogue; return the positions of its images."""
    places = [int(place) for place in catalogue.splits[split]]
    columns = ["image", *catalogue.attributes]
    with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for place in places:
            image = folder / catalogue.image_ids[place]
            image.parent.mkdir(exist_ok=True)
            image.symlink_to(catalogue.image_paths[place].resolve())
            table.writerow(
                [catalogue.image_ids[place], *(cells[place] for cells in catalogue.attributes.values())]
            )
    return places


def questions(catalogue: Catalogue, places: Sequence[int], seed: int, count: int) -> list[tuple[int, str]]:
    """Yield references (among ``places``) and words of another title that are not in the reference's and
    not values.
    """
    draw = random.Random(seed)
    titles = [set(re.findall(r"[a-z]{4,}", catalogue.attributes["title"][i].lower())) for i in places]
    values = {
        word
        for column, cells in catalogue.attributes.items()
        if column not in ("title", "sku", "price")
        for cell in set(cells)
        for word in re.findall(r"[a-z]+", cell.lower())
    }
    holding: dict[str, list[int]] = defaultdict(list)
    for place, words in enumerate(titles):
        for word in words - values:
            holding[word].append(place)
    kinds = [tuple(catalogue.attributes[column][i] for column in KEPT) for i in places]
    usable = [word for word, own in sorted(holding.items()) if RARE <= len(own) <= COMMON]
    found: list[tuple[int, str]] = []
    while len(found) < count:
        word = draw.choice(usable)
        kind = kinds[draw.choice(holding[word])]
        others = [place for place, own in enumerate(kinds) if own == kind and word not in titles[place]]
        if others:
            found.append((draw.choice(others), word))
    return found


def average_precision(scores: Scores, right: Right, reference: int) -> float:
    """Return AP@10 of one ranking in percent, without the reference."""
    scores = scores.copy()
    scores[reference] = -np.inf
    best = right[np.argsort(-scores, kind="stable")[:10]]
    precision = best.cumsum() / np.arange(1, len(best) + 1)
    return 100 * float((precision * best).sum() / min(10, max(1, right.sum())))


def by_rank(scores: Scores, constant: int) -> Scores:
    """Return 1 / (constant + rank) of each item."""
    found = np.empty(len(scores), dtype=np.float32)
    found[np.argsort(-scores, kind="stable")] = 1 / (constant + np.arange(1, len(scores) + 1))
    return found


def measured(
    retriever: ComposedRetriever, catalogue: Catalogue, places: Sequence[int], asked: list[tuple[int, str]]
) -> dict[str, float]:
    """Return the mAP@10 of every rule."""
    index = retriever.index
    assert index is not None and index.text is not None
    ids = [catalogue.image_ids[place] for place in places]
    tokens = index.tokens(ids)
    rows = {name: row for row, name in enumerate(index.ids())}
    order = np.array([rows[name] for name in ids])
    columns = {name: np.array([cells[i] for i in places]) for name, cells in catalogue.attributes.items()}
    titles = [title.lower() for title in columns["title"]]
    found: dict[str, list[float]] = defaultdict(list)
    for reference, word in asked:
        query = retriever.encode_query([catalogue.image_paths[places[reference]]], [f"in {word}"])
        picture = score(query.cpu(), tokens, index.header.score_rule)[0].numpy()
        words = np.concatenate(index.text.relevance([word]))[order]
        held = np.array([word in re.findall(r"[a-z]{4,}", title) for title in titles])
        right = np.logical_and.reduce([held, *(columns[name] == columns[name][reference] for name in KEPT)])
        fused = {f"sum, {weight:g}": picture + weight * picture.std() * words for weight in WEIGHTS}
        fused["words alone"] = words
        for constant in CONSTANTS:
            fused[f"reciprocal rank, {constant}"] = by_rank(picture, constant) + np.where(
                words > 0, by_rank(words, constant), 0
            )
        for rule, scores in fused.items():
            found[rule].append(average_precision(scores, right, reference))
    return {rule: float(np.mean(values)) for rule, values in found.items()}


def searched(
    retriever: ComposedRetriever, catalogue: Catalogue, places: Sequence[int], asked: list[tuple[int, str]]
) -> dict[str, dict[str, float]]:
    """Return the mAP@10 of whole searches with each weight, and the share of the first five that are of the
    reference's article, in percent.
    """
    names = {catalogue.image_paths[place].name: row for row, place in enumerate(places)}
    columns = {name: np.array([catalogue.attributes[name][i] for i in places]) for name in (*KEPT, "title")}
    words = [set(re.findall(r"[a-z]{4,}", title.lower())) for title in columns["title"]]
    found = {}
    for weight in WEIGHTS[1:]:
        preferring.WORDS = weight
        precision, kept = [], []
        for reference, word in asked:
            image = catalogue.image_paths[places[reference]]
            results = retriever.search(image, f"in {word}", k=11).results
            rows = [names[Path(one.payload["path"]).name] for one in results]
            rows = [row for row in rows if row != reference][:10]
            alike = [columns[name] == columns[name][reference] for name in KEPT]
            right = np.logical_and.reduce([np.array([word in own for own in words]), *alike])
            scores = np.zeros(len(places), dtype=np.float32)
            scores[rows] = np.arange(10, 10 - len(rows), -1)
            precision.append(average_precision(scores, right, reference))
            kept.append(100 * float(alike[0][rows[:5]].mean()))
        found[f"{weight:g}"] = {"mAP@10": float(np.mean(precision)), "kept": float(np.mean(kept))}
    preferring.WORDS = WORDS
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--tokens", type=Path, help="a folder that keeps image tokens")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    catalogue = read_catalogue(given.data)
    retriever = ComposedRetriever.from_pretrained()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "dev"
        folder.mkdir()
        places = write_split(catalogue, "dev", folder)
        retriever.build_index(folder, Path(work) / "index", tokens=given.tokens)
        asked = {str(seed): questions(catalogue, places, seed, given.questions) for seed in given.seeds}
        seeds = {seed: measured(retriever, catalogue, places, own) for seed, own in asked.items()}
        whole = {seed: searched(retriever, catalogue, places, own) for seed, own in asked.items()}
    means = {
        rule: float(np.mean([row[rule] for row in seeds.values()])) for rule in seeds[str(given.seeds[0])]
    }
    write_json(
        given.out,
        {"used": WORDS, "questions": given.questions, "seeds": seeds, "mean": means, "searches": whole},
    )
    for rule, mean in means.items():
        print(f"{rule:24} {mean:.1f}")
    for weight in whole[str(given.seeds[0])]:
        rows = [own[weight] for own in whole.values()]
        ap, kept = (float(np.mean([row[key] for row in rows])) for key in ("mAP@10", "kept"))
        print(f"search, {weight:16} {ap:.1f}, {kept:.1f} % of the first five are of the reference's article")


if __name__ == "__main__":
    main()

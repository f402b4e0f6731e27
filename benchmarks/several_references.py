"""Measure searches with two references, and with two turns, on drawn garments, whose right answers are known.

    python -m benchmarks.several_references --write docs/steering.md

Two references: right answers have the requested value, and in every other column the value of one of the two
references. Two turns: each requests a value of another column; right answers have both values, and otherwise
those of the reference. The index holds only pictures, no table.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from benchmarks.pages import write_part

from dqecir.data.catalogue import read_catalogue
from dqecir.io.markdown import table
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.model.compose import Reference
from dqecir.questions.answers import CodedAttributes
from dqecir.questions.wording import CaptionGenerator, Change
from dqecir.search.engine import SearchEngine
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import PreparedRequest, SearchRequest, WeightedReference
from dqecir.synthetic.garments import GARMENTS

ASKED = ("color", "sleeves", "neck", "length", "fit", "print")
"""Columns that a text asks of; no other column depends on them."""
NEAR = 3
"""Columns at most in which a reference differs from the target."""
KEPT = 10
BATCH = 32
ATTEMPTS = 8


@dataclass(frozen=True)
class Question:
    """A question: references (positions), a text for each turn, and which items are right."""

    references: tuple[int, ...]
    turns: tuple[str, ...]
    right: np.ndarray


class Drawing:
    """Draw questions about one catalogue."""

    def __init__(self, attributes: Mapping[str, Sequence[str]], seed: int) -> None:
        self.coded = CodedAttributes.of(attributes)
        self.words = CaptionGenerator(
            shipped_vocabularies(), dict(zip(self.coded.columns, self.coded.values, strict=True))
        )
        self.draw = random.Random(seed)

    def two_references(self) -> Iterator[Question]:
        """Yield questions about two references that differ from a target in other columns each."""
        codes = self.coded.codes
        for target in self.draw.sample(range(codes.shape[1]), codes.shape[1]):
            column = self.coded.columns.index(self.draw.choice(ASKED))
            differs = codes != codes[:, target, None]
            near = np.flatnonzero(differs[column] & (differs.sum(axis=0) <= NEAR) & (differs.sum(axis=0) > 1))
            pairs = [
                (a, b) for a in near for b in near if a != b and (differs[:, a] & differs[:, b]).sum() == 1
            ]
            text = self._text(column, int(pairs[0][0]), target) if pairs else None
            if text is not None:
                a, b = self.draw.choice(pairs)
                fits = (codes == codes[:, a, None]) | (codes == codes[:, b, None])
                fits[column] = codes[column] == codes[column, target]
                yield Question((int(a), int(b)), (text,), fits.all(axis=0))

    def two_turns(self) -> Iterator[Question]:
        """Yield questions whose target differs from the reference in two columns, one a turn."""
        codes = self.coded.codes
        for target in self.draw.sample(range(codes.shape[1]), codes.shape[1]):
            columns = [self.coded.columns.index(name) for name in self.draw.sample(ASKED, 2)]
            differs = codes != codes[:, target, None]
            near = np.flatnonzero(differs[columns].all(axis=0) & (differs.sum(axis=0) == len(columns)))
            if len(near):
                reference = self.draw.choice(near.tolist())
                turns = [self._text(column, reference, target) for column in columns]
                if None not in turns:
                    yield Question((reference,), tuple(map(str, turns)), (~differs).all(axis=0))

    def _text(self, column: int, reference: int, target: int) -> str | None:
        """Return a text that states the target's value of a column, in phrases that training never shows."""
        name, codes = self.coded.columns[column], self.coded.codes
        before, after = (self.coded.value(column, codes[column, place]) for place in (reference, target))
        for _ in range(ATTEMPTS):
            worded = self.words.describe([Change(name, before, after)], self.draw, held_out=True)
            if worded.asked == {name: frozenset([after])}:
                return worded.captions[0]
        return None


def average_precision(found: Sequence[int], asked: Question) -> float:
    """Return AP@10 in percent; references are no answers."""
    right = set(np.flatnonzero(asked.right).tolist()) - set(asked.references)
    hits = [place in right for place in found]
    return (
        100 * sum(sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit) / min(KEPT, len(right))
    )


def measured(engine: SearchEngine, asked: Sequence[Question]) -> dict[str, float]:
    """Return the row of each way of asking -> mAP@10 in percent."""
    first = asked[0]
    ways = _of_references if len(first.references) > 1 else _of_turns
    found: dict[str, list[float]] = {}
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        rows = [ways(engine, one) for one in some]
        for name in rows[0]:
            for one, response in zip(some, engine.answer([row[name] for row in rows]), strict=True):
                places = [int(Path(hit.id).stem) for hit in response.results]
                found.setdefault(name, []).append(average_precision(places, one))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _of_references(engine: SearchEngine, one: Question) -> dict[str, PreparedRequest]:
    a, b = (_id(place) for place in one.references)
    plain = SearchRequest(item=a, text=one.turns[0], k=KEPT, explain=False, exclude=(b,))
    both = engine.prepare(replace(plain, references=(WeightedReference(item=b),)))
    pixels = [reference.pixels for reference in both.references if reference.pixels is not None]
    with torch.no_grad():
        tokens = engine.model.backbone.image_tokens(torch.stack(pixels)).mean(dim=0)
    return {
        "the first reference": engine.prepare(plain),
        "the second reference": engine.prepare(replace(plain, item=b, exclude=(a,))),
        "the first, and more of the second": engine.prepare(replace(plain, more=(b,))),
        "the mean of their image tokens": replace(
            engine.prepare(replace(plain)), references=(Reference(tokens=tokens),)
        ),
        "both references": both,
    }


def _of_turns(engine: SearchEngine, one: Question) -> dict[str, PreparedRequest]:
    last = SearchRequest(item=_id(one.references[0]), text=one.turns[-1], k=KEPT, explain=False)
    return {
        "the last turn alone": engine.prepare(last),
        "both in one text": engine.prepare(replace(last, text=" and ".join(one.turns))),
        "two turns": engine.prepare(replace(last, earlier=one.turns[:-1])),
    }


def _id(place: int) -> str:
    return f"images/{place:06d}.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", type=Path, help="A model folder. Default: the shipped model.")
    parser.add_argument("--write", type=Path, required=True, help="The document whose table is replaced.")
    given = parser.parse_args()
    columns: list[dict[str, float]] = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as work:
            folder = GARMENTS.write(Path(work) / "drawn", given.items, 9000 + seed, split="test", quiet=True)
            attributes = read_catalogue(folder).attributes
            (folder / "attributes.csv").unlink()
            retriever = ComposedRetriever.from_pretrained(given.model)
            retriever.build_index(folder, Path(work) / "index", quiet=True)
            assert retriever.index is not None
            engine = SearchEngine(retriever.model, retriever.index)
            drawing = Drawing(attributes, seed)
            own: dict[str, float] = {}
            for draw in (drawing.two_references(), drawing.two_turns()):
                asked = list(islice(draw, given.questions))
                own |= measured(engine, asked)
        print(seed, own, file=sys.stderr, flush=True)
        columns.append(own)
    rows = [[name, *(f"{own[name]:.1f}" for own in columns)] for name in columns[0]]
    heads = ["searched by", *(f"seed {seed}" for seed in given.seeds)]
    said = (
        f"mAP@10 in percent, {given.questions} questions of either kind a seed, over {given.items:,} drawn "
        "garments:"
    )
    write_part(given.write, "several references", [said, "", *table(heads, rows)])


if __name__ == "__main__":
    main()

"""Train the tagger of the reader: on generated texts, then on captions that people annotated.

The annotations are JSON lines as ``benchmarks/train_reader.py`` describes them; the start is the sentence
encoder all-MiniLM-L6-v2, of which the first layers and the commonest word pieces are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from benchmarks.reader_texts import Label, Labelled, TextGenerator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dqecir.language.spoken import phrases
from dqecir.language.tagging import (
    OPERATIONS,
    ROLES,
    VALUES,
    Operation,
    Scores,
    Tagger,
    TaggerNetwork,
    TaggerPieces,
    words_of,
)

COMMON_PIECES = 17_000
"""Word pieces of the start that are kept, the commonest first, besides those of known phrases."""
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_HEADS = ("role", "op", "val", "other", "flag")
"""Parts of the network that no start has, and that learn faster."""
_NO_CATEGORY = 0.15
"""Share of training texts of which the category is withheld."""
_BEYOND = 0.7
"""Weight of the loss of words that no column says."""


@dataclass(frozen=True)
class StageSettings:
    """The length and the rates of a stage of training."""

    epochs: int
    rate: float
    batch: int = 32
    generated: int = 0
    """Generated texts that every epoch sees besides."""
    swapped: float = 0.0
    """Share of the texts that every epoch sees once more, with some of their phrases swapped for others."""
    keep_pieces: bool = False
    """Whether the vectors of word pieces stay as they are."""


GENERATED = StageSettings(epochs=1, rate=2e-4, batch=48)
ANNOTATED = StageSettings(epochs=5, rate=1e-4, generated=2800, swapped=0.7, keep_pieces=True)
GENERATED_TEXTS = 48_000


def new_tagger(start: Path, layers: int = 3) -> Tagger:
    """Return an untrained tagger on the first layers of MiniLM, which is in the folder ``start``."""
    known = json.loads((start / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    needed = {word.text for phrase in phrases() for word in words_of(phrase)}
    kept = [
        piece
        for piece, place in known.items()
        if piece in _SPECIAL
        or (piece.isascii() and not piece.startswith("[") and (place < COMMON_PIECES or piece in needed))
    ]
    network = TaggerNetwork(len(kept), layers)
    _start(network, load_file(start / "model.safetensors"), [known[piece] for piece in kept])
    return Tagger(network, TaggerPieces(kept))


@torch.no_grad()
def _start(network: TaggerNetwork, state: dict[str, Tensor], pieces: Sequence[int]) -> None:
    embedded = "embeddings."
    network.emb.weight.copy_(state[f"{embedded}word_embeddings.weight"][list(pieces)])
    sides = state[f"{embedded}token_type_embeddings.weight"]
    network.pos.weight.copy_(state[f"{embedded}position_embeddings.weight"] + sides[0])
    for kind in ("weight", "bias"):
        getattr(network.n, kind).copy_(state[f"{embedded}LayerNorm.{kind}"])
        for place, layer in enumerate(network.layers):
            own = f"encoder.layer.{place}."
            attention = [state[f"{own}attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            getattr(layer.qkv, kind).copy_(torch.cat(attention))
            getattr(layer.o, kind).copy_(state[f"{own}attention.output.dense.{kind}"])
            getattr(layer.n1, kind).copy_(state[f"{own}attention.output.LayerNorm.{kind}"])
            getattr(layer.f1, kind).copy_(state[f"{own}intermediate.dense.{kind}"])
            getattr(layer.f2, kind).copy_(state[f"{own}output.dense.{kind}"])
            getattr(layer.n2, kind).copy_(state[f"{own}output.LayerNorm.{kind}"])


def annotated(row: dict[str, Any]) -> Labelled:
    """Return a line of annotations as labels of words; if two requests share a word, the shorter one
    counts.
    """
    words, low = words_of(row["text"]), row["text"].lower()
    labels = [Label(word.text) for word in words]
    shortest = [math.inf] * len(words)
    taken: set[tuple[int, str, str | None]] = set()
    for ask in row["asks"]:
        span, key = ask["span"].lower(), (ask["column"], ask["value"])
        start = low.find(span)
        while (start, *key) in taken and low.find(span, start + 1) >= 0:
            start = low.find(span, start + 1)
        taken.add((start, *key))
        inside = _inside(words, start, start + len(span))
        for place in inside:
            if len(inside) < shortest[place]:
                shortest[place] = len(inside)
                labels[place] = Label(words[place].text, ask["column"], *_one_form(ask))
    beyond = {
        place
        for other in row["other"]
        for place in _inside(words, low.find(other.lower()), low.find(other.lower()) + len(other))
    }
    return Labelled(
        tuple(
            Label(label.word, label.role, label.operation, label.value, place in beyond)
            for place, label in enumerate(labels)
        ),
        row.get("category", ""),
    )


def _one_form(ask: dict[str, Any]) -> tuple[Operation, str | None]:
    """Return the operation and value of a request with several forms, so that a word has one label."""
    form = (ask["column"], ask["op"], ask["value"])
    if form == ("pattern", "is not", "plain") and "plain" not in ask["span"].lower():
        return "is", "other"
    if ask["column"] == "fit" and ask.get("degree") == "more":
        return ("less", None) if ask["value"] == "tight" else ("more", None)
    return ask["op"], ask["value"]


def _inside(words: Sequence[Any], start: int, end: int) -> list[int]:
    return [place for place, word in enumerate(words) if word.start < end and word.end > start]


def generated(
    tagger: Tagger, count: int = GENERATED_TEXTS, seed: int = 0, own_columns: int = 4
) -> list[Labelled]:
    """Yield generated texts, with English words from the tagger's pieces as names of shops."""
    return list(TextGenerator(seed, _english(tagger)).texts(count, own_columns))


def _english(tagger: Tagger) -> list[str]:
    return [piece for piece in tagger.pieces.pieces if piece.isalpha() and len(piece) > 3]


def train_tagger(tagger: Tagger, texts: Sequence[Labelled], course: StageSettings, seed: int = 0) -> None:
    """Train a tagger in place; the same seed gives the same weights on the same machine."""
    torch.manual_seed(seed)
    draw, swaps = Random(seed), TextGenerator(seed, _english(tagger))
    network = tagger.network
    network.emb.requires_grad_(not course.keep_pieces)
    heads = [own for name, own in network.named_parameters() if name.split(".")[0] in _HEADS]
    rest = [own for name, own in network.named_parameters() if name.split(".")[0] not in _HEADS]
    groups = [{"params": rest, "lr": course.rate}, {"params": heads, "lr": 8 * course.rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = course.epochs * math.ceil(((1 + course.swapped) * len(texts) + course.generated) / course.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * steps)) * max(0.0, 1 - step / steps)
    )
    network.train()
    for epoch in range(course.epochs):
        again = [swaps.swapped(text) for text in texts if draw.random() < course.swapped]
        again += generated(tagger, course.generated, seed=1 + epoch, own_columns=2)
        for batch in _batches([text for text in (*texts, *again) if text.labels], course.batch, draw):
            loss = _loss(tagger, batch, draw)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    network.eval()


def _batches(texts: list[Labelled], size: int, draw: Random) -> Iterable[list[Labelled]]:
    """Yield batches of texts of similar length, in random order."""
    draw.shuffle(texts)
    found = []
    for start in range(0, len(texts), 16 * size):
        part = sorted(texts[start : start + 16 * size], key=lambda text: len(text.labels))
        found += [part[place : place + size] for place in range(0, len(part), size)]
    draw.shuffle(found)
    return found


def _loss(tagger: Tagger, texts: Sequence[Labelled], draw: Random) -> Tensor:
    """Return the cross-entropy of roles, operations, values and out-of-column requests, summed over a
    text's words.
    """
    inputs = [
        (
            [label.word for label in text.labels],
            [label.mark for label in text.labels],
            "" if draw.random() < _NO_CATEGORY else text.category,
        )
        for text in texts
    ]
    batch = tagger.batch(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        scores: Scores = tagger.network(batch)
    count = batch.pool.shape[1]
    targets = torch.full((4, len(texts), count), -1, dtype=torch.long)
    for row, text in enumerate(texts):
        for place, label in enumerate(text.labels):
            targets[0, row, place] = 1 + ROLES.index(label.role) if label.role else 0
            targets[3, row, place] = int(label.beyond)
            if label.role:
                targets[1, row, place] = OPERATIONS.index(label.operation)
            if label.role and label.role != "value":
                targets[2, row, place] = VALUES.index(label.value)
    chosen = zip((scores.role, scores.operation, scores.value), targets[:3], strict=True)
    loss = sum(
        functional.cross_entropy(
            own.float().flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="sum"
        )
        for own, wanted in chosen
    )
    counts = targets[3] >= 0
    beyond = functional.binary_cross_entropy_with_logits(
        scores.beyond.float()[counts], targets[3][counts].float(), reduction="sum"
    )
    total: Tensor = (loss + _BEYOND * beyond) / len(texts)
    return total

"""Texts that train the reader, and annotations as labels of words."""

import json
from itertools import pairwise

import torch
from benchmarks import train_reader
from benchmarks.reader_texts import TextGenerator
from benchmarks.reader_training import StageSettings, annotated, train_tagger

from dqecir.language.spoken import USUAL
from dqecir.language.tagging import OWN, Mark, Tagger, TaggerNetwork, TaggerPieces

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz",
    "red",
    "blue",
    "is",
    "##d",
    "##e",
]


def test_the_same_seed_draws_the_same_texts_of_known_columns():
    texts = list(TextGenerator(3, ["window"]).texts(300))
    assert texts == list(TextGenerator(3, ["window"]).texts(300))
    labels = [label for text in texts for label in text.labels]
    assert {label.role for label in labels} == {None, OWN, *USUAL}
    assert {label.operation for label in labels if label.role} == {"is", "is not", "more", "less"}
    for label in labels:
        if label.role in USUAL:
            assert label.value is None or label.value in USUAL[label.role]
        assert (label.role == OWN) <= (label.mark == Mark.VALUE)


def test_swapped_texts_keep_what_is_asked_of_and_change_values():
    draw = TextGenerator(4, ["window"])
    for text in draw.texts(200):
        before, after = (
            [(one.role, one.operation) for one in t.labels if one.role] for t in (text, draw.swapped(text))
        )
        assert [a for a, b in pairwise([*before, None]) if a != b] == [
            a for a, b in pairwise([*after, None]) if a != b
        ]


def test_annotations_become_labels_and_the_shorter_request_of_a_word_counts():
    row = {
        "text": "Black with white stripes and a bow",
        "category": "dress",
        "asks": [
            {"column": "pattern_color", "op": "is", "value": "white", "span": "white stripes"},
            {"column": "pattern", "op": "is", "value": "striped", "span": "stripes"},
            {"column": "color", "op": "is", "value": "black", "span": "Black"},
        ],
        "other": ["bow"],
    }
    labels = {label.word: label for label in annotated(row).labels}
    assert (labels["black"].role, labels["white"].role, labels["stripes"].role) == (
        "color",
        "pattern_color",
        "pattern",
    )
    assert [word for word, label in labels.items() if label.beyond] == ["bow"]


def test_our_own_annotations_find_their_words_in_the_captions(tmp_path, monkeypatch):
    captions = tmp_path / "fashioniq" / "captions"
    captions.mkdir(parents=True)
    for category in ("dress", "shirt", "toptee"):
        pairs = [{"captions": ["is red", f"a {category} with a white bow"]}]
        (captions / f"cap.{category}.train.json").write_text(json.dumps(pairs))
    ask = {"column": "color", "op": "is", "value": "white", "span": [15, 20]}
    written = tmp_path / "annotated.jsonl"
    written.write_text(json.dumps({"id": "shirt.train.0.1", "asks": [ask], "other": [[15, 24]]}) + "\n")
    monkeypatch.setattr(train_reader, "DATA", tmp_path)
    (row,) = train_reader.further_captions(written)
    assert (row["text"], row["category"]) == ("a shirt with a white bow", "shirt")
    assert (row["asks"][0]["span"], row["other"]) == ("white", ["white bow"])


def test_a_tagger_learns_is_repeatable_and_is_saved_whole(tmp_path):
    texts = [annotated({"text": t, "asks": a, "other": []}) for t, a in _PAIRS]
    taggers = []
    for _ in range(2):
        torch.manual_seed(1)
        tagger = Tagger(TaggerNetwork(len(PIECES), 1), TaggerPieces(PIECES))
        train_tagger(tagger, texts * 16, StageSettings(epochs=6, rate=2e-3))
        taggers.append(tagger)
    first, second = (one.tag(["is", "red"], [0, 0]) for one in taggers)
    assert [tag.role for tag in first] == [None, "color"]
    assert all((a.scores == b.scores).all() for a, b in zip(first, second, strict=True))
    taggers[0].save(tmp_path, {"trained on": "two texts"})
    assert [tag.role for tag in Tagger.load(tmp_path).tag(["is", "red"], [0, 0])] == [None, "color"]


_PAIRS = [
    ("is red", [{"column": "color", "op": "is", "value": "red", "span": "red"}]),
    ("is is", []),
]

"""Accuracy of a parser, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.evaluation.parsing_accuracy import parsing_accuracy

RED, LONG = {"color": frozenset({"red"})}, {"sleeves": frozenset({"long"})}


class Said:
    """A parser whose reading of each text is given here."""

    def __init__(self, values, readings):
        self.values, self.readings, self.references = values, readings, []

    def asked(self, text, reference):
        self.references.append(reference)
        return self.readings[text]


def benchmark(*questions):
    return Benchmark(
        name="two",
        split="val",
        image_ids=("a", "b"),
        image_paths=(Path("a"), Path("b")),
        galleries={"all": np.arange(2)},
        triplets=tuple(
            Triplet(0, 1, (caption,), "all", (1,), asked=asked, unseen_wording=unseen)
            for caption, asked, unseen in questions
        ),
        mask_reference=True,
        attributes={"color": ("blue", "red"), "sleeves": ("short", "long")},
    )


def test_shares_by_wording_and_by_column():
    questions = benchmark(
        ("one", RED, False), ("two", RED | LONG, False), ("three", LONG, True), ("four", RED, True)
    )
    readings = {"One": RED, "Two": RED, "Three": LONG | {"color": frozenset({"blue"})}, "Four": {}}
    parser = Said({"color": (), "sleeves": ()}, readings)
    found = parsing_accuracy(parser, questions)
    assert found == pytest.approx(
        {
            "all": 25,
            "seen": 50,
            "unseen": 0,
            "precision/color": 200 / 3,
            "precision/sleeves": 100,
            "recall/color": 200 / 3,
            "recall/sleeves": 50,
        }
    )
    assert parser.references[0] == {"color": {"blue": 1.0}, "sleeves": {"short": 1.0}}


def test_columns_that_the_parser_does_not_know_are_not_asked_of_it():
    found = parsing_accuracy(Said({"color": ()}, {"One": RED}), benchmark(("one", RED | LONG, False)))
    assert found["all"] == 100
    assert "recall/sleeves" not in found

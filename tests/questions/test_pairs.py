"""Drawing pairs: which images, how evenly, and errors."""

from collections import Counter

import numpy as np
import pytest

from dqecir.data.cells import UNKNOWN
from dqecir.errors import DataError
from dqecir.questions.answers import CodedAttributes
from dqecir.questions.pairs import PairDraw, draw_pairs

BALANCED = PairDraw("balanced", (0.2, 0.4, 0.4))
NATURAL = PairDraw("natural", (1.0, 1.0, 1.0))


def pairs(attributes, draw=BALANCED, count=50, groups=None, galleries=None, seed=0):
    coded = CodedAttributes.of(attributes)
    size = coded.codes.shape[1]
    everything = [np.arange(size)] if galleries is None else [np.array(gallery) for gallery in galleries]
    numbers = np.zeros(size, dtype=np.int64) if groups is None else np.array(groups)
    return list(draw_pairs(coded, everything, numbers, draw, count, np.random.default_rng(seed)))


def ends(found):
    return {(pair.reference, pair.target) for pair in found}


@pytest.mark.parametrize("draw", [BALANCED, NATURAL])
def test_every_pair_differs_in_what_it_says_and_comes_once(draw):
    rng = np.random.default_rng(1)
    table = {c: rng.choice(["a", "b", "c", ""], 60).tolist() for c in "pqrs"}
    found = pairs(table, draw, count=500)
    assert len(ends(found)) == len(found) > 200
    for pair in found:
        changed = [
            place
            for place, values in enumerate(table.values())
            if "" not in (values[pair.reference], values[pair.target])
            and values[pair.reference] != values[pair.target]
        ]
        assert pair.changed == tuple(changed)
        assert 1 <= len(changed) <= 3


def test_a_target_is_not_unknown_where_the_reference_is_known():
    table = {"color": ["red", "blue", "blue"], "neck": ["v", UNKNOWN, "v"]}
    assert ends(pairs(table)) == {(0, 2), (1, 0), (2, 0)}


def test_pairs_stay_in_their_group_and_gallery():
    table = {"color": ["red", "blue", "red", "blue", "red"]}
    assert ends(pairs(table, groups=[0, 0, 1, 1, -1])) == {(0, 1), (1, 0), (2, 3), (3, 2)}
    found = pairs(table, galleries=[[0, 3], [1, 2]])
    assert ends(found) == {(0, 3), (3, 0), (1, 2), (2, 1)}
    assert {(pair.reference, pair.gallery) for pair in found} == {(0, 0), (3, 0), (1, 1), (2, 1)}


def test_a_balanced_draw_asks_for_rare_values_as_often_as_for_common_ones():
    table = {"color": ["red"] * 100 + ["blue"] * 95 + ["green"] * 5}

    def asked(draw):
        drawn = pairs(table, draw, count=400)
        return Counter(table["color"][p.target] for p in drawn if table["color"][p.reference] == "red")

    balanced, natural = asked(BALANCED), asked(NATURAL)
    assert balanced["green"] / balanced.total() == pytest.approx(0.5, abs=0.1)
    assert natural["green"] / natural.total() < 0.12


def test_the_number_of_changes_follows_its_weights_where_all_are_offered():
    rng = np.random.default_rng(0)
    table = {column: rng.choice(["a", "b"], 200).tolist() for column in "pqr"}
    numbers = Counter(len(pair.changed) for pair in pairs(table, count=2000))
    assert numbers[1] / 2000 == pytest.approx(0.2, abs=0.04)
    assert numbers[2] / 2000 == pytest.approx(0.4, abs=0.04)


def test_the_draw_ends_where_no_new_pair_is_left():
    assert len(pairs({"color": ["red", "blue"]}, count=10)) == 2
    assert pairs({"color": ["red", "red"]}) == []


@pytest.mark.parametrize(
    "draw", [BALANCED, NATURAL, PairDraw("balanced", (0.0, 1.0)), PairDraw("natural", (0.0, 1.0))]
)
def test_all_pairs_come_where_as_many_are_asked_for(draw):
    rng = np.random.default_rng(3)
    # Rare values, which random draws alone hardly pair with each other.
    table = {name: [f"{name}{int(rng.exponential(1.5))}" for _ in range(40)] for name in ("a", "b", "c", "d")}
    offered = {
        number + 1 for number, weight in enumerate(draw.change_weights) if weight or draw.drawing == "natural"
    }
    every = {
        (i, j)
        for i in range(40)
        for j in range(40)
        if sum(cells[i] != cells[j] for cells in table.values()) in offered
    }
    found = pairs(table, draw, count=5000)
    assert ends(found) == every
    assert len(found) == len(every)
    assert len(pairs(table, draw, count=len(every) - 1)) == len(every) - 1


def test_refusals():
    with pytest.raises(DataError, match="choose 'balanced' or 'natural'"):
        PairDraw("even", (1.0,))
    for weights in ((), (0.0,), (1.0, -1.0)):
        with pytest.raises(DataError, match="give numbers of 0 or more"):
            PairDraw("balanced", weights)
    with pytest.raises(DataError, match="63 attribute columns are more than the 62"):
        pairs({f"c{number}": ["a", "b"] for number in range(63)})

"""Facts about attributes: counts, ranges and bins are the same from columns and from payloads."""

import random
from collections import Counter

import pytest
import torch

from dqecir.index import column_facts
from dqecir.index.column_facts import NumberRange
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.index.payload_columns import values_in

HEADER = IndexHeader(model="m1", tokens=1, size=4, score_rule="dot")


def batch(names, payloads) -> ItemBatch:
    return ItemBatch(names, torch.ones(len(names), 1, 4), payloads)


@pytest.fixture
def index(tmp_path) -> ExactIndex:
    draw = random.Random(0)

    def payload(number: int) -> dict:
        return {
            "title": f"Dress {number}",
            "color": draw.choice(["red", "Red", "blue", ["red", "green"], None]),
            "price": draw.choice(["19.90 €", 45, "1.299,00 €", ["5", "7.5"]]),
            "code": draw.choice(["007", "7", 7, 7.0]),
            "path": f"{number}.jpg",
        }

    index = ExactIndex.build(
        tmp_path / "index", HEADER, iter([batch([f"i{n}" for n in range(90)], [*map(payload, range(90))])])
    )
    for _ in range(3):
        some = draw.sample(range(200), 20)
        index.add(batch([f"i{n}" for n in some], [*map(payload, some)]))
        index.delete([f"i{n}" for n in draw.sample(range(200), 15)])
    index.add(batch(["gone"], [{"size": "M", "color": "gold"}]))
    index.delete(["gone"])
    return index


@pytest.mark.parametrize("few", [3, 60, 500])
def test_columns_tell_what_payloads_tell(index, few):
    counts: dict[str, Counter[str]] = {}
    for _, payload in index.entries():
        for name, value in payload.items():
            counts.setdefault(name, Counter()).update(map(str, values_in(value)))
    del counts["path"]
    right = {name: column_facts.facts_of_counts(own, few, 7) for name, own in counts.items()}
    found = index.column_facts(few, 7)
    assert found.keys() == right.keys() == {"title", "color", "price", "code"}
    for name, facts in right.items():
        assert (found[name].values, found[name].numbers) == (facts.values, facts.numbers)
        assert sorted(found[name].some) == sorted(facts.some)


def test_numbers_are_counted_in_equal_bins(tmp_path):
    payloads = [{"n": n, "same": "5 €", "few": str(n % 3)} for n in range(100)] + [{"n": [0, 99.5]}]
    index = ExactIndex.build(tmp_path / "i", HEADER, iter([batch([f"i{n}" for n in range(101)], payloads)]))
    facts = index.column_facts(10, 4)
    assert facts["n"].numbers == NumberRange(0, 99.5, [26, 25, 25, 26])
    assert facts["n"].values is None
    assert facts["same"].numbers == NumberRange(5, 5, [100, 0, 0, 0])
    assert facts["few"].values == {"0": 34, "1": 33, "2": 33}


def test_of_many_texts_few_are_read(index, monkeypatch):
    monkeypatch.setattr(column_facts, "SOME", 10)
    read = []
    monkeypatch.setattr(column_facts, "values_in", lambda value: read.append(value) or [value])
    assert len(index.column_facts(5, 7)["title"].some) == 10
    assert len([value for value in read if str(value).startswith("Dress")]) < 20


def test_one_text_among_many_numbers_makes_a_column_of_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(column_facts, "SOME", 3)
    payloads = [{"size": str(number)} for number in range(20)] + [{"size": "one size"}]
    index = ExactIndex.build(tmp_path / "i", HEADER, iter([batch([f"i{n}" for n in range(21)], payloads)]))
    assert index.column_facts(5, 4)["size"].numbers is None
    index.delete(["i20"])
    assert index.column_facts(5, 4)["size"].numbers == NumberRange(0, 19, [5, 5, 5, 5])

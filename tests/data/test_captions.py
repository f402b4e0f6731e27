"""Caption conventions against the published joins and cleanings."""

import hashlib
import json
import random

import pytest

from dqecir.data.captions import CAPTION_JOINERS, blip_clean, four_way, join_fashioniq, two_way


def test_joins_and_cleanings_equal_the_published_ones_on_all_real_captions(shared):
    published = json.loads((shared / "golden" / "12_text_pad_schedule.json").read_text())[
        "fashioniq_val_captions"
    ]
    for category, hashes in published["sha256_of_newline_joined_list"].items():
        path = shared / "data" / "fashioniq" / "captions" / f"cap.{category}.val.json"
        joined = [join_fashioniq(row["captions"]) for row in json.loads(path.read_text())]
        cleaned = [blip_clean(text) for text in joined]
        assert hashlib.sha256("\n".join(joined).encode()).hexdigest() == hashes["joined"], category
        assert hashlib.sha256("\n".join(cleaned).encode()).hexdigest() == hashes["blip_processed"], category


def test_odd_texts_are_cleaned_as_published(shared):
    pairs = json.loads((shared / "golden" / "12_text_pad_schedule.json").read_text())[
        "blip_caption_processor"
    ]
    assert len(pairs) > 5
    for text, cleaned in pairs:
        assert blip_clean(text) == cleaned


def test_the_four_way_draw_equals_the_published_one(shared):
    published = json.loads((shared / "golden" / "12_text_pad_schedule.json").read_text())[
        "generate_randomized_fiq_caption"
    ]
    rows = json.loads((shared / "data" / "fashioniq" / "captions" / "cap.dress.train.json").read_text())
    rng = random.Random(published["python_random_seed"])
    assert [four_way(row["captions"], rng) for row in rows[: len(published["output"])]] == published["output"]


def test_four_way_by_hand():
    drawn = {four_way(["is red", "is long"], random.Random(seed)) for seed in range(40)}
    assert drawn == {"Is red and is long", "Is long and is red", "Is red", "Is long"}
    assert {four_way(["is red"], random.Random(seed)) for seed in range(40)} == {"Is red"}


def test_conventions_that_draw_need_a_generator():
    for name in ("two_way", "four_way"):
        with pytest.raises(ValueError, match=f"{name}' draws"):
            CAPTION_JOINERS[name](["is red", "is long"], None)
    with pytest.raises(ValueError, match="two captions, not from 3"):
        four_way(["a", "b", "c"], random.Random(0))
    assert CAPTION_JOINERS["fashioniq"](["is red", "is long"], None) == "Is red and is long"


def test_join_by_hand():
    assert join_fashioniq(["Is Shiny. ", "fit and flare?"]) == "Is shiny and fit and flare"


def test_two_way_keeps_both_captions():
    drawn = {two_way(["is red", "is long"], random.Random(seed)) for seed in range(20)}
    assert drawn == {"Is red and is long", "Is long and is red"}

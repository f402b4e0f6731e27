"""Caption conventions against the published joins and cleanings."""

import hashlib
import json
import random

import pytest

from dqecir.data.captions import READINGS, blip_clean, caption_order, join_fashioniq


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
    drawn = [
        join_fashioniq(caption_order(tuple(row["captions"]), int(READINGS["four_way"] * rng.random())))
        for row in rows[: len(published["output"])]
    ]
    assert drawn == published["output"]


@pytest.mark.parametrize(
    ("captions", "orders"),
    [
        (("red", "long"), [("red", "long"), ("long", "red"), ("red",), ("long",)]),
        (("red",), [("red",)] * 4),
        (("red", " . "), [("red", " . "), (" . ", "red"), ("red",), ("red", " . ")]),
        (("", ""), [("", "")] * 4),
    ],
)
def test_caption_orders_by_hand(captions, orders):
    assert [caption_order(captions, reading) for reading in range(READINGS["four_way"])] == orders


def test_join_by_hand():
    assert join_fashioniq(["Is Shiny. ", "fit and flare?"]) == "Is shiny and fit and flare"

"""Caption conventions against the published joins and cleanings."""

import hashlib
import json
import random

from dqecir.data.captions import blip_clean, join_fashioniq, two_way


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


def test_join_by_hand():
    assert join_fashioniq(["Is Shiny. ", "fit and flare?"]) == "Is shiny and fit and flare"


def test_two_way_keeps_both_captions():
    drawn = {two_way(["is red", "is long"], random.Random(seed)) for seed in range(20)}
    assert drawn == {"Is red and is long", "Is long and is red"}

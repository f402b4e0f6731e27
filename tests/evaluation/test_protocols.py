"""Protocols over the real annotations against the numbers of the published evaluators."""

import hashlib
import json
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dqecir.data.circo import read_circo
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import collect, precision_at, subset_recall, three_means, trapezoid_precision
from dqecir.evaluation.protocols import PROTOCOLS, WORDINGS, protocol_named
from dqecir.methods.scoring import score
from dqecir.model.image_store import store_of

GOLDEN = Path(__file__).parent.parent / "golden"
CATEGORIES = ("dress", "shirt", "toptee")


def golden(name):
    return json.loads((GOLDEN / name).read_text())


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def single_vectors(random, items, references, targets, noise):
    """Return CLIP4Cir's fixture: one vector for each image."""
    images = random.standard_normal((items, 8)).astype(np.float32)
    drawn = random.standard_normal((len(targets), 8)).astype(np.float32)
    text = np.float32(1.2) * images[targets] + np.float32(noise) * drawn
    return unit(images[references] + text) @ unit(images).T


def token_vectors(random, items, references, targets, noise):
    """Return SPRC's and QuRe's fixtures: three vectors for each image, of which the best counts."""
    tokens = unit(random.standard_normal((items, 3, 8)).astype(np.float32))
    drawn = random.standard_normal((len(targets), 8)).astype(np.float32)
    queries = unit(tokens[targets, 0] + np.float32(0.8) * tokens[references, 1] + np.float32(noise) * drawn)
    return score(torch.from_numpy(queries)[:, None], torch.from_numpy(tokens), "max_t").numpy()


def scaled_vectors(random, items, references, targets, noise):
    """Return CoSMo's and MGUR's fixtures: vectors of length 4."""
    images = np.float32(4) * unit(random.standard_normal((items, 8)).astype(np.float32))
    drawn = random.standard_normal((len(targets), 8)).astype(np.float32)
    queries = np.float32(4) * unit(images[targets] + images[references] + np.float32(noise) * drawn)
    return queries @ images.T


def scored(benchmark, category, order, recipe, seed, noise):
    """Return chunks of one category: scores drawn over its images in the published ``order``."""
    gallery = benchmark.galleries[category]
    ids = [benchmark.image_ids[place] for place in gallery]
    assert sorted(order) == sorted(ids)
    row = {name: number for number, name in enumerate(order)}
    numbers = np.array([n for n, t in enumerate(benchmark.triplets) if t.category == category])
    sides = [
        np.array([row[benchmark.image_ids[getattr(benchmark.triplets[n], side)]] for n in numbers])
        for side in ("reference", "target")
    ]
    scores = recipe(np.random.RandomState(seed), len(order), *sides, noise)[:, [row[name] for name in ids]]
    return [(category, numbers[part], scores[part]) for part in np.array_split(np.arange(len(numbers)), 8)]


def split_file(shared, name):
    return json.loads((shared / "data" / name).read_text())


def fashioniq_table(shared, recipe, seeds, noise):
    protocol = protocol_named("fashioniq")
    benchmark = protocol.benchmark(shared / "data" / "fashioniq", check_images=False)
    chunks = []
    for category, seed in seeds.items():
        order = split_file(shared, f"fashioniq/image_splits/split.{category}.val.json")
        chunks += scored(benchmark, category, order, recipe, seed, noise)
    return protocol.summarise(collect(benchmark, chunks))


def cirr_table(shared, recipe, seed, noise):
    protocol = protocol_named("cirr")
    benchmark = protocol.benchmark(shared / "data" / "cirr", check_images=False)
    order = list(split_file(shared, "cirr/image_splits/split.rc2.val.json"))
    return protocol.summarise(collect(benchmark, scored(benchmark, "all", order, recipe, seed, noise)))


RECIPES = {"clip4cir": single_vectors, "sprc": token_vectors}


@pytest.mark.parametrize("published", RECIPES)
def test_fashioniq(shared, published):
    facts = golden(f"11_metrics_{published}.json")
    parts = {category: facts[f"fashioniq_{category}"] for category in CATEGORIES}
    seeds = {category: part["seed"] for category, part in parts.items()}
    table = fashioniq_table(shared, RECIPES[published], seeds, parts["dress"]["noise"])
    for category, part in parts.items():
        assert table[f"{category}/R@10"] == pytest.approx(part["recall_at10"], abs=1e-5)
        assert table[f"{category}/R@50"] == pytest.approx(part["recall_at50"], abs=1e-5)
    average = facts["fashioniq_average"]
    assert table["R@10"] == pytest.approx(average["r10"], abs=1e-5)
    assert table["R@50"] == pytest.approx(average["r50"], abs=1e-5)
    assert table["(R@10 + R@50)/2"] == pytest.approx(average["mean"], abs=1e-5)


@pytest.mark.parametrize("published", RECIPES)
def test_fashioniq_with_the_reference_masked(shared, published):
    facts = golden(f"11_metrics_{published}.json")["fashioniq_dress"]
    protocol = protocol_named("fashioniq-covr")
    whole = protocol.benchmark(shared / "data" / "fashioniq", check_images=False)
    order = split_file(shared, "fashioniq/image_splits/split.dress.val.json")
    chunks = scored(whole, "dress", order, RECIPES[published], facts["seed"], facts["noise"])
    only = replace(whole, triplets=tuple(t for t in whole.triplets if t.category == "dress"))
    table = protocol.summarise(collect(only, chunks))
    masked = facts["recall_if_reference_were_removed"]
    assert table["R@10"] == pytest.approx(masked["r10"], abs=1e-5)
    assert table["R@50"] == pytest.approx(masked["r50"], abs=1e-5)


@pytest.mark.parametrize("published", RECIPES)
def test_cirr(shared, published):
    facts = golden(f"11_metrics_{published}.json")["cirr_val"]
    table = cirr_table(shared, RECIPES[published], facts["seed"], facts["noise"])
    seven = [facts[f"recall_at{k}"] for k in (1, 5, 10, 50)]
    subset = [facts[f"group_recall_at{k}"] for k in (1, 2, 3)]
    assert [table[f"R@{k}"] for k in (1, 5, 10, 50)] == pytest.approx(seven, abs=1e-5)
    assert [table[f"R_sub@{k}"] for k in (1, 2, 3)] == pytest.approx(subset, abs=1e-5)
    assert table["(R@5 + R_sub@1)/2"] == pytest.approx(facts["mean_R5_Rs1"], abs=1e-5)
    assert table["arithmetic mean"] == pytest.approx(np.mean(seven + subset), abs=1e-5)
    assert table["harmonic mean"] < table["geometric mean"] < table["arithmetic mean"]


def test_qure_on_fashioniq_and_cirr(shared):
    facts = golden("11_metrics_qure_cosmo_mgur.json")
    part = facts["qure_fashioniq"]
    table = fashioniq_table(shared, token_vectors, part["seeds"], part["noise"])
    for category in CATEGORIES:
        for k in (10, 50):
            wanted = part["metrics"][f"fashionIQ_{category}_recall@{k}"]
            assert table[f"{category}/R@{k}"] == pytest.approx(wanted, abs=1e-5)
    assert table["R@10"] == pytest.approx(part["metrics"]["average_recall_at10"], abs=1e-5)
    assert table["R@50"] == pytest.approx(part["metrics"]["average_recall_at50"], abs=1e-5)
    assert table["(R@10 + R@50)/2"] == pytest.approx(part["metrics"]["average_recall"], abs=1e-5)
    part = facts["qure_cirr_val"]
    table = cirr_table(shared, token_vectors, part["seed"], part["noise"])
    for k in (1, 5, 10, 50):
        assert table[f"R@{k}"] == pytest.approx(part["metrics"][f"recall_at{k}"], abs=1e-5)
    for k in (1, 2, 3):
        assert table[f"R_sub@{k}"] == pytest.approx(part["metrics"][f"group_recall_at{k}"], abs=1e-5)
    assert table["(R@5 + R_sub@1)/2"] == pytest.approx(part["metrics"]["mean(R@5+R_s@1)"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "key", "masked"),
    [
        ("fashioniq-cosmo", "fashioniq_dress_cosmo_split_gallery", True),
        ("fashioniq-val", "fashioniq_dress_mgur_val_gallery", True),
        ("fashioniq-cosmo", "fashioniq_dress_cosmo_split_gallery", False),
        ("fashioniq-val", "fashioniq_dress_mgur_val_gallery", False),
    ],
)
def test_cosmo_and_mgur(shared, name, key, masked):
    facts = golden("11_metrics_qure_cosmo_mgur.json")[key]
    protocol = replace(protocol_named(name), mask_reference=masked)
    whole = protocol.benchmark(shared / "data" / "fashioniq", check_images=False)
    benchmark = replace(whole, triplets=tuple(t for t in whole.triplets if t.category == "dress"))
    assert len(benchmark.triplets) == facts["n_queries"]
    assert len(benchmark.galleries["dress"]) == facts["n_gallery"]
    order = split_file(shared, "fashioniq/image_splits/split.dress.val.json")
    if name == "fashioniq-val":
        order = sorted(benchmark.image_ids[place] for place in benchmark.galleries["dress"])
    chunks = scored(benchmark, "dress", order, scaled_vectors, facts["seed"], 1.5)
    table = protocol.summarise(collect(benchmark, chunks))
    for k in ("1", "5", "10", "50"):
        other = facts["diagnostic_if_reference_kept"][k]
        wanted = facts["metrics"][f"recall_@{k}"] if masked else other
        assert table[f"R@{k}"] == pytest.approx(100 * wanted, abs=1e-5)


@pytest.mark.parametrize("name", ["official_submission_val", "random_0", "random_1", "random_2"])
def test_circo(shared, name):
    facts = golden("11_metrics_circo.json")[name]
    folder = shared / "data" / "circo"
    lists = facts.get("predictions")
    if lists is None:
        lists = json.loads((folder / "submission_examples" / "submission_val.json").read_text())
    rows = json.loads((folder / "annotations" / "val.json").read_text())
    ids = {image for listed in lists.values() for image in listed}
    ids |= {image for row in rows for image in (row["reference_img_id"], *row["gt_img_ids"])}
    benchmark = read_circo(folder, gallery=sorted(ids), check_images=False)
    place = {image: number for number, image in enumerate(benchmark.image_ids)}
    scores = np.full((len(rows), len(ids)), -1.0, dtype=np.float32)
    for row, triplet in enumerate(benchmark.triplets):
        listed = [place[str(image)] for image in lists[triplet.pair_id]]
        scores[row, listed] = 1 - np.arange(len(listed)) / 100
    results = collect(benchmark, [("all", np.arange(len(rows)), scores)])
    table = protocol_named("circo").summarise(results)
    shortest = min(len(listed) for listed in lists.values())
    for k in [k for k in (5, 10, 25, 50) if k <= shortest]:
        assert table[f"mAP@{k}"] == pytest.approx(100 * facts["mAP"][str(k)], abs=1e-9)
        assert table[f"R@{k}"] == pytest.approx(100 * facts["recall_target_only"][str(k)], abs=1e-9)
    for aspect, value in facts["semantic_mAP10"].items():
        assert table[f"{aspect}/mAP@10"] == pytest.approx(100 * value, abs=1e-9)
    assert list(table)[-1] == "mAP@10"


def test_the_joint_gallery_ranks_all_categories_together(shared):
    protocol = protocol_named("fashioniq-joint")
    benchmark = protocol.benchmark(shared / "data" / "fashioniq", check_images=False)
    chosen = benchmark.triplets[0], benchmark.triplets[2500], benchmark.triplets[-1]
    few = replace(benchmark, triplets=chosen)
    scores = np.zeros((3, len(benchmark.image_ids)), dtype=np.float32)
    scores[[0, 1], [chosen[0].target, chosen[1].target]] = 1
    scores[2] = 1
    scores[2, chosen[2].target] = 0
    table = protocol.summarise(collect(few, [("all", np.arange(3), scores)]))
    assert table["R@10"] == pytest.approx(200 / 3)
    assert [table[f"{category}/R@10"] for category in CATEGORIES] == [100.0, 100.0, 0.0]
    assert protocol.text(chosen[0]) == ("dress is shiny and silver with shorter sleeves and it fit and flare")


def test_texts_are_worded_as_published(shared):
    published = golden("12_text_pad_schedule.json")["fashioniq_val_captions"]
    hashes = published["sha256_of_newline_joined_list"]
    for name, key in (("fashioniq", "joined"), ("fashioniq-covr", "covr_pre_caption")):
        protocol = protocol_named(name)
        benchmark = protocol.benchmark(shared / "data" / "fashioniq", check_images=False)
        for category in CATEGORIES:
            texts = [protocol.text(t) for t in benchmark.triplets if t.category == category]
            assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == hashes[category][key]
    pair = Triplet(0, 1, ("Is red.", "is Long"), "all", (1,))
    assert WORDINGS["raw_and"](pair) == "Is red. and is Long"
    assert protocol_named("circo-qure").text(pair) == "a photo of $ that Is red."
    with pytest.raises(DataError, match="joint gallery"):
        WORDINGS["composeae"](pair)


def test_both_orders_ask_twice(shared):
    benchmark = protocol_named("fashioniq-cosmo").benchmark(shared / "data" / "fashioniq", check_images=False)
    once, again = benchmark.triplets[:2]
    assert again == replace(once, captions=once.captions[::-1])
    assert len(benchmark.triplets) == 2 * 6016


def test_questions_of_test_splits(shared):
    for name, split, count in (("fashioniq", "test", 6118), ("cirr", "test1", 4148)):
        data = shared / "data" / name
        questions = protocol_named(name).questions(data, split, check_images=False)
        assert len(questions.questions) == count
        assert questions.mask_reference == protocol_named(name).mask_reference
        with pytest.raises(DataError, match="not published"):
            protocol_named(name).benchmark(data, split, check_images=False)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name.startswith("fashioniq")])
def test_a_model_is_measured_by_a_protocol(name, model, garments, tmp_path):
    (tmp_path / "captions").mkdir()
    (tmp_path / "image_splits").mkdir()
    for number, category in enumerate(CATEGORIES):
        paths = garments.image_paths[number * 5 : number * 5 + 6]
        ids = [path.stem for path in paths]
        rows = [
            {"candidate": one, "target": other, "captions": ["is red", "has long sleeves"]}
            for one, other in pairwise(ids)
        ]
        (tmp_path / "image_splits" / f"split.{category}.val.json").write_text(json.dumps(ids))
        (tmp_path / "captions" / f"cap.{category}.val.json").write_text(json.dumps(rows))
    protocol = protocol_named(name)
    benchmark = protocol.benchmark(tmp_path, images=garments.image_paths[0].parent)
    store = store_of(model, benchmark, tmp_path / "tokens", quiet=True)
    results = evaluate(model.method, store, model.text_encoder, benchmark)
    table = protocol.summarise(results)
    assert table["R@50"] == 100.0
    assert list(table)[-1] == "(R@10 + R@50)/2"
    assert all(f"{category}/R@1" in table for category in CATEGORIES)
    assert all(protocol.text(triplet) for triplet in benchmark.triplets)


def tiny(name="fashioniq", masked=False, subset=()):
    ids = tuple("abcd")
    triplets = (Triplet(0, 1, ("x",), "all", (1,), subset=subset),)
    return Benchmark(name, "val", ids, tuple(map(Path, ids)), {"all": np.arange(4)}, triplets, masked)


def tiny_results(*arguments, **changes):
    scores = np.array([[4.0, 3, 2, 1]], dtype=np.float32)
    return collect(tiny(*arguments, **changes), [("all", np.array([0]), scores)])


def test_results_of_another_protocol_are_refused():
    assert protocol_named("fashioniq").summarise(tiny_results())["R@1"] == 0
    for results in (tiny_results(masked=True), tiny_results("cirr")):
        with pytest.raises(DataError, match="fashioniq needs results of fashioniq with the reference"):
            protocol_named("fashioniq").summarise(results)
    with pytest.raises(DataError, match="without a subset"):
        protocol_named("cirr").summarise(tiny_results("cirr", masked=True))
    with pytest.raises(DataError, match="AP@51 cannot be computed"):
        precision_at(tiny_results(), 51)
    assert subset_recall(tiny_results(subset=(1, 2)), 1).tolist() == [1.0]


def test_protocols_are_frozen_and_named():
    with pytest.raises(DataError, match="did you mean 'fashioniq-val'"):
        protocol_named("fashioniq-vals")
    with pytest.raises(FrozenInstanceError):
        protocol_named("cirr").mask_reference = False
    assert [name for name, p in PROTOCOLS.items() if p.mask_reference] == [
        "fashioniq-val",
        "fashioniq-cosmo",
        "fashioniq-covr",
        "cirr",
        "circo-covr",
        "fashion200k",
    ]
    assert all(protocol.source for protocol in PROTOCOLS.values())


def test_genecis_equals_the_published_evaluator():
    """Recall of synthetic scores by the published function, over the gallery of each question."""
    published = golden("19_genecis_icir.json")["genecis"]
    galleries, triplets, chunks, start = {}, [], [], 1
    for task, facts in published.items():
        questions, candidates = facts["questions"], facts["candidates"]
        own = np.random.default_rng(facts["seed"]).random((questions, candidates), dtype=np.float32)
        own[:, 0] += 0.4
        # Every question has its own candidates, and others lie between them.
        gallery = np.arange(start, start + questions * candidates)
        scores = np.full((questions, gallery.size), 5, dtype=np.float32)
        for row in range(questions):
            scores[row, row * candidates : (row + 1) * candidates] = own[row]
            subset = tuple(range(start + row * candidates, start + (row + 1) * candidates))
            triplets.append(Triplet(0, subset[0], ("x",), task, (subset[0],), subset=subset))
        galleries[task] = gallery
        chunks.append((task, np.arange(len(triplets) - questions, len(triplets)), scores))
        start += gallery.size
    ids = tuple(map(str, range(start)))
    benchmark = Benchmark("genecis", "val", ids, tuple(map(Path, ids)), galleries, tuple(triplets), False)
    table = protocol_named("genecis").summarise(collect(benchmark, chunks, kept=0))
    for task, facts in published.items():
        for k, value in facts["recall"].items():
            assert table[f"{task}/R_sub@{k}"] == pytest.approx(100 * value, abs=1e-5)
    means = np.mean([facts["recall"]["1"] for facts in published.values()])
    assert table["R_sub@1"] == pytest.approx(100 * means, abs=1e-5)


def test_icir_equals_the_published_evaluator():
    """Average precisions of synthetic rankings by the published function, and the means that its script
    prints.
    """
    published = golden("19_genecis_icir.json")["icir"]
    galleries, triplets, chunks, expected, start = {}, [], [], [], 1
    for instance, facts in published["instances"].items():
        size = len(facts["database"])
        galleries[instance] = np.arange(start, start + size)
        for text in facts["queries"]:
            right = tuple(start + n for n, own in enumerate(facts["database"]) if own == text)
            triplets.append(Triplet(0, right[0], (text,), instance, right))
        numbers = np.arange(len(triplets) - len(facts["queries"]), len(triplets))
        chunks.append((instance, numbers, np.array(facts["scores"], dtype=np.float32)))
        expected += facts["AP"]
        start += size
    ids = tuple(map(str, range(start)))
    benchmark = Benchmark("i-cir", "test", ids, tuple(map(Path, ids)), galleries, tuple(triplets), False)
    results = collect(benchmark, chunks, kept=0)
    assert [trapezoid_precision(ranks) for ranks in results.right_ranks] == pytest.approx(expected)
    table = protocol_named("i-cir").summarise(results)
    assert list(table) == ["mmAP", "minmAP", "mAP"]
    assert table == pytest.approx({key: 100 * published[key] for key in table})


def test_the_trapezoid_rule_by_hand():
    # Right answers at places 1 and 4: (1 + 1) / 2 and (1/3 + 2/4) / 2.
    assert trapezoid_precision([3, 0]) == pytest.approx((1 + (1 / 3 + 1 / 2) / 2) / 2, abs=1e-5)


def test_answers_that_are_public_are_not_submitted(tmp_path):
    with pytest.raises(DataError, match="i-cir publishes all answers"):
        protocol_named("i-cir").questions(tmp_path, "test")


@pytest.mark.parametrize("name", ["circo", "circo-qure", "circo-covr"])
def test_a_submission_masks_the_reference_as_its_protocol_does(name, tmp_path):
    row = {"id": 0, "reference_img_id": 5, "relative_caption": "is new"}
    files = {"images": [{"id": image, "file_name": f"{image}.jpg"} for image in (5, 2)]}
    for place, value in (
        ("annotations/test.json", [row]),
        ("COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", files),
    ):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(json.dumps(value))
    questions = protocol_named(name).questions(tmp_path, "test", check_images=False)
    assert questions.mask_reference == (name == "circo-covr")


def test_three_means_by_hand():
    assert three_means([1, 4]) == pytest.approx(
        {"arithmetic mean": 2.5, "harmonic mean": 1.6, "geometric mean": 2.0}
    )
    assert three_means([0, 4])["harmonic mean"] == three_means([0, 4])["geometric mean"] == 0.0

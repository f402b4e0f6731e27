"""Ranks and metrics, compared with cases by hand and with the published evaluators."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.errors import DataError
from dqecir.evaluation.metrics import (
    average_precision,
    collect,
    hard_negatives,
    ndcg,
    precision_at,
    summarise,
    whole_average_precision,
)
from dqecir.methods.scoring import score


def benchmark_of(triplets, images=6, mask_reference=True, galleries=None) -> Benchmark:
    ids = tuple(str(number) for number in range(images))
    return Benchmark(
        "b",
        "val",
        ids,
        tuple(map(Path, ids)),
        galleries or {"all": np.arange(images)},
        tuple(triplets),
        mask_reference,
    )


def asked(reference, target, relevant=None, ignored=(), category="all", unseen=False) -> Triplet:
    return Triplet(
        reference, target, ("text",), category, relevant or (target,), ignored, unseen_wording=unseen
    )


def ranked(benchmark, scores, category="all"):
    return collect(benchmark, [(category, np.arange(len(scores)), np.array(scores, dtype=np.float32))])


def test_the_reference_and_the_undecided_are_taken_out():
    #         ref  best  target undecided
    scores = [[9.0, 3.0, 2.0, 8.0, 1.0, 0.0]]
    assert ranked(benchmark_of([asked(0, 2, ignored=(3,))]), scores).ranks.tolist() == [1]
    kept = benchmark_of([asked(0, 2)], mask_reference=False)
    assert ranked(kept, scores).ranks.tolist() == [3]


def test_equal_scores_count_against_the_target_only_from_lower_positions():
    scores = [[0.0, 5.0, 5.0, 5.0, 0.0, 0.0]]
    assert ranked(benchmark_of([asked(0, 2)]), scores).ranks.tolist() == [1]


def test_average_precision_by_hand():
    hits = np.array([[True, False, True, False, False, False, False, False, False, False]])
    assert average_precision(hits, np.array([2]), 10)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(hits, np.array([30]), 10)[0] == pytest.approx((1 + 2 / 3) / 10)


def test_average_precision_over_a_whole_ranking_by_hand():
    # Right answers at places 2, 3 and 8.
    assert whole_average_precision([7, 1, 2]) == pytest.approx((1 / 2 + 2 / 3 + 3 / 8) / 3)
    assert whole_average_precision([0, 1]) == 1.0
    relevant = (1, 2, 11)
    results = ranked(benchmark_of([asked(0, 1, relevant)], 13), [[0.0, 11.0, 10.0, *[5.0] * 8, 1.0, 5.0]])
    # Image 11 comes last of 12: the ten first hold two of three.
    assert results.average_precision[0] == pytest.approx((1 + 1 + 3 / 12) / 3)
    assert results.average_precision_10[0] == pytest.approx(2 / 3)
    assert summarise(results)["mAP"] == pytest.approx(100 * (2 + 3 / 12) / 3)


def test_ndcg_by_hand():
    hits = np.array([[False, True, True, False], [True, False, False, False]])
    ideal = 1 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)
    gains = 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(hits, np.array([3, 1]), 10).tolist() == pytest.approx([gains / ideal, 1.0])
    # More right answers than places: ten in the first ten are perfect.
    assert ndcg(np.ones((1, 10), bool), np.array([12]), 10)[0] == pytest.approx(1.0)


def test_hard_negatives_lack_what_was_asked_for_and_nothing_else():
    attributes = {
        "color": ("red", "blue", "red", "green", "blue", "blue", "?"),
        "sleeves": ("long", "long", "long", "long", "short", "long", "long"),
    }
    question = replace(asked(0, 1, (1, 5), ignored=(6,)), asked={"color": frozenset({"blue"})})
    benchmark = replace(benchmark_of([question], 7), attributes=attributes)
    # Image 2 is as red as the reference, 3 is green: both wrong in colour alone. 4 is wrong in its sleeves.
    results = ranked(benchmark, [[9.0, 5.0, 8.0, 7.0, 6.0, 1.0, 2.0]])
    assert results.found[0, :5].tolist() == [2, 3, 4, 1, 5]
    assert hard_negatives(results, 2)[0] == 1.0
    assert hard_negatives(results, 4)[0] == 0.5
    assert summarise(results)["hard negatives@10"] == pytest.approx(40)
    two = replace(
        question, target=4, relevant=(4,), asked={**question.asked, "sleeves": frozenset({"short"})}
    )
    results = ranked(replace(benchmark, triplets=(two,)), [[9.0, 5.0, 8.0, 7.0, 6.0, 1.0, 2.0]])
    # Both columns are asked of: whatever lacks one of them, and differs nowhere else, is a hard negative.
    assert hard_negatives(results, 3)[0] == pytest.approx(2 / 3)


def test_all_right_answers_count():
    results = ranked(benchmark_of([asked(0, 2, relevant=(2, 4))]), [[0.0, 9.0, 1.0, 0.0, 8.0, 0.0]])
    assert results.average_precision_10[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert results.r_precision[0] == pytest.approx(0.5)
    assert results.hits()[0, :3].tolist() == [False, True, True]
    assert results.found[0, :6].tolist() == [1, 4, 2, 3, 5, -1]


def test_the_headline_is_the_mean_over_categories():
    galleries = {"one": np.array([0, 1, 2]), "two": np.array([3, 4, 5])}
    triplets = [
        asked(0, 1, category="one"),
        asked(0, 2, category="one"),
        asked(3, 4, category="two", unseen=True),
    ]
    benchmark = benchmark_of(triplets, galleries=galleries)
    scores = [[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]
    results = collect(
        benchmark,
        [
            ("one", np.array([0, 1]), np.array(scores, dtype=np.float32)),
            ("two", np.array([2]), np.array([[0.0, 2.0, 1.0]], dtype=np.float32)),
        ],
    )
    metrics = summarise(results)
    assert metrics["one/R@1"] == 50.0
    assert metrics["two/R@1"] == 100.0
    assert metrics["R@1"] == 75.0
    assert metrics["seen/R@1"] == 50.0
    assert metrics["unseen/R@1"] == 100.0


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([("all", np.array([0]), np.full((1, 6), np.nan, dtype=np.float32))], "not a number"),
        ([], "1 of 1 queries were not scored"),
        ([("all", np.array([0]), np.full((1, 6), np.inf, dtype=np.float32))], "not a number"),
        ([("all", np.array([0]), np.zeros((1, 6), dtype=np.float32))] * 2, "not scored exactly once"),
        ([("all", np.array([0]), np.zeros((1, 5), dtype=np.float32))], r"shape \[1, 5\]"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(chunks, message):
    with pytest.raises(DataError, match=message):
        collect(benchmark_of([asked(0, 2)]), chunks)


@settings(max_examples=50)
@given(seed=st.integers(0, 1000))
def test_ranks_equal_a_plain_sort(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (1, 6)).astype(np.float32)
    order = [i for i in sorted(range(6), key=lambda i: (-scores[0, i], i)) if i != 0]
    results = ranked(benchmark_of([asked(0, 3)]), scores)
    assert results.ranks[0] == order.index(3)
    assert results.found[0, :5].tolist() == order


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), images=st.sampled_from([6, 12, 80]), values=st.sampled_from([2, 1000]))
def test_results_are_those_of_plain_sorts_and_counts(seed, images, values):
    """Ties, several right answers, subsets and excluded candidates, with and without kept candidates."""
    random = np.random.default_rng(seed)
    triplets = []
    for _ in range(9):
        reference, target, *others = random.permutation(images).tolist()
        right, out = others[: random.integers(3)], others[3 : 3 + random.integers(2)]
        made = asked(reference, target, (target, *right), tuple(out))
        triplets.append(replace(made, subset=(target, *others[-random.integers(1, 3) :])))
    benchmark = benchmark_of(triplets, images, mask_reference=bool(seed % 2))
    scores = random.integers(0, values, (9, images)).astype(np.float32)
    kept, none = (collect(benchmark, [("all", np.arange(9), scores)], count) for count in (50, 0))
    assert none.found.shape == (9, 0)
    for row, triplet in enumerate(triplets):
        out = {*triplet.ignored, triplet.reference} if benchmark.mask_reference else {*triplet.ignored}
        order = sorted(set(range(images)) - out, key=lambda i: (-scores[row, i], i))
        hits = [image in triplet.relevant for image in order]
        precision = [sum(hits[: i + 1]) / (i + 1) for i in range(min(10, len(hits))) if hits[i]]
        count = len(triplet.relevant)
        inside = [image for image in order if image in triplet.subset]
        assert [image for image in kept.found[row] if image >= 0] == order[:50]
        assert kept.hits()[row, : len(order)].tolist() == hits[:50]
        for results in (kept, none):
            assert results.ranks[row] == order.index(triplet.target)
            assert results.average_precision_10[row] == pytest.approx(sum(precision) / min(count, 10))
            assert results.r_precision[row] == sum(hits[:count]) / count
            whole = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]]
            assert results.average_precision[row] == pytest.approx(sum(whole) / count)
            gains = sum(1 / np.log2(i + 2) for i, hit in enumerate(hits[:10]) if hit)
            ideal = sum(1 / np.log2(i + 2) for i in range(min(count, 10)))
            assert results.ndcg_10[row] == pytest.approx(gains / ideal)
            assert results.subset_ranks[row] == inside.index(triplet.target)
    assert summarise(kept) == summarise(none)


def test_what_was_not_kept_cannot_be_measured():
    results = ranked(benchmark_of([asked(0, 2)]), [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    assert precision_at(results, 5)[0] == pytest.approx(1 / 4)
    with pytest.raises(DataError, match="the best 0 candidates"):
        precision_at(replace(results, found=results.found[:, :0].copy()), 5)


@pytest.mark.parametrize(
    ("triplet", "galleries"),
    [
        (asked(0, 5), {"all": np.arange(5)}),
        (asked(0, 2, relevant=(2, 5)), {"all": np.arange(5)}),
        (asked(0, 0), {"all": np.arange(5)}),
        (asked(0, 2, relevant=(2, 3), ignored=(3,)), {"all": np.arange(5)}),
    ],
    ids=["target elsewhere", "right answer elsewhere", "target is the reference", "right and ignored"],
)
def test_a_right_answer_outside_its_ranking_is_refused(triplet, galleries):
    with pytest.raises(DataError, match="not in its gallery, or was excluded"):
        ranked(benchmark_of([triplet], galleries=galleries), [[0.0, 1.0, 2.0, 3.0, 4.0]])


def test_a_query_scored_in_another_category_is_refused():
    galleries = {"one": np.array([0, 1, 2]), "two": np.array([3, 4, 5])}
    with pytest.raises(DataError, match="'one' was scored in 'two'"):
        ranked(benchmark_of([asked(0, 1, category="one")], galleries=galleries), [[0.0] * 3], "two")


def test_a_benchmark_without_questions_measures_nothing():
    with pytest.raises(DataError, match="asks no questions: choose another split"):
        collect(benchmark_of([]), [])


def test_results_cannot_be_changed():
    results = ranked(benchmark_of([asked(0, 2)]), [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    with pytest.raises(ValueError, match="read-only"):
        results.ranks[0] = 0
    with pytest.raises(DataError, match=r"ranks has shape \[2\]"):
        replace(results, ranks=np.zeros(2, dtype=np.int64))
    with pytest.raises(DataError, match="negative"):
        replace(results, ranks=np.array([-1]))
    with pytest.raises(DataError, match="between 0 and 1"):
        replace(results, r_precision=np.array([1.5]))


def test_right_answers_beyond_the_kept_ones_count_for_r_precision():
    relevant = tuple(range(1, 61))
    results = ranked(
        benchmark_of([asked(0, 1, relevant=relevant)], images=80), [np.arange(80.0)[::-1].tolist()]
    )
    assert results.r_precision[0] == 1.0
    assert results.average_precision_10[0] == 1.0


GOLDEN = Path(__file__).parent.parent / "golden"
CATEGORIES = ("dress", "shirt", "toptee")


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def recipe_scores(published, facts, references, targets):
    """Return the scores given to the published evaluator, drawn as its notes say, in float32."""
    random = np.random.RandomState(facts["seed"])
    items, noise = facts["n_gallery"], np.float32(facts["noise"])
    if published == "clip4cir":
        images = random.standard_normal((items, 8)).astype(np.float32)
        drawn = random.standard_normal((len(targets), 8)).astype(np.float32)
        text = np.float32(1.2) * images[targets] + noise * drawn
        return unit(images[references] + text) @ unit(images).T
    tokens = unit(random.standard_normal((items, 3, 8)).astype(np.float32))
    drawn = random.standard_normal((len(targets), 8)).astype(np.float32)
    queries = unit(tokens[targets, 0] + np.float32(0.8) * tokens[references, 1] + noise * drawn)
    rules = torch.from_numpy(queries)[:, None], torch.from_numpy(tokens)
    return score(*rules, "max_t").numpy()


def read(path: Path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("published", ["clip4cir", "sprc"])
def test_fashioniq_equals_the_published_evaluators(shared, published):
    facts = read(GOLDEN / f"11_metrics_{published}.json")
    ranks = np.load(GOLDEN / f"11_metrics_{published}_ranks.npz")
    images, galleries, triplets, chunks, expected = [], {}, [], [], []
    folder = shared / "data" / "fashioniq"
    for category in CATEGORIES:
        names = read(folder / "image_splits" / f"split.{category}.val.json")
        rows = {name: row for row, name in enumerate(names)}
        start, questions = len(images), read(folder / "captions" / f"cap.{category}.val.json")
        references, targets = (
            np.array([rows[question[side]] for question in questions]) for side in ("candidate", "target")
        )
        pairs = zip(references.tolist(), targets.tolist(), strict=True)
        numbers = np.arange(len(triplets), len(triplets) + len(questions))
        triplets += [asked(start + r, start + t, category=category) for r, t in pairs]
        galleries[category] = np.arange(start, start + len(names))
        images += names
        scores = recipe_scores(published, facts[f"fashioniq_{category}"], references, targets)
        chunks += [(category, part, scores[part - numbers[0]]) for part in np.array_split(numbers, 8)]
        expected.append(ranks[f"fashioniq.{category}.target_rank0"])
    benchmark = benchmark_of(triplets, len(images), mask_reference=False, galleries=galleries)
    results = collect(benchmark, chunks)
    metrics = summarise(results)
    for category in CATEGORIES:
        for k in (10, 50):
            wanted = facts[f"fashioniq_{category}"][f"recall_at{k}"]
            assert metrics[f"{category}/R@{k}"] == pytest.approx(wanted, abs=1e-5)
    assert metrics["R@10"] == pytest.approx(facts["fashioniq_average"]["r10"], abs=1e-5)
    assert metrics["R@50"] == pytest.approx(facts["fashioniq_average"]["r50"], abs=1e-5)
    # The published code sorts 1 - score, which makes ties of its own in float32.
    assert np.mean(results.ranks == np.concatenate(expected)) > 0.995


@pytest.mark.parametrize("published", ["clip4cir", "sprc"])
def test_cirr_equals_the_published_evaluators(shared, published):
    facts = read(GOLDEN / f"11_metrics_{published}.json")["cirr_val"]
    ranks = np.load(GOLDEN / f"11_metrics_{published}_ranks.npz")["cirr.target_rank0_reference_removed"]
    names = read(shared / "data" / "cirr" / "image_splits" / "split.rc2.val.json")
    rows = {name: row for row, name in enumerate(names)}
    questions = read(shared / "data" / "cirr" / "captions" / "cap.rc2.val.json")
    references, targets = (
        np.array([rows[question[side]] for question in questions]) for side in ("reference", "target_hard")
    )
    triplets = [asked(r, t) for r, t in zip(references.tolist(), targets.tolist(), strict=True)]
    results = ranked(benchmark_of(triplets, len(rows)), recipe_scores(published, facts, references, targets))
    metrics = summarise(results)
    for k in (1, 5, 10, 50):
        assert metrics[f"R@{k}"] == pytest.approx(facts[f"recall_at{k}"], abs=1e-5)
    assert np.mean(results.ranks == ranks) > 0.995


@pytest.mark.parametrize("submission", ["official_submission_val", "random_0", "random_1", "random_2"])
def test_circo_average_precision_equals_the_published_evaluator(shared, submission):
    facts = read(shared / "golden" / "11_metrics_circo.json")
    questions = read(shared / "data" / "circo" / "annotations" / "val.json")
    if submission == "official_submission_val":
        predictions = read(shared / "data" / "circo" / "submission_examples" / "submission_val.json")
        wanted = facts[submission]["mAP"]
    else:
        predictions, wanted = facts[submission]["predictions"], facts[submission]["mAP"]
    ranking = [predictions[str(question["id"])] for question in questions]
    answers = [question["gt_img_ids"] for question in questions]
    hits = np.array([np.isin(row, right) for row, right in zip(ranking, answers, strict=True)])
    relevant = np.array([len(right) for right in answers])
    for k in (5, 10, 25, 50):
        assert average_precision(hits, relevant, k).mean() == pytest.approx(wanted[str(k)], abs=1e-12)
    known = sorted({name for names in (*ranking, *answers) for name in names})
    place = {name: number for number, name in enumerate(known)}
    scores = np.full((len(ranking), len(known)), -1.0)
    for row, names in enumerate(ranking):
        scores[row, [place[name] for name in names]] = 1 - np.arange(len(names)) / 100
    triplets = [
        asked(0, place[question["target_img_id"]], tuple(sorted(place[name] for name in right)))
        for question, right in zip(questions, answers, strict=True)
    ]
    results = ranked(benchmark_of(triplets, len(known), mask_reference=False), scores)
    assert summarise(results)["mAP@10"] == pytest.approx(100 * wanted["10"], abs=1e-9)


def test_a_ranking_cut_short_has_no_further_hits(shared):
    facts = read(shared / "golden" / "11_metrics_circo.json")
    questions = read(shared / "data" / "circo" / "annotations" / "val.json")
    predictions = facts["random_0"]["predictions"]
    hits = np.array([np.isin(predictions[str(q["id"])][:7], q["gt_img_ids"]) for q in questions])
    relevant = np.array([len(q["gt_img_ids"]) for q in questions])
    for k, wanted in facts["random_0_truncated_to_7"]["mAP"].items():
        assert average_precision(hits, relevant, int(k)).mean() == pytest.approx(wanted, abs=1e-12)


def test_products_are_ranked_by_their_best_views_and_the_references_is_taken_out():
    # Products 0: images 0, 1; 1: 2, 3; 2: 4; 3: 5.
    products = (0, 0, 1, 1, 2, 3)
    triplets = [asked(0, 2, relevant=(2, 3)), asked(5, 4, relevant=(0, 1, 4), ignored=(2, 3))]
    benchmark = replace(benchmark_of(triplets), products=products)
    scores = [[9.0, 8.0, 1.0, 6.0, 5.0, 7.0], [3.0, 4.0, 9.0, 8.0, 5.0, 9.0]]
    results = ranked(benchmark, scores)
    # Image 5 (7) comes before product 1, whose best view is image 3 (6).
    assert results.ranks.tolist() == [1, 0]
    assert results.found[:, :4].tolist() == [[5, 3, 4, -1], [4, 1, -1, -1]]
    assert results.hits()[:, :3].tolist() == [[False, True, False], [True, True, False]]
    assert results.average_precision_10.tolist() == [0.5, 1.0]


@given(st.data())
@settings(max_examples=60)
def test_products_are_ranked_as_one_picture_each_by_its_best_score(data):
    images = data.draw(st.integers(3, 12))
    products = data.draw(st.lists(st.integers(0, 4), min_size=images, max_size=images))
    reference, target = data.draw(st.integers(0, images - 1)), data.draw(st.integers(0, images - 1))
    names = sorted(set(products))
    if products[reference] == products[target]:
        return
    scores = np.array(data.draw(st.lists(st.integers(0, 5), min_size=images, max_size=images)), np.float32)
    views = tuple(i for i in range(images) if products[i] == products[target])
    viewed = replace(benchmark_of([asked(reference, target, views)], images), products=tuple(products))
    single = benchmark_of(
        [asked(names.index(products[reference]), names.index(products[target]))], images=len(names)
    )
    best = [max(scores[i] for i in range(images) if products[i] == name) for name in names]
    one, other = ranked(viewed, [scores]), ranked(single, [best])
    # Equal products may stand in another order: by their best views, not by their numbers.
    equal = sum(value == best[names.index(products[target])] for value in best)
    assert abs(one.ranks[0] - other.ranks[0]) < equal
    assert [products[i] for i in one.found[0] if i >= 0].count(products[target]) == 1
    assert sorted(products[i] for i in one.found[0] if i >= 0) == sorted(
        names[i] for i in other.found[0] if i >= 0
    )

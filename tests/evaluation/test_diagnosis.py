"""Confusion, intents and shortcuts of methods with known results."""

import numpy as np
import pytest
import torch

from dqecir.encoders.store import TokenStore
from dqecir.evaluation.diagnosis import (
    composition_gap,
    confusion,
    diagnose,
    half_results,
    nearest_intents,
    paraphrase_spread,
    robustness,
    shortcuts,
    with_another,
)
from dqecir.evaluation.evaluate import evaluate
from dqecir.methods.method import Method, MethodOptions, Query, method_named
from dqecir.questions.composing import catalogue_benchmark
from dqecir.questions.confusables import confusable_pairs
from dqecir.questions.paraphrases import paraphrases


class Knowing(Method):
    """A method that finds the image whose number a text names; tokens contain the number of their image."""

    options_type = MethodOptions
    score_rule = "dot"

    def __init__(self, backbone, numbers):
        super().__init__(backbone)
        self.numbers = numbers

    @classmethod
    def build(cls, backbone, options, context):
        raise AssertionError("nothing here builds or trains it")

    @staticmethod
    def text(captions):
        return captions[0]

    def embed_target(self, tokens):
        return torch.nn.functional.one_hot(tokens[:, 0, 0].long(), self.numbers).float()[:, None]

    def embed_query(self, reference, text):
        wanted = torch.tensor([int(words) for words in text.texts])
        return Query(torch.nn.functional.one_hot(wanted, self.numbers).float()[:, None])

    def loss(self, batch):
        raise AssertionError("nothing here builds or trains it")


class ImageMinded(Knowing):
    """A method that always finds the reference itself."""

    def embed_query(self, reference, text):
        return Query(self.embed_target(reference))


@pytest.fixture(scope="module")
def benchmark(garments):
    return catalogue_benchmark(garments, "train", seed=1, count=200)


@pytest.fixture
def store(benchmark):
    numbers = np.arange(len(benchmark.image_ids), dtype=np.float16)
    return TokenStore(np.tile(numbers[:, None, None, None], (1, 1, 4, 16)))


def naming_targets(triplets):
    from dataclasses import replace

    return tuple(replace(triplet, captions=(str(triplet.target),)) for triplet in triplets)


def test_who_knows_the_answer_confuses_nothing_and_who_ignores_the_text_everything(model, benchmark, store):
    from dataclasses import replace

    pairs = [
        replace(pair, first=naming_targets([pair.first])[0], second=naming_targets([pair.second])[0])
        for pair in confusable_pairs(benchmark, 30)
    ]
    count = len(benchmark.image_ids)
    knowing = Knowing(model.backbone, count)
    assert confusion(knowing, store, model.text_encoder, pairs)["both told apart"] == 100
    minded = ImageMinded(model.backbone, count)
    assert confusion(minded, store, model.text_encoder, pairs)["told apart"] == 0


def test_text_alone_answers_for_who_reads_only_the_text(model, benchmark, store):
    from dataclasses import replace

    named = replace(benchmark, triplets=naming_targets(benchmark.triplets))
    knowing = Knowing(model.backbone, len(benchmark.image_ids))
    found = shortcuts(knowing, store, model.text_encoder, named)
    assert found["R@10 text alone"] == 100
    assert found["R@10 image alone"] < 25


def test_a_query_that_is_its_target_lies_nearest_to_its_own_intent(model, benchmark, store):
    from dataclasses import replace

    doubled = naming_targets(benchmark.triplets) * 2
    named = replace(benchmark, triplets=doubled)
    knowing = Knowing(model.backbone, len(benchmark.image_ids))
    assert nearest_intents(knowing, store, model.text_encoder, named) == {"other intent nearest": 0.0}


@pytest.mark.parametrize("values", ["with values", "captions alone"])
@pytest.mark.parametrize("kind", ["reference", "captions"])
def test_the_lent_half_is_another_querys_and_no_right_answer(benchmark, kind, values):
    from dataclasses import replace

    if values == "captions alone":
        triplets = tuple(replace(triplet, asked={}) for triplet in benchmark.triplets)
        benchmark = replace(benchmark, triplets=triplets)
    changed = with_another(benchmark, kind, seed=0)
    moved = 0
    for before, after in zip(benchmark.triplets, changed.triplets, strict=True):
        assert after.target == before.target
        assert after.reference not in before.relevant
        moved += getattr(after, kind) != getattr(before, kind)
    assert moved > 0.9 * len(benchmark.triplets)


def test_diagnosing_leaves_the_mode_of_a_method_as_it_was(model, benchmark, store):
    kind = method_named("image_plus_text")
    method = kind(model.backbone).train()
    results = evaluate(method, store, model.text_encoder, benchmark)
    found = diagnose(
        method, store, model.text_encoder, results, confusable_pairs(benchmark, 10), paraphrases(benchmark, 5)
    )
    assert method.training
    assert {"composition gap", "paraphrase spread", "both told apart"} <= set(found)


def test_the_composition_gap_and_the_paraphrase_spread_by_hand():
    full, image, text = np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.0, 0.2]), np.array([0.0, 0.3, 0.0])
    # Means: 0.5, 0.4 and 0.1.
    assert composition_gap(full, image, text) == pytest.approx(0.1)
    assert paraphrase_spread(np.array([[0.5, 0.25, 1.0], [0.2, 0.2, 0.2]])) == pytest.approx(0.375)


def test_a_method_that_ignores_the_text_has_no_composition_gap(model, benchmark, store):
    minded = ImageMinded(model.backbone, len(benchmark.image_ids))
    results = evaluate(minded, store, model.text_encoder, benchmark)
    by_reference, _ = half_results(minded, store, model.text_encoder, benchmark)
    assert by_reference.ranks.tolist() == results.ranks.tolist()
    found = robustness(minded, store, model.text_encoder, results, paraphrases(benchmark, 20))
    assert found["composition gap"] <= 0
    assert found["paraphrase spread"] == 0


def test_a_method_that_ignores_the_reference_has_no_composition_gap(model, benchmark, store):
    from dataclasses import replace

    named = replace(benchmark, triplets=naming_targets(benchmark.triplets))
    knowing = Knowing(model.backbone, len(benchmark.image_ids))
    knowing.embed_query = lambda reference, text: Knowing.embed_query(
        knowing, reference, replace(text, texts=tuple(words or "0" for words in text.texts))
    )
    results = evaluate(knowing, store, model.text_encoder, named)
    unasked = replace(benchmark, triplets=())
    found = robustness(knowing, store, model.text_encoder, results, unasked)
    assert found["mAP@10 text alone"] == pytest.approx(100 * results.average_precision_10.mean())
    assert found["composition gap"] == 0
    assert "paraphrase spread" not in found

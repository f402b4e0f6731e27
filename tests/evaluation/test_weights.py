"""Recall by requested attribute, attribute weights by question, and the effect of permuting them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.weights import asking_of, attribute_weights, recall_by_asked, with_permuted_weights
from dqecir.questions.composing import catalogue_benchmark
from tests.methods.steps import RandomStore


@pytest.fixture(scope="module")
def benchmark(garments):
    return catalogue_benchmark(garments, "train", seed=1, count=120)


@pytest.fixture
def store(benchmark):
    return RandomStore(len(benchmark.image_ids))


def test_what_questions_ask_of_is_told_by_attribute(benchmark):
    asked = asking_of(benchmark)
    assert set(asked) == {"colour", "shape", "pattern"}
    for number, triplet in enumerate(benchmark.triplets):
        assert asked["colour"][number] == bool({"color", "pattern_color"} & set(triplet.asked))


def test_recall_by_asked_is_that_of_the_questions_that_ask(benchmark, store, model):
    results = evaluate(model.method, store, model.text_encoder, benchmark)
    rows = np.zeros(len(benchmark.triplets), dtype=bool)
    rows[:7] = True
    found = recall_by_asked(results, {"colour": rows})
    assert found["asks of colour/R@10"] == pytest.approx(100 * float((results.ranks[:7] < 10).mean()))
    assert found["asks of colour/mAP@10"] == pytest.approx(100 * results.average_precision_10[:7].mean())


def test_weights_of_questions_follow_the_text(benchmark, store, model):
    model = model.with_method("dqe_values", {}).eval()
    weights = attribute_weights(model.method, store, model.text_encoder, benchmark)
    asked = asking_of(benchmark)
    for place, vocabulary in enumerate(model.vocabularies):
        rows = torch.from_numpy(asked[vocabulary.name])
        assert weights[rows, place].mean() > 0.8 > 0.2 > weights[~rows, place].mean()


class ToldApart(torch.nn.Module):
    """A replacement of a norm that enlarges the small differences of untrained text states."""

    first: Tensor | None = None

    def forward(self, states: Tensor) -> Tensor:
        if self.first is None:
            self.first = states[0].clone()
        return 3000 * (states - self.first)


@pytest.mark.parametrize("name", ["dqe", "dqe_heads", "dqe_values"])
def test_permuted_weights_are_those_of_other_questions(benchmark, store, model, name):
    torch.manual_seed(0)
    model = model.with_method(name, {}).eval()
    method = model.method
    if name != "dqe_values":
        method.gate_norm = ToldApart()
        torch.nn.init.normal_(method.gate.weight)
    texts = [method.text(triplet.captions) for triplet in benchmark.triplets[:6]]
    text, reference = model.text_encoder(texts), store.gather(torch.arange(6))
    order = torch.tensor([5, 4, 3, 2, 1, 0])
    with torch.no_grad():
        own = method.embed_query(reference, text)
        other = method.embed_query(reference, text, order)
        same = method.embed_query(reference, text, torch.arange(6))
    near = {"atol": 0.01, "rtol": 0.0}
    torch.testing.assert_close(other.attribute_weights, own.attribute_weights[order], **near)
    assert not torch.allclose(other.attribute_weights, own.attribute_weights, atol=0.1)
    torch.testing.assert_close(same.embeddings, own.embeddings, **near)
    assert not torch.allclose(other.embeddings, own.embeddings, **near)
    permuted = with_permuted_weights(method, store, model.text_encoder, benchmark, seed=3)
    again = with_permuted_weights(method, store, model.text_encoder, benchmark, seed=3)
    assert (permuted.ranks == again.ranks).all()
    plain = evaluate(method, store, model.text_encoder, benchmark)
    assert (permuted.ranks != plain.ranks).any()

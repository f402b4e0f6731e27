"""Models for MTEB on a small composed task: the ranking equals that of dqecir's evaluator."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from dqecir.data.images import load_image
from dqecir.encoders.store import TokenStore
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import evaluate, query_scores
from dqecir.evaluation.metrics import summarise
from dqecir.model.composed_encoder import ComposedEncoder
from dqecir.questions.composing import catalogue_benchmark

mteb = pytest.importorskip("mteb", reason="the extra mteb is not installed")
datasets = pytest.importorskip("datasets")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402

from dqecir.experiments.mteb_models import MtebEncoder, MtebSearch, mteb_model  # noqa: E402

METHODS = {
    "token_mean": ("dot", {}),
    "image_plus_text": ("max_t", {}),
    "covr2": ("mean_mean", {}),
    "covr2, max_max": ("max_max", {"score": "max_max"}),
    "dqe_values": ("likelihood", {}),
    "product": ("product", {}),
    "basic": ("harris", {}),
}


@pytest.fixture(scope="module")
def benchmark(garments):
    drawn = catalogue_benchmark(garments, "val", count=20)
    plain = tuple(replace(triplet, ignored=()) for triplet in drawn.triplets)
    return replace(drawn, triplets=plain, mask_reference=False)


def task_of(benchmark, **columns):
    class Miniature(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="GarmentsIT2IRetrieval",
            description="Drawn garments.",
            reference=None,
            dataset={"path": "none", "revision": "1"},
            type="Any2AnyRetrieval",
            category="it2i",
            modalities=["text", "image"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_):
            pictures = [Image.open(path).convert("RGB") for path in benchmark.image_paths]
            triplets = benchmark.triplets
            queries = {
                "id": [f"q{n}" for n in range(len(triplets))],
                "text": [" and ".join(triplet.captions) for triplet in triplets],
                "image": [pictures[triplet.reference] for triplet in triplets],
                **columns,
            }
            corpus = {"id": list(benchmark.image_ids), "image": pictures}
            relevant = {
                f"q{n}": {benchmark.image_ids[image]: 1 for image in triplet.relevant}
                for n, triplet in enumerate(triplets)
            }
            split = {
                "queries": datasets.Dataset.from_dict(queries),
                "corpus": datasets.Dataset.from_dict(corpus),
                "relevant_docs": relevant,
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Miniature()


@pytest.mark.parametrize("name", METHODS)
def test_mteb_ranks_as_our_evaluator(name, model, benchmark):
    rule, options = METHODS[name]
    own = model.with_method(name.split(",")[0], options).eval()
    assert own.method.score_rule == rule
    wrapped = mteb_model(own)
    task = task_of(benchmark)
    result = mteb.evaluate(wrapped, task, cache=None, show_progress_bar=False, co2_tracker=False)
    pixels = torch.stack([own.preprocessing(load_image(path)) for path in benchmark.image_paths])
    with torch.no_grad():
        store = TokenStore(own.backbone.image_tokens(pixels).numpy()[:, None])
    text = lambda question: own.method.text((" and ".join(question.captions),))  # noqa: E731
    results = evaluate(own.method, store, own.text_encoder, benchmark, text)
    measured = summarise(results)
    (scores,) = result.task_results[0].scores["test"]
    # The small model's products are often 0, and MTEB orders equal scores by id, not by position.
    if rule != "product":
        assert scores["main_score"] == pytest.approx(measured["nDCG@10"] / 100, abs=2e-5)
    if isinstance(wrapped, MtebSearch):
        task.load_data()
        found = wrapped.search(task.dataset["default"]["test"]["queries"], top_k=5)
        chunks = list(query_scores(own.method, store, own.text_encoder, benchmark, text))
        ((_, _, ours),) = chunks
        for n, row in enumerate(ours):
            expected = dict(zip(benchmark.image_ids, row.tolist(), strict=True))
            assert list(found[f"q{n}"].values()) == pytest.approx(sorted(row, reverse=True)[:5], abs=1e-5)
            for image, value in found[f"q{n}"].items():
                assert value == pytest.approx(expected[image], abs=1e-5)
    one_vector = rule in ("dot", "mean_mean")
    assert isinstance(wrapped, MtebEncoder if one_vector else MtebSearch)


def test_an_instruction_follows_its_text_and_given_candidates_are_kept_to(model, benchmark):
    wrapped = mteb_model(model.with_method("image_plus_text", {}).eval())
    count = len(benchmark.triplets)
    task = task_of(benchmark, instruction=["in red"] * count)
    task.load_data()
    split = task.dataset["default"]["test"]
    wrapped.index(split["corpus"])
    plain = wrapped.search(split["queries"].remove_columns("instruction"), top_k=3)
    told = wrapped.search(split["queries"], top_k=3)
    assert plain != told
    texts = [f"{text} in red" for text in split["queries"]["text"]]
    images = split["queries"]["image"]
    joined = wrapped.encoder.encode(
        [{"image": image, "text": text} for image, text in zip(images, texts, strict=True)]
    )
    best = wrapped.encoder.similarity(joined, wrapped.encoder.encode(split["corpus"]["image"])).amax(dim=1)
    assert [max(row.values()) for row in told.values()] == pytest.approx(best.tolist(), abs=1e-4)
    few = {f"q{n}": list(benchmark.image_ids[:2]) for n in range(count)}
    ranked = wrapped.search(split["queries"], top_k=3, top_ranked=few)
    assert all(set(row) == set(benchmark.image_ids[:2]) for row in ranked.values())


def test_what_cannot_be_encoded_is_named(model, garments):
    encoder = ComposedEncoder(model)
    path = garments.image_paths[0]
    queries = encoder.encode([{"image": path, "text": "is red"}, {"image": path, "text": ""}])
    candidates = encoder.encode([path, {"image": path}])
    assert encoder.similarity(queries, candidates).shape == (2, 2)
    for inputs, message in (
        ([{"image": path, "text": "is red"}, path], "encode queries and candidates apart"),
        ([{"picture": path}], "unknown key 'picture'"),
        ([{"text": "is red"}], "no image"),
        ([{"image": path, "text": 3}], "not a string"),
        ([], "a list of at least one input"),
        ("dress.jpg", "a list of at least one input"),
    ):
        with pytest.raises(DataError, match=message):
            encoder.encode(inputs)
    with pytest.raises(DataError, match="has the text 'is red'"):
        encoder.encode_document([{"image": path, "text": "is red"}])
    with pytest.raises(DataError, match="not both"):
        mteb_model(model, encoder="owner/name")

"""Steering: the weights that a user sets are applied, and likes and dislikes change similar items."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dqecir import ComposedRetriever
from dqecir.errors import DataError
from dqecir.methods.method import Query
from dqecir.methods.scoring import score
from dqecir.search.steering import HEAVIEST, Steering, attribute_weights, boost_requested, steered

WEIGHTED = ("dqe", "dqe_heads", "dqe_values", "dqe_values by dot")
TEXTS = ["is red", "has long sleeves", "is striped"]


@pytest.fixture(params=WEIGHTED)
def composed(request, model):
    """Return (model, three queries, image tokens of their references) of each method with attribute
    weights."""
    name, _, rule = request.param.partition(" by ")
    options = {"attributes": ["colour", "shape", "pattern"]} | ({"rule": rule} if rule else {})
    model = model.with_method(name, options).eval()
    tokens = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        if name == "dqe_values":
            model.method.emphasis.fill_(0.4)
        return model, model.method.embed_query(tokens, model.text_encoder(TEXTS)), tokens


def names(model):
    return [vocabulary.name for vocabulary in model.vocabularies]


def steer(model, query, *steerings) -> Query:
    return steered(query, steerings, names(model), model.method.score_rule)


def test_the_parts_of_a_query_make_the_query(composed):
    _, query, _ = composed
    torch.testing.assert_close(query.parts.embeddings(), query.embeddings)
    rest = query.embeddings - query.parts.added().sum(dim=1)
    base = query.parts.base  # of which as much is left as normalising leaves
    torch.testing.assert_close(
        rest * base.norm(dim=2, keepdim=True), base * rest.norm(dim=2, keepdim=True), atol=1e-5, rtol=1e-4
    )


def test_own_weights_change_nothing_and_others_do_in_one_batch(composed):
    model, query, _ = composed
    own = attribute_weights(query, names(model))
    found = steer(model, query, Steering(own[0]), Steering(), Steering({"colour": 2.5}))
    torch.testing.assert_close(found.embeddings[:2], query.embeddings[:2])
    assert not torch.allclose(found.embeddings[2], query.embeddings[2], atol=1e-3)
    used = attribute_weights(found, names(model))
    assert used[2] == pytest.approx(own[2] | {"colour": 2.5})
    assert used[:2] == [pytest.approx(row) for row in own[:2]]
    alone = steer(model, replace_rows(query, 2), Steering({"colour": 2.5}))
    torch.testing.assert_close(alone.embeddings[0], found.embeddings[2])


def replace_rows(query: Query, row: int) -> Query:
    parts = query.parts
    only = slice(row, row + 1)
    return Query(
        query.embeddings[only],
        parts=replace(parts, base=parts.base[only], pieces=parts.pieces[only], weights=parts.weights[only]),
    )


def test_what_a_text_asks_counts_more_and_what_stays_counts_as_before(composed):
    _, query, _ = composed
    found = boost_requested(query, 3.0)
    if query.parts.asked is None:  # the method does not say what a text asks
        assert found is query
        return
    # The rules are sure, so a column is asked for or is not.
    colour = query.parts.columns.index("color")
    masses, before = (q.parts.added().flatten(2).norm(dim=2) for q in (found, query))
    torch.testing.assert_close(masses[0, colour], 3 * before[0, colour], rtol=0.02, atol=0.0)
    torch.testing.assert_close(masses[1, colour], before[1, colour], rtol=0.02, atol=0.0)


@pytest.fixture
def of_one_vector(model):
    """Return (model, queries that ask for red and for long sleeves), by the rule ``dot``."""
    options = {"attributes": ["colour", "shape", "pattern"], "rule": "dot"}
    model = model.with_method("dqe_values", options).eval()
    tokens = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model, model.method.embed_query(tokens, model.text_encoder(["is red", "has long sleeves"]))


def test_a_kept_garment_is_firm_unless_another_part_of_its_shape_is_requested(of_one_vector):
    _, query = of_one_vector
    parts = query.parts
    kept = parts.columns.index("garment")
    firmness = boost_requested(query, garments=("garment",)).parts.slices.firmness
    colour, sleeves = parts.columns.index("color"), parts.columns.index("sleeves")
    assert firmness[0, kept] > 3 * firmness[0, colour] > 0
    assert firmness[0, kept] > 3 * firmness[1, kept] > 3 * firmness[1, sleeves]
    assert firmness[0, sleeves] < 0.1 * firmness[1, sleeves]


def test_likes_keep_a_garment_firm_and_no_strictness_leaves_the_query(of_one_vector):
    model, query = of_one_vector
    with torch.no_grad():
        firm = boost_requested(query, garments=("garment",))
        loose = boost_requested(query, garments=("garment",), strictness=[0.0, 0.0])
        liked = model.method.embed_target(torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(6)))
        moved = steer(model, firm, Steering(more=liked), Steering())
    torch.testing.assert_close(loose.embeddings, query.embeddings)
    kept = query.parts.columns.index("garment")
    lengths = [one.parts.pieces[0, kept].norm() for one in (query, firm, moved)]
    assert lengths[2] > 0.5 * lengths[1] > lengths[0]


def test_at_weight_zero_an_attribute_has_no_say(composed):
    model, query, _ = composed
    nothing = Steering(dict.fromkeys(names(model), 0.0))
    found = steer(model, query, *[nothing] * 3).embeddings
    base = query.parts.base
    base = torch.nn.functional.normalize(base, dim=2) if query.parts.normalised else base
    torch.testing.assert_close(found, base)


def test_what_counts_more_changes_scores_as_the_method_says(model, garments):
    model = model.with_method("dqe_values", {}).eval()
    tokens = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        query = model.method.embed_query(tokens[:1], model.text_encoder(["is red"]))
        targets = model.method.embed_target(tokens)
        own = attribute_weights(query, names(model))[0]["colour"]
        heavier = steer(model, query, Steering({"colour": 2 * own}))
        before, after, colour = (
            score(embeddings, targets, "likelihood")
            for embeddings in (query.embeddings, heavier.embeddings, query.attribute_embeddings[:, 0])
        )
    torch.testing.assert_close(after, before + colour)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"color": 1.0}, "no attribute 'color' to weigh; did you mean 'colour'"),
        ({"colour": HEAVIEST + 0.1}, "weight of colour must be between 0 and 3"),
        ({"colour": -0.1}, "between 0 and 3"),
        ({"colour": float("nan")}, "between 0 and 3, not nan"),
    ],
)
def test_weights_that_cannot_be_set_are_refused(composed, weights, message):
    model, query, _ = composed
    with pytest.raises(DataError, match=message):
        steer(model, query, Steering(), Steering(weights), Steering())


def test_a_method_without_attributes_has_no_weights_to_set(model):
    query = Query(torch.ones(1, 1, 4))
    assert attribute_weights(query, ["colour"]) == [{}]
    with pytest.raises(DataError, match="no attribute weights"):
        steered(query, [Steering({"colour": 1.0})], ["colour"], "dot")


RULES = [("dot", 1, 1), ("max_t", 1, 3), ("mean_mean", 2, 3), ("max_max", 2, 3), ("likelihood", 3, 5)]


def world(vectors: int, tokens: int, rule: str):
    """Return (a query, items): random directions, and for likelihood random distributions."""
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, vectors, 32, generator=generator)
    items = torch.nn.functional.normalize(torch.randn(200, tokens, 32, generator=generator), dim=2)
    if rule == "likelihood":
        query[:, 1:] = 0.1 * query[:, 1:].mul(2).softmax(dim=2)
        items[:, -2:] = torch.randn(200, 2, 32, generator=generator).mul(2).softmax(dim=2)
        query[:, 0] = 0.3 * torch.nn.functional.normalize(query[:, 0], dim=1)
    return query, items


@pytest.mark.parametrize(("rule", "vectors", "tokens"), RULES)
@pytest.mark.parametrize("wish", ["more", "less"])
def test_look_alikes_rise_and_fall(rule, vectors, tokens, wish):
    query, items = world(vectors, tokens, rule)
    generator = torch.Generator().manual_seed(3)
    judged = items[:100]
    noise = 0.2 * torch.rand(judged.shape, generator=generator) * judged.abs().amax(dim=2, keepdim=True)
    alike = judged + noise
    if rule == "likelihood":
        alike[:, -2:] /= alike[:, -2:].sum(dim=2, keepdim=True)
    rises = 0
    for item, twin in zip(judged, alike, strict=True):
        gallery = torch.cat([twin[None], items[100:]])
        moved = steered(Query(query), [Steering(**{wish: item[None]})], [], rule).embeddings
        before, after = (
            int((score(q, gallery, rule)[0] > score(q, twin[None], rule)[0, 0]).sum()) for q in (query, moved)
        )
        rises += (after < before) - (after > before)
    assert rises >= 80 if wish == "more" else rises <= -80


@pytest.mark.parametrize(("rule", "vectors", "tokens"), RULES)
def test_many_judgements_move_no_further_than_one(rule, vectors, tokens):
    query, items = world(vectors, tokens, rule)

    def moved(count):
        wishes = Steering(more=items[:1].expand(count, -1, -1), less=items[1:2].expand(count, -1, -1))
        return steered(Query(query), [wishes], [], rule).embeddings

    torch.testing.assert_close(moved(1), moved(20))
    none = Steering(more=items[:0], less=None)
    torch.testing.assert_close(steered(Query(query), [none], [], rule).embeddings, query)


def test_a_dislike_leaves_what_a_text_asks_for():
    asked = torch.zeros(1, 2, 4)
    asked[0, 0, 0] = 0.3
    asked[0, 1, 2] = 0.1  # only the third value is wanted
    disliked = torch.zeros(1, 2, 4)
    disliked[0, 0, 1] = disliked[0, 1, 2] = 1.0
    found = steered(Query(asked), [Steering(less=disliked)], [], "likelihood").embeddings
    torch.testing.assert_close(found[0, 1], asked[0, 1])


def test_one_vector_moves_as_distributions_do(model):
    liked, disliked = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(6))
    found = {}
    for rule in ("likelihood", "dot"):
        torch.manual_seed(1)
        steered_model = model.with_method("dqe_values", {"rule": rule}).eval()
        method = steered_model.method
        with torch.no_grad():
            tokens = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(5))
            query = method.embed_query(tokens, steered_model.text_encoder(["is red", "has long sleeves"]))
            wishes = Steering(more=method.embed_target(liked), less=method.embed_target(disliked))
            found[rule] = query, steer(steered_model, query, Steering(), wishes)
    _, after = found["likelihood"]
    masses = after.embeddings[1:, 1:].sum(dim=2, keepdim=True)
    shares = after.embeddings[1:, 1:] / masses
    own, moved = found["dot"]
    sizes = [values.shape[1] for values in own.parts.wanted]
    wanted = [shares[:, place, :size] for place, size in enumerate(sizes)]
    expected = own.parts.slices.pieces(wanted)
    torch.testing.assert_close(moved.parts.pieces[1:], expected, atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(moved.embeddings[0], own.embeddings[0])
    torch.testing.assert_close(moved.parts.embeddings(), moved.embeddings)
    assert not torch.allclose(moved.embeddings[1], own.embeddings[1], atol=1e-2)


def test_one_vector_rises_when_liked_and_falls_when_disliked(model):
    model = model.with_method("dqe_values", {"rule": "dot"}).eval()
    tokens = 3 * torch.randn(40, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        query = model.method.embed_query(tokens[:1], model.text_encoder(["is red"]))
        items = model.method.embed_target(tokens)
    rises = {}
    for wish in ("more", "less"):
        rises[wish] = 0
        for item in range(1, 40):
            moved = steer(model, query, Steering(**{wish: items[item : item + 1]}))
            before, after = (score(q.embeddings, items, "dot")[0] for q in (query, moved))
            places = [int((found > found[item]).sum()) for found in (before, after)]
            rises[wish] += (places[1] < places[0]) - (places[1] > places[0])
    assert rises["more"] > 25 and rises["less"] < -25


def test_tokens_of_another_model_are_refused():
    with pytest.raises(DataError, match="both must come from the same model"):
        steered(Query(torch.ones(1, 1, 4)), [Steering(more=torch.ones(1, 1, 5))], [], "dot")


def test_the_page_about_steering_does_what_it_shows(model, garments_folder, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "steering.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    retriever = ComposedRetriever(model.with_method("dqe_values", {}))
    pictures = sorted((garments_folder / "images").iterdir())[:8]
    retriever.build_index(pictures, tmp_path / "INDEX", quiet=True)
    shutil.copy(pictures[0], tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ComposedRetriever, "from_pretrained", classmethod(lambda cls: retriever))
    said = {}
    exec(example, said)
    assert said["disliked"] not in [hit.id for hit in said["again"].hits]

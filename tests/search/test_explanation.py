"""Explanations: contributions add up to a result's score, and requests are those of the text."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from dqecir.methods.method import Query, QueryParts
from dqecir.methods.scoring import score
from dqecir.model.composed_model import ComposedModel
from dqecir.search.explanation import (
    OVERALL,
    HeatMap,
    attribute_scores,
    contributions,
    heat_maps,
    readings,
)
from dqecir.search.response import RequestedValue, TextReading
from dqecir.search.steering import Steering, steered
from dqecir.synthetic.garment_drawing import render_garment
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES, random_vector
from tests.conftest import MODEL_OF_0_1_0

METHODS = ["dqe", "dqe_heads", "dqe_values", "dqe_values by dot"]
NAMES = ["colour", "shape", "pattern"]


def with_method(model, name: str):
    """Return the model with a method, "NAME" or "NAME by RULE"."""
    method, _, rule = name.partition(" by ")
    return model.with_method(method, {"attributes": NAMES} | ({"rule": rule} if rule else {})).eval()


@pytest.fixture
def asked(request, model):
    """Return (model, queries of two texts, tokens of eight items)."""
    model = with_method(model, request.param)
    tokens = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        query = model.method.embed_query(
            tokens[:2], model.text_encoder(["is red and has long sleeves", "is not blue"])
        )
        return model, query, model.method.embed_target(tokens)


@pytest.mark.parametrize("asked", METHODS, indirect=True)
@pytest.mark.parametrize("moved", [False, True])
def test_contributions_add_up_to_the_score(asked, moved):
    model, query, targets = asked
    rule = model.method.score_rule
    if moved:
        wishes = Steering({"colour": 2.0}, more=targets[:2], less=targets[2:3])
        query = steered(query, [wishes, wishes], NAMES, rule)
    parts = contributions(query, targets[None], rule)
    assert parts.shape == (2, 8, 1 + query.parts.pieces.shape[1])
    scores = score(query.embeddings, targets, rule)
    torch.testing.assert_close(parts.sum(dim=2), scores, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("asked", METHODS, indirect=True)
def test_an_attribute_of_no_weight_says_nothing(asked):
    model, query, targets = asked
    rule = model.method.score_rule
    silent = steered(query, [Steering({"colour": 0.0})] * 2, NAMES, rule)
    parts = contributions(silent, targets[None], rule)
    of_colour = [1 + piece for piece, owner in enumerate(query.parts.owners) if owner == 0]
    assert (parts[:, :, of_colour] == 0).all()
    assert (contributions(query, targets[None], rule)[:, :, of_colour] != 0).any()


@pytest.mark.parametrize("asked", METHODS, indirect=True)
def test_shares_are_of_one_the_most_first(asked):
    model, query, targets = asked
    rows = attribute_scores(query, [targets[:3], targets[3:4]], targets, NAMES, model.method.score_rule)
    assert [len(row) for row in rows] == [3, 1]
    known = {OVERALL, *(query.parts.columns or NAMES)}
    said = [spoke for row in rows for spoke in row if spoke]  # an item may be nowhere above the mean
    assert said
    for spoke in said:
        shares = [part.share for part in spoke]
        assert 0.8 < sum(shares) < 1 + 1e-6 and shares == sorted(shares, reverse=True)
        assert {part.attribute for part in spoke} <= known


def test_the_column_that_sets_a_result_apart_speaks_for_it():
    wanted = torch.zeros(1, 3, 4)
    wanted[0, 0, 0] = 0.3
    wanted[0, 1, 1] = wanted[0, 2, 1] = 0.1  # two columns, each with its second value wanted
    items = torch.full((4, 4, 4), 0.25)
    items[:, :2] = torch.nn.functional.normalize(torch.ones(4), dim=0)
    items[0, 3] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # the first item shows what is wanted of the second
    pieces = torch.zeros(1, 2, 3, 4)
    pieces[0, 0, 1], pieces[0, 1, 2] = wanted[0, 1], wanted[0, 2]
    base = wanted.clone()
    base[:, 1:] = 0
    parts = QueryParts(base, pieces, torch.ones(1, 2), (0, 1), ("color", "sleeves"))
    (spoke,) = attribute_scores(
        Query(wanted, parts=parts), [items[:1]], items, ["colour", "shape"], "likelihood"
    )
    assert [part.attribute for part in spoke[0]] == ["sleeves"]


def test_methods_without_attributes_explain_nothing():
    query = Query(torch.ones(1, 1, 4))
    assert attribute_scores(query, [torch.ones(2, 1, 4)], torch.ones(1, 1, 4), [], "dot") == [[(), ()]]
    assert readings(query, {}) == [TextReading()]


@pytest.mark.parametrize("asked", ["dqe_values", "dqe_values by dot"], indirect=True)
def test_what_was_read_is_said(asked):
    model, query, _ = asked
    values = model.heads.config.columns
    first, second = (read.requested for read in readings(query, values))
    assert set(first) == {RequestedValue("color", "red"), RequestedValue("sleeves", "long")}
    assert second == (RequestedValue("color", "not blue"),)


def drawn(number: int, color: str) -> Image.Image:
    """Return a garment that is always the same except for its colour."""
    rng = np.random.default_rng(number)
    kinds = GARMENT_ATTRIBUTES["garment"]
    vector = random_vector(kinds[number % len(kinds)], rng) | {"color": color}
    if vector["pattern"] != "plain":
        vector["pattern_color"] = "grey"
    return render_garment(vector, np.random.default_rng(number), 128)


@pytest.fixture(scope="module")
def looked() -> list[tuple[Image.Image, np.ndarray, tuple[HeatMap, HeatMap]]]:
    """Return (reference, its cells' share of garment [6, 6], maps) of "is red" by the model of 0.1.0, 24
    times.
    """
    shipped = ComposedModel.from_pretrained(MODEL_OF_0_1_0).eval()
    found = []
    for number in range(24):
        blue, red = drawn(number, "blue"), drawn(number, "red")
        differs = np.abs(np.asarray(blue, float) - np.asarray(red, float)).max(axis=2) > 25
        cover = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(differs)[None].float(), 6)[0].numpy()
        found.append((blue, cover, heat_maps(shipped, blue, "is red", red)))
    return found


@pytest.mark.parametrize("which", [0, 1], ids=["reference", "result"])
def test_the_query_looks_at_the_garment_and_not_at_the_background(looked, which):
    right = 0
    for _, cover, maps in looked:
        heat = np.array(maps[which].values)
        assert heat.shape == (6, 6) and heat.max() == pytest.approx(1) and heat.min() >= 0
        right += (heat * cover).sum() / cover.sum() > (heat * (1 - cover)).sum() / (1 - cover).sum()
    assert right >= 0.9 * len(looked)


def test_blurring_where_it_looked_costs_more_than_elsewhere(looked):
    shipped = ComposedModel.from_pretrained(MODEL_OF_0_1_0).eval()
    costs = []
    for number, (blue, _, (heat, _)) in enumerate(looked):
        places = np.argsort(np.array(heat.values), axis=None)
        pictures = [blue, blurred(blue, places[-6:]), blurred(blue, places[:6])]
        with torch.no_grad():
            tokens = shipped.backbone.image_tokens(torch.stack([shipped.preprocessing(p) for p in pictures]))
            queries = shipped.method.embed_query(tokens, shipped.text_encoder(["is red"] * 3)).embeddings
            red = shipped.preprocessing(drawn(number, "red"))[None]
            target = shipped.method.embed_target(shipped.backbone.image_tokens(red))
            own, hot, cold = score(queries, target, "likelihood")[:, 0].tolist()
        costs.append(abs(own - hot) > abs(own - cold))
    assert sum(costs) >= 0.9 * len(costs)


def blurred(picture: Image.Image, places: np.ndarray) -> Image.Image:
    """Return a picture with some of its 6 x 6 cells out of focus."""
    soft, result = picture.filter(ImageFilter.GaussianBlur(picture.width / 8)), picture.copy()
    for place in places:
        row, column = divmod(int(place), 6)
        box = [round(edge * picture.width / 6) for edge in (column, row, column + 1, row + 1)]
        result.paste(soft.crop(box), box[:2])
    return result


@pytest.mark.parametrize("name", ["dqe", "dqe_values", "predicted_attributes", "text_only"])
def test_a_map_lies_over_the_picture_as_it_is(model, name):
    model = model.with_method(name, {}).eval()
    tall, wide = Image.new("RGB", (40, 80), "red"), Image.effect_noise((80, 40), 60).convert("RGB")
    with torch.no_grad():  # as a service asks
        reference, target = heat_maps(model, tall, "is red", wide)
    assert (reference.rows, reference.columns) == (4, 2)
    assert (target.rows, target.columns) == (2, 4)
    hottest = [max(map(max, found.values)) for found in (reference, target)]
    assert hottest == pytest.approx([0 if name == "text_only" else 1, 1])


def test_where_no_gradient_goes_covering_says_nearly_the_same(looked):
    shipped = ComposedModel.from_pretrained(MODEL_OF_0_1_0).eval()
    agreements = []
    for number, (blue, _, maps) in list(enumerate(looked))[:6]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch.autograd, "grad", lambda *_, **__: (None, None))
            covered = heat_maps(shipped, blue, "is red", drawn(number, "red"))
        for one, other in zip(maps, covered, strict=True):
            places = [np.argsort(np.argsort(np.array(found.values), axis=None)) for found in (one, other)]
            agreements.append(np.corrcoef(*places)[0, 1])
    assert np.mean(agreements) > 0.5


def test_maps_follow_the_steering(looked):
    shipped = ComposedModel.from_pretrained(MODEL_OF_0_1_0).eval()
    blue, _, maps = looked[0]
    nothing = Steering({"shape": 0.0, "pattern": 0.0})
    assert heat_maps(shipped, blue, "is red", drawn(0, "red"), nothing) != maps

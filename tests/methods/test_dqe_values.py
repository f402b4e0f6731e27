"""DQE with attribute values: requested values, kept values, the text's reader, and supervision."""

import json
from dataclasses import replace

import pytest
import torch

from dqecir.errors import DataError
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.methods.scoring import score
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import RandomStore, a_batch, trained_names

NAME = "dqe_values"
UNREAD = "wibble the frobnitz"


@pytest.fixture
def ready(model, garments):
    """Return (model, batch) of the method over the tiny backbone, in evaluation mode."""
    model = model.with_method(NAME, {}).eval()
    return model, a_batch(model, garments)


def texts_like(model, batch, text):
    return model.text_encoder([text] * len(batch.reference))


def test_a_text_that_the_rules_read_is_asked_for_and_everything_else_kept(ready):
    model, batch = ready
    method = model.method
    with torch.no_grad():
        composed = method.compose(batch.reference, texts_like(model, batch, "is red and has long sleeves"))
        known = method.shown_values(batch.reference)
    for place, column in enumerate(method.columns):
        values = model.heads.config.columns[column]
        if column in ("color", "sleeves"):
            wanted = {"color": "red", "sleeves": "long"}[column]
            assert (composed.wanted[place][:, values.index(wanted)] > 0.999).all(), column
        else:
            torch.testing.assert_close(composed.wanted[place], known[place], atol=1e-3, rtol=0, msg=column)


def test_a_denial_asks_evenly_for_all_other_values(ready):
    model, batch = ready
    method = model.method
    place = method.columns.index("color")
    values = model.heads.config.columns["color"]
    with torch.no_grad():
        wanted = method.compose(batch.reference, texts_like(model, batch, "is not red")).wanted[place]
    assert (wanted[:, values.index("red")] < 1e-3).all()
    others = [value for value in range(len(values)) if value != values.index("red") and values[value]]
    torch.testing.assert_close(
        wanted[:, others], wanted[:, others[:1]].expand(-1, len(others)), atol=1e-3, rtol=0
    )


def test_the_reader_reads_what_the_rules_leave_and_nothing_else(ready):
    model, batch = ready
    method = model.method
    read, unread = method.read_clauses(f"is red, {UNREAD}")
    assert len(read) == 1 and unread == [UNREAD]
    with torch.no_grad():
        method.asks_bias.fill_(50.0)  # a reader that takes everything to be asked
        partly = method.compose(batch.reference, texts_like(model, batch, f"is red, {UNREAD}"))
        wholly = method.compose(batch.reference, texts_like(model, batch, "is red"))
    place = method.columns.index("color")
    others = [other for other in range(len(method.columns)) if other != place]
    assert (partly.asks > 5).all()
    assert (wholly.asks[:, place] > 5).all() and (wholly.asks[:, others] < -5).all()
    red = model.heads.config.columns["color"].index("red")
    assert (partly.wanted[place][:, red] > 0.999).all()


def test_without_hints_the_whole_text_is_the_readers(model, garments):
    model = model.with_method(NAME, {"hints": False}).eval()
    batch = a_batch(model, garments)
    with torch.no_grad():
        asks = model.method.compose(batch.reference, texts_like(model, batch, "is red")).asks
    assert (asks.abs() < 5).all()


def test_training_leaves_the_reader_clauses_that_the_rules_could_read(ready):
    model, _ = ready
    method = model.method.train()
    torch.manual_seed(0)
    left = sum(len(method.read_clauses("is red, has long sleeves")[1]) for _ in range(200))
    assert 150 < left < 250  # half of 400


def test_some_words_are_hidden_while_training_but_never_the_marks_around_them(ready):
    model, batch = ready
    method = model.method
    assert torch.equal(method.hide_pieces(batch.text), batch.text.ids)
    method.train()
    torch.manual_seed(0)
    hidden = method.hide_pieces(batch.text)
    special = torch.isin(batch.text.ids, method.special_pieces)
    assert torch.equal(hidden[special], batch.text.ids[special])
    share = (hidden[~special] != batch.text.ids[~special]).float().mean()
    assert 0.15 < share < 0.45


def test_the_score_is_the_base_score_and_log_probabilities_of_what_is_wanted(ready):
    model, batch = ready
    method = model.method
    with torch.no_grad():
        composed = method.compose(batch.reference, batch.text)
        query, target = composed.query.embeddings, method.embed_target(batch.candidates)
        shown = method.shown_values(batch.candidates)
        count = len(method.columns)
        expected = score(query[:, :1], target[:, :-count], "max_t")
        weights = composed.asks.sigmoid()
        for place in range(count):
            mass = method.options.head_scale * (method.options.emphasis * weights[:, place]).exp()
            share = composed.wanted[place] @ shown[place].T
            expected += mass[:, None] * (share + 0.003).log()
        found = score(query, target, method.score_rule)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert target.shape[1:] == method.target_shape


def test_every_column_is_a_distribution(ready):
    model, batch = ready
    for text in (batch.text, texts_like(model, batch, f"is red, {UNREAD}")):
        with torch.no_grad():
            for values in model.method.compose(batch.reference, text).wanted:
                torch.testing.assert_close(values.sum(dim=1), torch.ones(len(values)))
                assert (values >= 0).all()


def test_the_weight_of_an_attribute_follows_the_text(ready):
    model, batch = ready
    names = [vocabulary.name for vocabulary in model.vocabularies]
    with torch.no_grad():
        for text, asked in (("is red", "colour"), ("has long sleeves", "shape"), ("is striped", "pattern")):
            query = model.method.embed_query(batch.reference, texts_like(model, batch, text))
            for place, name in enumerate(names):
                weights = query.attribute_weights[:, place]
                assert (weights > 0.99).all() if name == asked else (weights < 0.01).all(), (text, name)


def test_weights_of_another_text_change_what_is_asked(ready):
    model, batch = ready
    method = model.method
    text = model.text_encoder(["is red", "has long sleeves"])
    order = torch.tensor([1, 0])
    with torch.no_grad():
        own = method.compose(batch.reference[:2], text)
        swapped = method.compose(batch.reference[:2], text, order)
    torch.testing.assert_close(swapped.asks, own.asks[order])
    place = method.columns.index("color")
    assert not torch.allclose(own.wanted[place][0], swapped.wanted[place][0])


def test_the_queries_of_single_attributes_add_up_to_the_attributes_of_the_query(ready):
    model, batch = ready
    with torch.no_grad():
        query = model.method.embed_query(batch.reference, batch.text)
    assert query.attribute_embeddings.shape[2:] == query.embeddings.shape[1:]
    torch.testing.assert_close(query.attribute_embeddings.sum(dim=1)[:, 1:], query.embeddings[:, 1:])
    assert (query.attribute_embeddings[:, :, 0] == 0).all()


def test_a_step_trains_the_reader_but_not_the_heads(model, garments, tmp_path):
    model = model.with_method(NAME, {})
    batch = a_batch(model, garments)
    assert batch.asked is not None and set(batch.asked.unique().tolist()) == {0, 1}
    torch.manual_seed(0)
    terms = model.method.train().loss(batch)
    assert set(terms) == {"contrast", "values", "mentions"}
    torch.stack(list(terms.values())).sum().backward()
    trained = set(trained_names(model.method))
    assert {"asks_bias", "column_scale", "emphasis", "base_scale", "values.0.weight"} <= trained
    assert not any(key.startswith(("heads.", "backbone.tower")) for key in trained)
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text)
        found = again.method.embed_query(batch.reference, batch.text)
    assert torch.equal(found.embeddings, expected.embeddings)
    assert torch.equal(found.attribute_weights, expected.attribute_weights)


@pytest.mark.parametrize("weights", ["scalar", "fixed"])
def test_weights_that_no_text_decides_are_alike_for_all_texts(model, garments, weights):
    model = model.with_method(NAME, {"weights": weights}).eval()
    batch = a_batch(model, garments)
    with torch.no_grad():
        found = model.method.embed_query(batch.reference, batch.text).attribute_weights
    torch.testing.assert_close(found, found[:1].expand_as(found))
    assert set(model.method.train().loss(batch)) == {"contrast", "values"}


def test_what_nobody_knows_supervises_nothing(model, garments):
    model = model.with_method(NAME, {})
    batch = a_batch(model, garments)
    blind = replace(
        batch,
        asked=torch.full_like(batch.asked, -1),
        attribute_values=torch.full_like(batch.attribute_values, -1),
    )
    assert set(model.method.loss(blind)) == {"contrast"}


def test_the_reader_learns_what_a_text_asks_of(model, garments):
    # The tiny model's heads see nothing, so that likelihood alone would ask of everything.
    options = {"value_weight": 0, "contrast_weight": 1e-3, "hints": False, "words_hidden": 0}
    model = model.with_method(NAME, options)
    batch = a_batch(model, garments, size=24)
    method = model.method.train()
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(80):
        terms = method.loss(batch)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        asks = method.eval().compose(batch.reference, batch.text).asks > 0
    assert (asks == batch.asked[:, list(method.head_places)].bool()).float().mean() > 0.95


@pytest.fixture
def one_vector(model, garments):
    """Return (model, batch) as ``ready``, with the rule dot."""
    model = model.with_method(NAME, {"rule": "dot"}).eval()
    return model, a_batch(model, garments)


def test_by_dot_a_target_is_one_vector_and_the_score_near_the_likelihood(one_vector):
    model, batch = one_vector
    method = model.method
    with torch.no_grad():
        composed = method.compose(batch.reference, batch.text)
        target = method.embed_target(batch.candidates)
        assert (1, target.shape[2]) == method.target_shape == tuple(target.shape[1:])
        assert composed.query.embeddings.shape[1:] == method.target_shape
        found = score(composed.query.embeddings, target, "dot")
        width = model.backbone.config.embedding_size
        expected = composed.query.embeddings[:, 0, :width] @ target[:, 0, :width].T
        weights = composed.asks.sigmoid()
        for place, shown in enumerate(method.shown_values(batch.candidates)):
            mass = method.options.head_scale * (method.options.emphasis * weights[:, place]).exp()
            expected += mass[:, None] * (composed.wanted[place] @ shown.T + 0.003).log()
    apart = (found - expected) - (found - expected).mean(dim=1, keepdim=True)
    assert apart.abs().max() < 0.1 * expected.std(dim=1).mean()


def test_by_dot_a_step_trains_what_the_likelihood_does_and_the_model_is_kept(one_vector, tmp_path):
    model, batch = one_vector
    torch.stack(list(model.method.train().loss(batch).values())).sum().backward()
    trained = set(trained_names(model.method))
    assert {"asks_bias", "column_scale", "emphasis", "base_scale", "values.0.weight"} <= trained
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    assert again.method.score_rule == "dot"
    assert again.target_fingerprint == model.target_fingerprint
    with torch.no_grad():
        expected, found = (one.method.embed_query(batch.reference, batch.text) for one in (model, again))
        assert torch.equal(found.embeddings, expected.embeddings)


def test_a_folder_that_names_no_rule_has_the_likelihood(ready, tmp_path):
    model, _ = ready
    folder = model.save_pretrained(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["options"]["rule"]
    (folder / "config.json").write_text(json.dumps(config))
    again = ComposedModel.from_pretrained(folder)
    assert again.method.score_rule == "likelihood"
    assert again.fingerprint == model.fingerprint


def wide_model(model):
    """Return the tiny model with a column of more values than an embedding has numbers."""
    columns = {"color": tuple(f"shade {number}" for number in range(300)), "sleeves": ("", "long", "short")}
    heads = AttributeHeads(HeadsConfig(token_width=16, columns=columns)).eval()
    return replace(model, heads=heads)


def test_a_column_wider_than_an_embedding_fits_into_one_vector_alone(model):
    wide = wide_model(model)
    with pytest.raises(DataError, match=r"300 values, more than the 24 numbers.*set rule to dot"):
        wide.with_method(NAME, {})
    method = wide.with_method(NAME, {"rule": "dot"}).method
    assert method.target_shape == (1, 512)


def test_directions_of_wide_columns_come_from_pictures_and_name_the_index(model):
    wide = wide_model(model).with_method(NAME, {"rule": "dot"}).eval()
    before, tokens = wide.target_fingerprint, RandomStore(40).tokens
    embedded = wide.method.embed_target(tokens[:4])
    wide.method.fit_targets(tokens.split(16))
    wide.forget_fingerprints()
    assert wide.target_fingerprint != before
    assert not torch.equal(wide.method.embed_target(tokens[:4]), embedded)


def test_columns_can_be_named_and_unknown_ones_are_refused(model, garments):
    model = model.with_method(NAME, {"columns": ["color", "sleeves"]}).eval()
    assert set(model.method.columns) == {"color", "sleeves"}
    with pytest.raises(DataError, match="no attribute head for 'colur'"):
        model.with_method(NAME, {"columns": ["colur"]})


def test_a_model_without_heads_is_refused(model):
    with pytest.raises(DataError, match="attribute heads"):
        replace(model, heads=None).with_method(NAME, {})


def test_texts_without_their_words_are_refused(ready):
    model, batch = ready
    with pytest.raises(DataError, match="has token ids but not the texts"):
        model.method.embed_query(batch.reference, replace(batch.text, texts=()))

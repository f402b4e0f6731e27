"""BASIC on synthetic features: ranks of its public code, and what it learns from a gallery."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dqecir.encoders.encoder import TextBatch
from dqecir.errors import DataError
from dqecir.methods import basic
from dqecir.methods.basic import Basic, BasicOptions, corpus, projection
from dqecir.methods.scoring import score
from tests.golden.write_basic import COMPONENTS, WIDTH

GOLDEN = Path(__file__).parent.parent / "golden"


class Given(torch.nn.Module):
    """An encoder whose images and texts are already features."""

    sizes = SimpleNamespace(embedding=WIDTH)
    device = torch.device("cpu")

    def freeze_tower(self):
        pass

    def image_state(self, prefix):
        return {}

    def target_embeddings(self, tokens):
        return tokens

    def pooled_text(self, text):
        return text.ids


def texts(features, words=None):
    written = tuple(words or ["is red"] * len(features))
    return TextBatch(features, torch.ones(len(features), 1), torch.zeros(len(features), 0, 1), written)


@pytest.fixture
def golden():
    return load_file(GOLDEN / "19_basic.safetensors")


@pytest.fixture
def learned(golden, monkeypatch):
    corpora = {"subjects": [f"subject {n}" for n in range(40)], "styles": [f"style {n}" for n in range(30)]}
    features = {text: golden[name][row] for name, own in corpora.items() for row, text in enumerate(own)}
    monkeypatch.setattr(basic, "corpus", corpora.__getitem__)
    method = Basic(
        Given(),
        BasicOptions(components=COMPONENTS),
        lambda some: texts(torch.stack([features[text] for text in some])),
    )
    method.fit_targets(part[:, None] for part in golden["gallery"].split(17))
    return method


def test_the_ranks_are_those_of_the_public_code(learned, golden):
    query = learned.embed_query(golden["images"][:, None], texts(golden["texts"])).embeddings
    scores = score(query, learned.embed_target(golden["gallery"][:, None]), learned.score_rule)
    in_their_order = scores.gather(1, golden["ranks"])
    assert (in_their_order.diff(dim=1) < 1e-6).all()
    assert (in_their_order[:, :10].diff(dim=1) < -1e-6).all(), "the first ten are told apart"


def test_a_blank_text_asks_for_the_image_twice(learned, golden):
    query = learned.embed_query(golden["images"][:2, None], texts(golden["texts"][:2], ["", "is red"]))
    first, second = query.embeddings
    assert torch.equal(first[0], first[1])
    assert not torch.equal(second[0], second[1])


def test_nothing_is_embedded_before_a_gallery_is_seen(golden):
    method = Basic(Given(), BasicOptions(), None)
    method.fit_targets([])
    for embed in (
        lambda: method.embed_target(golden["gallery"][:, None]),
        lambda: method.embed_query(golden["images"][:, None], texts(golden["texts"])),
    ):
        with pytest.raises(DataError, match="build an index with it"):
            embed()


def test_styles_are_projected_away_by_hand():
    # Subjects vary along the first number, styles along the second, neither along the third.
    subjects = torch.tensor([[1.0, 0.1, 0], [-1, -0.1, 0], [1, -0.1, 0], [-1, 0.1, 0]])
    styles = torch.tensor([[0.0, 1, 0], [0, -1, 0]])
    kept = projection(subjects, styles, BasicOptions(components=2))
    assert torch.allclose(kept[:2, :2], torch.tensor([[1.0, 0], [0, 0]]), atol=1e-3)
    assert float(kept[1, 1]) < 1e-3


def test_the_corpora_hold_different_texts():
    for name, least in (("subjects", 400), ("styles", 100)):
        assert len(set(corpus(name))) == len(corpus(name)) >= least
        assert all(text.strip() == text and text for text in corpus(name))
    assert not set(corpus("subjects")) & set(corpus("styles"))

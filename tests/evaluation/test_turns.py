"""Questions of several turns: their query is the mean of the queries of their turns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dqecir.data.triplets import Turn
from dqecir.evaluation.evaluate import embed_images, query_scores
from dqecir.methods.scoring import score
from dqecir.model import compose
from dqecir.model.image_store import store_of
from dqecir.questions.asking import folder_questions


@pytest.fixture
def asked(garments_folder):
    plain = folder_questions(garments_folder, "val", count=7)
    dialogues = [
        replace(one, earlier=tuple(Turn(place + n, ("is red",)) for n in range(place % 3)))
        for place, one in enumerate(plain.triplets)
    ]
    return plain, replace(plain, triplets=tuple(dialogues))


@pytest.mark.parametrize("name", ["sprc", "dqe_values"])
def test_scores_are_those_of_the_mean_query(name, model, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(compose, "CHUNK", 3)  # Turns of one question must stay together.
    plain, dialogues = asked
    made = model.with_method(name, {}).eval()
    method, store = made.method, store_of(made, plain, tmp_path / "tokens", quiet=True)
    [(_, numbers, found)] = query_scores(method, store, made.text_encoder, dialogues)
    targets = embed_images(method, store)[torch.from_numpy(plain.galleries[plain.triplets[0].category])]
    for number, row in zip(numbers, found, strict=True):
        one = dialogues.triplets[number]
        turns = [*one.earlier, one]
        with torch.no_grad():
            texts = made.text_encoder([method.text(turn.captions) for turn in turns])
            tokens = store.gather(torch.tensor([turn.reference for turn in turns]))
            query = compose.mixed(compose.compose(method, tokens, texts), [[1.0] * len(turns)])
        expected = score(query.embeddings, targets, method.score_rule).numpy()
        np.testing.assert_allclose(row, expected[0], rtol=1e-3, atol=1e-4)


def test_a_question_of_one_turn_is_scored_as_before(model, asked, tmp_path):
    plain, dialogues = asked
    made = model.with_method("sprc", {}).eval()
    store = store_of(made, plain, tmp_path / "tokens", quiet=True)
    [(_, numbers, before)] = query_scores(made.method, store, made.text_encoder, plain)
    [(_, _, after)] = query_scores(made.method, store, made.text_encoder, dialogues)
    same = [bool(np.allclose(one, other, atol=1e-5)) for one, other in zip(before, after, strict=True)]
    assert same == [not dialogues.triplets[number].earlier for number in numbers]

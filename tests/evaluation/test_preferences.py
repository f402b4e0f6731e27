"""Preference ratios: the published script's, and the symmetric one."""

import json
from pathlib import Path

import numpy as np
import pytest

from dqecir.data.hp_fashioniq import read_hp_fashioniq
from dqecir.errors import DataError
from dqecir.evaluation.preferences import preference_ratio, set_scores

GOLDEN = Path(__file__).parent.parent / "golden" / "12_text_pad_schedule.json"


def test_the_one_sided_ratio_is_the_published_one():
    facts = json.loads(GOLDEN.read_text())["hp_fashioniq_preference_ratio"]
    scores = np.array([facts["scores_set1"], facts["scores_set2"]]).T
    preferred = np.array([int(side) for side in facts["preferred"]])
    assert preference_ratio(scores, preferred, one_sided=True) == pytest.approx(facts["result"], abs=1e-12)
    lower = np.array([[0.1, 0.2]] * len(preferred))
    assert preference_ratio(lower, preferred, one_sided=True) == facts["none_case"]


def test_the_ratio_by_hand():
    scores = np.array([[2.0, 1], [1, 2], [3, 1], [1, 1], [0, 5]])
    preferred = np.array([1, 1, 2, 2, 2])
    assert preference_ratio(scores, preferred) == 2 / 4
    assert preference_ratio(scores, preferred, one_sided=True) == 1 / 2
    # Exchanging the sets changes nothing, but for the published number.
    exchanged = scores[:, ::-1], 3 - preferred
    assert preference_ratio(*exchanged) == 2 / 4
    assert preference_ratio(scores[:2], preferred[:2]) == 1 / 2
    assert preference_ratio(scores[:2], preferred[:2], one_sided=True) == 1.0


def test_people_agree_with_their_own_scores(shared):
    preferences = read_hp_fashioniq(shared / "data" / "hp_fashioniq" / "hpfiq.json", check_images=False)
    given = np.array([judgement.user_scores for judgement in preferences.judgements], dtype=float)
    preferred = np.array([judgement.preferred for judgement in preferences.judgements])
    ties = int((given[:, 0] == given[:, 1]).sum())
    assert ties == 774
    assert preference_ratio(given, preferred) == pytest.approx(1 - 32 / (3050 - ties))
    first = np.tile([1.0, 0.0], (3050, 1))
    assert preference_ratio(first, preferred, one_sided=True) == pytest.approx(0.538, abs=5e-4)


def test_a_set_scores_the_mean_of_its_images(shared):
    whole = read_hp_fashioniq(shared / "data" / "hp_fashioniq" / "hpfiq.json", check_images=False)
    few = type(whole)(whole.image_ids, whole.image_paths, whole.judgements[:2])
    scores = np.zeros((2, len(whole.image_ids)))
    scores[0, list(few.judgements[0].sets[0])] = [1, 2, 3, 4, 5]
    scores[1, few.judgements[1].sets[1][0]] = 10
    means = set_scores(few, scores)
    shared_images = set(few.judgements[0].sets[0]) & set(few.judgements[0].sets[1])
    assert means[0, 0] == 3.0
    assert means[0, 1] == sum(scores[0, image] for image in shared_images) / 5
    assert means[1, 1] == 2.0
    with pytest.raises(DataError, match="have shape"):
        set_scores(few, scores[:1])


@pytest.mark.parametrize(
    ("scores", "preferred", "message"),
    [
        (np.zeros((2, 3)), np.array([1, 2]), "two scores"),
        (np.zeros((2, 2)), np.array([0, 2]), "1 or 2"),
        (np.zeros((2, 2)), np.array([1, 2]), "have equal scores"),
    ],
)
def test_what_has_no_ratio_is_refused(scores, preferred, message):
    with pytest.raises(DataError, match=message):
        preference_ratio(scores, preferred)

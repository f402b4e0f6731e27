"""Measure how well scores agree with people: HP-FashionIQ's preference ratio (QuRe, arXiv 2507.12416).

In a judgement, people compared two sets of images for one query.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dqecir.data.hp_fashioniq import Preferences
from dqecir.errors import DataError


def set_scores(preferences: Preferences, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean score of the images in both sets of each judgement [J, 2].

    ``scores`` [J, N] are those of each judgement's query against all of ``preferences.image_ids``. Raises
    :class:`DataError` for scores of another shape.
    """
    shape = (len(preferences.judgements), len(preferences.image_ids))
    if scores.shape != shape:
        raise DataError(
            f"the scores have shape {list(scores.shape)} where {list(shape)} is needed: score the query of "
            "each judgement against all images"
        )
    return np.array(
        [
            [row[list(images)].mean(dtype=np.float64) for images in judgement.sets]
            for row, judgement in zip(scores, preferences.judgements, strict=True)
        ]
    )


def preference_ratio(
    scores: NDArray[np.floating], preferred: NDArray[np.int64], *, one_sided: bool = False
) -> float:
    """Return the share of judgements (0 to 1) in which people preferred the set with the higher score.

    ``scores`` [J, 2]; ``preferred`` [J] is 1 or 2. Judgements with equal scores are left out; chance is one
    half. ``one_sided`` computes the number of the published script, which counts only judgements in which set
    1 scores higher, so that chance is the share that prefers set 1 (0.538); it is 0 if there are none. Raises
    :class:`DataError` for shapes that do not fit, and if all judgements have equal scores.
    """
    if scores.shape != (len(preferred), 2) or not np.isin(preferred, (1, 2)).all():
        raise DataError("a preference ratio needs two scores and a preferred set (1 or 2) for each judgement")
    higher = np.where(scores[:, 0] > scores[:, 1], 1, np.where(scores[:, 1] > scores[:, 0], 2, 0))
    if one_sided:
        chosen = higher == 1
        return float((preferred[chosen] == 1).mean()) if chosen.any() else 0.0
    chosen = higher != 0
    if not chosen.any():
        raise DataError("the two sets of every judgement have equal scores: check how the sets were scored")
    return float((preferred[chosen] == higher[chosen]).mean())

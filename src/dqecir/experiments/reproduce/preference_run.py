"""HP-FashionIQ: measure how often a model prefers the set of results that a person preferred."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dqecir.data.hp_fashioniq import Preferences, read_hp_fashioniq
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import embed_images, embed_queries
from dqecir.evaluation.missing_images import checked_preferences, settle
from dqecir.evaluation.preferences import preference_ratio, set_scores
from dqecir.evaluation.table import baselines
from dqecir.experiments.reproduce.material import in_words, kind_in, start_of
from dqecir.experiments.reproduce.measuring import Conditions, MeasuredRow, tokens_of
from dqecir.experiments.reproduce.reproduction_report import Report
from dqecir.experiments.reproduce.request import Request, Settings, first_of, models_of
from dqecir.methods.method import Method
from dqecir.methods.scoring import score
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import read_model
from dqecir.training.processes import processes

FILE = "hpfiq.json"
PUBLISHED, SYMMETRIC, CHANCE = "one-sided ratio, as published", "symmetric ratio", "chance of the one-sided"


def reproduce_preferences(request: Request) -> Report | None:
    """Measure both preference ratios of a run's models and of the untrained weights, in percent.

    Only the main process returns a report, others None. Raises :class:`DataError` if the file or its images
    cannot be used.
    """
    if not processes().is_main_process:
        return None
    data_set = request.data_set
    assert request.run is not None
    if request.protocol is not None:
        raise DataError(
            f"{data_set.name} has no protocol to choose, because its report gives both ratios: leave out "
            "--protocol"
        )
    folders = models_of(request.run)
    made_of = Settings.beside(request.run)
    read = read_hp_fashioniq(request.folder / FILE, request.images, check_images=False)
    preferences, inventory = checked_preferences(read)
    settle(data_set.name, [inventory], request.missing, request.out)
    start = start_of(request.weights, kind_in(first_of(request.run)))
    rows = [
        _row(f"untrained weights, {name.replace('_', ' ')}", "not trained", model, preferences, request)
        for name, model in baselines(start).items()
    ]
    source = "a run without further details" if made_of is None else f"a run on {made_of.data}"
    for name, folder in folders.items():
        model = read_model(folder)
        rows.append(
            _row(f"{model.method.name}, {name} epoch", f"{name} of {source}", model, preferences, request)
        )
    report = Report(
        title=f"{data_set.name}: {rows[-1].name.partition(',')[0]} against people's preferences",
        facts={
            "weights": f"{request.weights} ({start.fingerprint})",
            "pictures": in_words(start.preprocessing),
            "run": str(request.run),
            "trained on": "not known: no reproduction's run" if made_of is None else made_of.data,
            "judgements": len(preferences.judgements),
        },
        inventories=[inventory],
        rows=rows,
        shown=(PUBLISHED, CHANCE, SYMMETRIC),
        notes=(
            "The published script looks only at judgements in which set 1 scores higher, so its chance is "
            "the share that prefers set 1. The symmetric ratio looks at both sides; its chance is 50. "
            "There is no published number to compare with.",
        ),
    )
    report.write(request.out)
    return report


def _row(
    title: str, chosen: str, model: ComposedModel, preferences: Preferences, request: Request
) -> MeasuredRow:
    # A method that words its own queries does so here too; otherwise texts are used as published.
    conditions = Conditions(
        "hp-fashioniq",
        "all",
        "two sets of five",
        "not masked",
        "as published" if _plain(model.method) else "own",
    )
    return MeasuredRow(title, chosen, conditions, ratios(model, preferences, request))


def _plain(method: Method) -> bool:
    return type(method).text is Method.text


def ratios(model: ComposedModel, preferences: Preferences, request: Request) -> Mapping[str, float]:
    """Return the two preference ratios, and the chance level of the one-sided one, in percent."""
    scores = set_scores(preferences, _scores(model, preferences, request))
    preferred = np.array([judgement.preferred for judgement in preferences.judgements])
    return {
        PUBLISHED: 100 * preference_ratio(scores, preferred, one_sided=True),
        CHANCE: 100 * float((preferred == 1).mean()),
        SYMMETRIC: 100 * preference_ratio(scores, preferred),
    }


def _scores(model: ComposedModel, preferences: Preferences, request: Request) -> NDArray[np.float32]:
    """Return scores [J, N] of the query of each judgement against every image."""
    store = tokens_of(model, preferences, request)
    method, judgements = model.method, preferences.judgements
    texts = [one.text if _plain(method) else method.text((one.text,)) for one in judgements]
    queries = embed_queries(method, store, model.text_encoder, [one.reference for one in judgements], texts)
    images = embed_images(method, store)
    # Score in chunks, because only one row of scores is needed for each judgement.
    return np.concatenate([score(some, images, method.score_rule).numpy() for some in queries.split(256)])

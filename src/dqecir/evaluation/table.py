"""Rows of baselines and oracles, to which the rows of a method are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import Store
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import FIRST, collect, summarise
from dqecir.evaluation.oracles import ORACLES, oracle_scores
from dqecir.methods.method import method_named
from dqecir.model.composed_model import ComposedModel

BASELINES = ("image_only", "text_only", "image_plus_text")
TOWER_BASELINE = "token_mean"
"""The only baseline of an encoder that cannot embed texts."""
SHOWN = ("R@1", "R@5", "R@10", "R@50", "mAP@10")
SUBSET = ("R_sub@1", "R_sub@2", "R_sub@3")
BEYOND = ("mAP", "nDCG@10", "hard negatives@10", "composition gap", "paraphrase spread")
"""Metrics besides recall: over all right answers, on hard negatives, on how much reference and text together
gain over each alone, and on how much results depend on the wording."""

Rows = Mapping[str, Mapping[str, float]]


def baselines(model: ComposedModel) -> dict[str, ComposedModel]:
    """Return the baselines image only, text only and their sum, as models with the encoder of ``model``.

    If the encoder does not embed texts, the only baseline is the mean image token.
    """
    fitting = [name for name in BASELINES if method_named(name).requires <= model.backbone.provides]
    # A new method is in training mode, which would enable dropout in the shared backbone.
    return {name: model.with_method(name, {}).eval() for name in fitting or [TOWER_BASELINE]}


def baseline_rows(model: ComposedModel, store: Store, benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """Return the metrics of the baselines with the encoder of ``model``: name -> metric -> percent.

    ``store`` has the benchmark's images in order.
    """
    return {
        name: summarise(evaluate(one.method, store, model.text_encoder, benchmark, kept=FIRST))
        for name, one in baselines(model).items()
    }


def oracle_rows(benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """Return the metrics of the oracles, which rank by true attributes: name -> metric -> percent.

    Empty if the benchmark has no true attributes.
    """
    if not benchmark.attributes:
        return {}
    return {
        f"oracle, {kind}": summarise(collect(benchmark, oracle_scores(benchmark, kind))) for kind in ORACLES
    }


def as_table(title: str, rows: Rows) -> Table:
    """Return a table of the usual metrics for the terminal, in percent; ``rows``: name -> metric -> value."""

    def shown(names: tuple[str, ...]) -> list[str]:
        return [name for name in names if any(name in row for row in rows.values())]

    subset, wordings = shown(SUBSET), shown(("seen/mAP@10", "unseen/mAP@10"))
    table = _table(title, (*SHOWN, *subset, *wordings), rows)
    table.caption = "seen, unseen: mAP@10 by wording" if wordings else None
    return table


def beyond_recall(rows: Rows) -> Table:
    """Return a table for the terminal of those metrics in :data:`BEYOND` that any row has."""
    names = [name for name in BEYOND if any(name in row for row in rows.values())]
    table = _table("beyond recall", names, rows)
    table.caption = (
        "mAP, nDCG@10: all right answers. Hard negatives: wrong in the requested attribute alone. "
        "Gap, spread: in points of mAP@10"
    )
    return table


def _table(title: str, names: Sequence[str], rows: Rows) -> Table:
    table = Table(title=title)
    table.add_column("", min_width=10)  # In a narrow terminal, break names but not figures.
    for name in names:
        table.add_column(name.removesuffix("/mAP@10").replace(" ", "\n"), justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(name.replace("_", " "), *(f"{row[key]:.1f}" if key in row else "" for key in names))
    return table

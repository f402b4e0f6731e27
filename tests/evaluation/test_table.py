"""The rows of baselines and oracles."""

import io

import torch
from rich.console import Console

from dqecir.evaluation.evaluate import embed_images
from dqecir.evaluation.table import as_table, baseline_rows, oracle_rows
from dqecir.model.image_store import store_of
from dqecir.questions.composing import catalogue_benchmark


def test_measuring_baselines_leaves_the_model_as_it_was(model, garments, tmp_path):
    benchmark = catalogue_benchmark(garments, "val", per_reference=1, wording="evaluation")
    store = store_of(model, benchmark, tmp_path / "tokens", quiet=True)
    before = embed_images(model.method, store)
    rows = baseline_rows(model, store, benchmark)
    assert set(rows) == {"image_only", "text_only", "image_plus_text"}
    assert not model.backbone.training
    assert torch.equal(embed_images(model.method, store), before)


def test_the_table_shows_every_row(garments):
    benchmark = catalogue_benchmark(garments, "val", per_reference=1, wording="evaluation")
    table = as_table("t", oracle_rows(benchmark))
    assert table.row_count == 3
    assert [column.header for column in table.columns][-2:] == ["seen", "unseen"]


def test_a_narrow_terminal_breaks_names_and_not_figures():
    metrics = ("R@1", "R@5", "R@10", "R@50", "mAP@10", "seen/mAP@10", "unseen/mAP@10")
    rows = {"predicted attributes, exact, perfect parse": dict.fromkeys(metrics, 100.0)}
    terminal = Console(width=80, file=io.StringIO())
    terminal.print(as_table("t", rows))
    assert terminal.file.getvalue().count("100.0") == len(metrics)

"""The list of benchmarks: every protocol has an entry, and the named tests exist."""

import re
from pathlib import Path

from dqecir.evaluation.protocols import PROTOCOLS
from dqecir.experiments.reproduce.benchmark_list import ENTRIES
from dqecir.experiments.reproduce.request import DATA_SETS

ROOT = Path(__file__).parents[3]


def test_every_benchmark_is_listed_and_names_tests_that_exist():
    names = [entry.name for entry in ENTRIES]
    assert {protocol.data for protocol in PROTOCOLS.values()} | set(DATA_SETS) == set(names)
    for entry in ENTRIES:
        named = re.findall(r"tests/[\w/]+(?:\.py)?", entry.verified)
        assert named and all((ROOT / path).exists() for path in named)


def test_the_list_says_what_is_there_and_what_is_published(dqecir, tmp_path):
    (tmp_path / "i-cir" / "query").mkdir(parents=True)
    (tmp_path / "i-cir" / "query_files.csv").touch()
    code, out, errors = dqecir("reproduce", "--list", "--data", tmp_path)
    assert code == 0, errors
    assert "present: query_files.csv, query in" in out and "missing: database_files.csv, database" in out
    assert f"present: no folder cirr in {tmp_path}" in out
    assert "TIRG (ResNet, as cited by later papers), val: R@10 17.40" in out
    assert "[arXiv 1812.07119; checked by arithmetic]" in out and "not verified]" in out
    code, out, _ = dqecir("reproduce", "--list")
    assert code == 0 and "not looked for" in out
    code, _, errors = dqecir("reproduce", "--list", "--data", tmp_path / "nowhere")
    assert code == 1 and "is no folder" in errors


def test_without_the_list_everything_must_be_named(dqecir, tmp_path):
    code, _, errors = dqecir("reproduce")
    assert code == 1 and "DATA_SET is missing" in errors
    code, _, errors = dqecir("reproduce", "cirr", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 1 and "--weights is missing" in errors

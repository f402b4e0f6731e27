"""The corpus of readings: a reading changes only with the reader's version."""

import pytest
from benchmarks import write_readings
from benchmarks.write_readings import READINGS, Corpus, rewrite

from dqecir.language.parsing import Parser
from dqecir.language.reader_version import READER_VERSION


def test_no_text_is_read_otherwise_without_a_new_version():
    corpus = Corpus.read(READINGS)
    assert len(corpus.rows) >= 500
    again = corpus.read_again()
    assert not corpus.changes(again), "raise READER_VERSION, then run python -m benchmarks.write_readings"
    assert again == corpus, "run python -m benchmarks.write_readings"


@pytest.fixture
def another_rule(monkeypatch):
    """Replace the reader by one that skips clauses it cannot read."""
    clauses = Parser.clauses
    monkeypatch.setattr(
        Parser, "clauses", lambda self, text: [clause for clause in clauses(self, text) if clause.readings]
    )


def test_a_changed_rule_is_noticed_and_not_written_under_the_same_version(another_rule, tmp_path):
    path = tmp_path / "readings.jsonl"
    path.write_bytes(READINGS.read_bytes())
    with pytest.raises(SystemExit, match=r"was read as (?s:.*)raise READER_VERSION: \d+ texts"):
        rewrite(path)
    assert path.read_bytes() == READINGS.read_bytes()


def test_a_new_version_is_written_with_its_readings(another_rule, tmp_path, monkeypatch):
    path = tmp_path / "readings.jsonl"
    path.write_bytes(READINGS.read_bytes())
    monkeypatch.setattr(write_readings, "READER_VERSION", READER_VERSION + 1)
    assert f"of 500 texts are read otherwise in version {READER_VERSION + 1}" in rewrite(path)
    assert rewrite(path).startswith("0 of 500")


def test_a_new_text_needs_no_new_version(tmp_path):
    path = tmp_path / "readings.jsonl"
    path.write_text(READINGS.read_text(encoding="utf-8") + '["shop", "crimson", null]\n', encoding="utf-8")
    assert rewrite(path).startswith("0 of 501")
    assert Corpus.read(path).rows[-1] == ("shop", "crimson", ["color is red"])

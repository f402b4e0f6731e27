"""Claims of run folders, and the error for another run."""

import json
from typing import Any, ClassVar

import pytest
from pydantic import Field

from dqecir.errors import DataError
from dqecir.io.run_folder import claim
from dqecir.settings import Strict


class Training(Strict):
    removed_keys: ClassVar = {"smoothing": 0.1}
    steps: int = 4
    betas: tuple[float, float] = (0.9, 0.999)


class Run(Strict):
    model: str = "a1"
    training: Training | None = Training()
    rows: dict[str, Any] = Field(default_factory=dict)


def test_a_folder_stays_claimed(tmp_path):
    claim(tmp_path / "run", "run.json", Run(), "run")
    written = tmp_path / "run" / "run.json"
    assert json.loads(written.read_text())["training"] == {"steps": 4, "betas": [0.9, 0.999]}
    before = written.stat().st_mtime_ns
    claim(tmp_path / "run", "run.json", Run(), "run")
    assert written.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"training": {"steps": 5}}, r"holds a run with another training\.steps \(4, not 5\): name another"),
        ({"training": {"betas": (0.9, 0.98)}}, r"another training\.betas: "),
        ({"model": "b2", "training": {"steps": 5}}, r"another model \(a1, not b2\), training\.steps"),
        ({"training": None}, "another training: "),
        ({"model": "0123456789abcdef" * 6}, "holds a run with another model: "),
        ({"rows": {"one": 1}}, r"another rows\.one \(None, not 1\): "),
    ],
)
def test_another_run_is_told_what_differs(tmp_path, run, message):
    claim(tmp_path, "run.json", Run(), "run")
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(DataError, match=message):
        claim(tmp_path, "run.json", Run.model_validate(run), "run")
    assert (tmp_path / "run.json").read_text() == before


def test_a_record_with_removed_keys_is_read(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"model": "a1", "training": {"smoothing": 0.1}}))
    claim(tmp_path, "run.json", Run(), "run")
    (tmp_path / "run.json").write_text(json.dumps({"model": "a1", "training": {"smoothing": 0.2}}))
    with pytest.raises(DataError, match=r"run\.json has mistakes"):
        claim(tmp_path, "run.json", Run(), "run")


def test_entries_that_may_join_must_stay_as_they_were(tmp_path):
    def claimed(**rows):
        claim(tmp_path, "run.json", Run(rows=rows), "run", joining="rows")

    claimed(one=1)
    claimed(two=2)
    assert json.loads((tmp_path / "run.json").read_text())["rows"] == {"one": 1, "two": 2}
    with pytest.raises(DataError, match=r"another rows\.one \(1, not 3\)"):
        claimed(one=3, three=3)
    assert json.loads((tmp_path / "run.json").read_text())["rows"] == {"one": 1, "two": 2}


def test_a_process_that_does_not_write_compares(tmp_path):
    claim(tmp_path, "run.json", Run(), "run", writes=False)
    assert not list(tmp_path.iterdir())
    claim(tmp_path, "run.json", Run(), "run")
    with pytest.raises(DataError, match="another model"):
        claim(tmp_path, "run.json", Run(model="b2"), "run", writes=False)


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged: remove "), ("[]", "has mistakes")])
def test_a_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=rf"run\.json {message}"):
        claim(tmp_path, "run.json", Run(), "run")

"""Submission files of CIRR and CIRCO against the published ones."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dqecir.data.annotations import Question, Questions
from dqecir.data.circo import read_circo_questions
from dqecir.data.cirr import read_cirr_questions
from dqecir.errors import DataError
from dqecir.evaluation.submission import rank_questions, submission_files, validate, write_submissions
from dqecir.methods.scoring import score

GOLDEN = Path(__file__).parent.parent / "golden"


def unit(values):
    return torch.nn.functional.normalize(torch.from_numpy(values), dim=-1).numpy()


def read(path: Path):
    return json.loads(path.read_text())


def cirr_scores(questions):
    random = np.random.RandomState(3600)
    items, asked = len(questions.image_ids), len(questions.questions)
    tokens = unit(random.standard_normal((items, 3, 8)).astype(np.float32))
    noise = random.standard_normal((asked, 8)).astype(np.float32)
    references = [question.reference for question in questions.questions]
    queries = torch.from_numpy(unit(tokens[references, 1] + noise))
    return score(queries[:, None], torch.from_numpy(tokens), "max_t").numpy()


def chunked(scores, category="all"):
    return [(category, part, scores[part]) for part in np.array_split(np.arange(len(scores)), 5)]


@pytest.fixture(scope="module")
def test1(shared):
    questions = read_cirr_questions(shared / "data" / "cirr", check_images=False)
    return questions, cirr_scores(questions)


def fingerprint(file) -> str:
    return hashlib.sha256(json.dumps(file, sort_keys=True).encode()).hexdigest()


def test_cirr_files_equal_the_published_ones(test1):
    questions, scores = test1
    facts = read(GOLDEN / "13_cirr_test1_submission.json")
    recall, subset = submission_files(rank_questions(questions, chunked(scores))).values()
    assert {key: recall[key] for key in facts["recall_first_25"]} == facts["recall_first_25"]
    assert {k: subset[k] for k in facts["recall_subset_first_25"]} == facts["recall_subset_first_25"]
    for file, key in ((recall, "recall"), (subset, "recall_subset")):
        assert (file["version"], file["metric"]) == ("rc2", key)
        assert len(file) == facts["n_queries"] + 2
    assert fingerprint(subset) == facts["sha256_canonical"]["recall_subset"]
    # The published sort leaves the order of equal scores open; by its order the file is the same.
    orders = torch.argsort(1 - torch.from_numpy(scores), dim=-1).numpy()
    differing = 0
    for row, question in enumerate(questions.questions):
        order = orders[row][orders[row] != question.reference][:50]
        published = [questions.image_ids[place] for place in order]
        ours = recall[question.pair_id]
        if ours != published:
            differing += 1
            places = [questions.image_ids.index(name) for name in ours]
            np.testing.assert_allclose(scores[row, places], scores[row, order], rtol=0, atol=1e-7)
            recall[question.pair_id] = published
    assert differing <= facts["n_queries_where_float64_order_differs"]
    assert fingerprint(recall) == facts["sha256_canonical"]["recall"]


def test_cirr_files_are_written_small_enough(test1, tmp_path):
    questions, scores = test1
    paths = write_submissions(tmp_path / "out", rank_questions(questions, chunked(scores)))
    assert [path.name for path in paths] == ["cirr_test1_recall.json", "cirr_test1_recall_subset.json"]
    assert all(path.stat().st_size < 5_000_000 for path in paths)
    assert read(paths[1])["metric"] == "recall_subset"
    names = set(questions.image_ids)
    for question in questions.questions[::97]:
        listed = read(paths[0])[question.pair_id]
        assert len(set(listed)) == 50
        assert set(listed) <= names - {questions.image_ids[question.reference]}


def test_circo_files_equal_the_official_example(shared, tmp_path):
    folder = shared / "data" / "circo"
    official = read(folder / "submission_examples" / "submission_test.json")
    rows = read(folder / "annotations" / "test.json")
    known = sorted(
        {image for ids in official.values() for image in ids} | {r["reference_img_id"] for r in rows}
    )
    questions = read_circo_questions(folder, gallery=known, check_images=False)
    place = {image: number for number, image in enumerate(known)}
    scores = np.full((len(rows), len(known)), -1.0, dtype=np.float32)
    for row, question in enumerate(questions.questions):
        ids = official[question.pair_id]
        scores[row, [place[image] for image in ids]] = 1 - np.arange(len(ids)) / 100
    rankings = rank_questions(questions, chunked(scores))
    (path,) = write_submissions(tmp_path, rankings)
    assert read(path) == official


def small(subset=(1, 2, 3), name="cirr", mask=True) -> Questions:
    ids = tuple("abcde")
    asked = (Question("11", 0, ("is red",), "all", subset), Question("12", 4, ("is new",), "all", subset))
    return Questions(name, "test1", ids, tuple(map(Path, ids)), {"all": np.arange(5)}, asked, mask)


def test_rankings_by_hand():
    scores = np.array([[9.0, 1, 5, 5, 3], [1, 1, 1, 2, 9]], dtype=np.float32)
    rankings = rank_questions(small(), chunked(scores))
    assert rankings.found == ((2, 3, 4, 1), (3, 0, 1, 2))
    assert rankings.subset_found == ((2, 3, 1), (3, 1, 2))
    assert submission_files(rankings)["cirr_test1_recall_subset.json"] == {
        "version": "rc2",
        "metric": "recall_subset",
        "11": ["c", "d", "b"],
        "12": ["d", "b", "c"],
    }
    kept = rank_questions(small(mask=False), chunked(scores))
    assert kept.found[0] == (0, 2, 3, 4, 1)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([("all", np.array([0]), np.zeros((1, 5)))], "1 of 2 questions were not scored"),
        ([("all", np.array([0, 0]), np.zeros((2, 5)))], "question 11 was scored twice"),
        ([("all", np.array([0]), np.zeros((1, 4)))], r"of the shape \[1, 5\], not \[1, 4\]"),
        ([("all", np.array([0]), np.full((1, 5), np.nan))], "finite numbers"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(chunks, message):
    with pytest.raises(DataError, match=message):
        rank_questions(small(), chunks)


def test_submissions_of_other_data_are_refused(tmp_path):
    scores = np.zeros((2, 5), dtype=np.float32)
    with pytest.raises(DataError, match="questions without a subset"):
        submission_files(rank_questions(small(subset=()), chunked(scores)))
    with pytest.raises(DataError, match=r"fashioniq has no evaluation server: .*cirr and circo only"):
        write_submissions(tmp_path, rank_questions(small(name="fashioniq"), chunked(scores)))


def test_a_file_that_no_server_takes_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"no evaluation server takes .*circo_val\.json: its name must be one of"
    ):
        validate([tmp_path / "circo_val.json"], small(name="circo"))

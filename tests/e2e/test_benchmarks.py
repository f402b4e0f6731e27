"""Every benchmark without an evaluation server, in miniature: read, and measured under its protocol."""

import json
from itertools import pairwise

import pytest
from PIL import Image

from dqecir.data.fashioniq import CATEGORIES
from dqecir.data.genecis import TASKS


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (37 * number % 256, 91 * number % 256, 60)).save(path)


def genecis(folder):
    (folder / "genecis").mkdir()
    for number in range(1, 9):
        picture(folder / "val2017" / f"{number:012d}.jpg", number)
        picture(folder / "VG_100K_all" / f"{number}.jpg", number)
    for task in TASKS:
        rows = []
        for start in (1, 3):
            if task.endswith("object"):
                named = [{"val_image_id": start + n} for n in range(5)]
            else:
                named = [{"image_id": start + n, "instance_bbox": [4, 4, 8, 8]} for n in range(5)]
            rows.append(
                {"condition": "wall", "reference": named[0], "target": named[1], "gallery": named[2:]}
            )
        (folder / "genecis" / f"{task}.json").write_text(json.dumps(rows))
    return "R_sub@1"


def icir(folder):
    lines = {"query": ["owl", "mug"], "database": ["owl", "owl", "mug", "mug", "owl"]}
    number = 0
    for kind, instances in lines.items():
        written = []
        for place, instance in enumerate(instances):
            picture(folder / kind / f"{place}.png", number := number + 1)
            written.append(f"{kind}/{place}.png,{'at night' if place < 4 else 'by day'},{instance}\n")
        (folder / f"{kind}_files.csv").write_text("".join(written))
    return "mAP"


def lasco(folder):
    names = [[n, f"val2014/COCO_val2014_{n:012d}.jpg"] for n in range(1, 7)]
    for number, name in names:
        picture(folder / name, number)
    rows = [
        {"qid": n, "query-image": one, "query-text": "it is red", "target-image": other}
        for n, (one, other) in enumerate(pairwise(names))
    ]
    (folder / "lasco_val.json").write_text(json.dumps(rows))
    corpus = [{"id": n, "path": f"val/{name}"} for n, name in names]
    (folder / "lasco_val_corpus.json").write_text(json.dumps(corpus))
    return "R@10"


def shoes(folder):
    names = [f"img_womens_clogs_{n}.jpg" for n in range(5)]
    for number, name in enumerate(names):
        picture(folder / "womens_clogs" / "0" / name, number)
    (folder / "eval_im_names.txt").write_text("\n".join(names) + "\n")
    rows = [
        {"ImageName": other, "ReferenceImageName": one, "RelativeCaption": "is red"}
        for one, other in pairwise(names)
    ]
    (folder / "relative_captions_shoes.json").write_text(json.dumps(rows))
    return "(R@1 + R@10 + R@50)/3"


def fashion200k(folder):
    names = [f"women/dresses/{n}/{n}_0.jpeg" for n in range(5)]
    for number, name in enumerate(names):
        picture(folder / name, number)
    lines = [f"{name}\t0.9\t{'red' if n % 2 else 'blue'} dress\n" for n, name in enumerate(names)]
    (folder / "labels").mkdir()
    (folder / "labels" / "dress_test_detect_all.txt").write_text("".join(lines))
    (folder / "test_queries.txt").write_text("".join(f"{a} {b}\n" for a, b in pairwise(names)))
    return "(R_any@1 + R_any@10 + R_any@50)/3"


def multiturn_fashioniq(folder):
    (folder / "data").mkdir()
    (folder / "image_splits").mkdir()
    for category in CATEGORIES:
        names = [f"{category}{n}" for n in range(4)]
        for number, name in enumerate(names):
            picture(folder / "images" / f"{name}.jpg", number)
        (folder / "image_splits" / f"split.{category}.val.json").write_text(json.dumps(names))
        turns = [[f"http://shop/{name}.jpg", ["is red", "is longer"], name] for name in names[:3]]
        rows = [{"reference": turns[: n + 1], "target": ["http://shop", names[n + 1]]} for n in range(3)]
        (folder / "data" / f"{category}.val.json").write_text(json.dumps(rows))
    return "(R@5 + R@8)/2"


@pytest.mark.parametrize(
    "write", [genecis, icir, lasco, shoes, fashion200k, multiturn_fashioniq], ids=lambda write: write.__name__
)
def test_a_miniature_is_measured(write, dqecir, model_folder, tmp_path):
    data, report = tmp_path / "data", tmp_path / "report.json"
    data.mkdir()
    headline = write(data)
    name = write.__name__.replace("icir", "i-cir").replace("_", "-")
    code, out, errors = dqecir("protocol", name, "--data", data, "--model", model_folder, "--json", report)
    assert code == 0, errors
    metrics = json.loads(report.read_text())["metrics"]
    assert list(metrics)[-1] == headline and f"{headline}: {metrics[headline]:.2f}" in out
    assert 0 <= metrics[headline] <= 100


def test_questions_whose_pictures_are_missing_are_skipped_when_asked(dqecir, model_folder, tmp_path):
    lasco(tmp_path)
    gone = tmp_path / "val2014" / "COCO_val2014_000000000006.jpg"
    gone.unlink()
    asked = ("protocol", "lasco", "--data", tmp_path, "--model", model_folder, "--json", tmp_path / "m.json")
    code, _, err = dqecir(*asked)
    assert code == 1 and gone.name in err
    code, out, err = dqecir(*asked, "--missing", "skip")
    assert code == 0, err
    assert "val: 1 of 5 questions (20.00 %) are left out, because 1 of 6 images are missing." in out
    facts = json.loads((tmp_path / "m.json").read_text())["facts"]
    assert facts["queries"] == 4 and len(facts["missing"]["missing"]) == 1
    assert facts["missing"]["fallen"] == ["4\t5\t6"]

"""The published annotations, cut to a few dozen questions, with drawn pictures instead of the images."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

RECIPES = Path(__file__).parents[3] / "recipes" / "reproduce"
CATEGORIES = ("dress", "shirt", "toptee")


def draw(path: Path) -> None:
    """Draw a small picture that depends only on its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(zlib.crc32(path.stem.encode()))
    blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(path)


def read(path: Path):
    return json.loads(path.read_text())


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="session")
def fashioniq(shared, tmp_path_factory) -> Path:
    """Return 24 training questions and 18 of val; every other image is a .png."""
    source, folder = shared / "data" / "fashioniq", tmp_path_factory.mktemp("data") / "fashioniq"
    for category in CATEGORIES:
        for split, count, more in (("train", 8, 4), ("val", 6, 6)):
            rows = read(source / "captions" / f"cap.{category}.{split}.json")[:count]
            named = {row[side] for row in rows for side in ("candidate", "target")}
            whole = read(source / "image_splits" / f"split.{category}.{split}.json")
            others = [image for image in whole if image not in named][:more]
            write(folder / "captions" / f"cap.{category}.{split}.json", rows)
            images = [image for image in whole if image in named or image in others]
            write(folder / "image_splits" / f"split.{category}.{split}.json", images)
            for place, image in enumerate(images):
                draw(folder / "images" / f"{image}{('.jpg', '.png')[place % 2]}")
    return folder


@pytest.fixture(scope="session")
def cirr(shared, tmp_path_factory) -> Path:
    """Return 14 questions of val, 24 others of val under the name of train, and 8 of test1."""
    source, folder = shared / "data" / "cirr", tmp_path_factory.mktemp("data") / "cirr"
    for split, origin, start, count in (
        ("val", "val", 0, 14),
        ("train", "val", 100, 24),
        ("test1", "test1", 0, 8),
    ):
        rows = read(source / "captions" / f"cap.rc2.{origin}.json")[start : start + count]
        named = {image for row in rows for image in row["img_set"]["members"]}
        whole = read(source / "image_splits" / f"split.rc2.{origin}.json")
        images = {name: path for name, path in whole.items() if name in named}
        write(folder / "captions" / f"cap.rc2.{split}.json", rows)
        write(folder / "image_splits" / f"split.rc2.{split}.json", images)
        for path in images.values():
            draw(folder / path)
    return folder


@pytest.fixture(scope="session")
def circo(shared, tmp_path_factory) -> Path:
    """Return six questions of val and six of test over their images and 60 other images."""
    source, folder = shared / "data" / "circo", tmp_path_factory.mktemp("data") / "circo"
    named = set(range(1, 61))
    for split in ("val", "test"):
        rows = read(source / "annotations" / f"{split}.json")[:6]
        named |= {image for row in rows for image in (row["reference_img_id"], *row.get("gt_img_ids", ()))}
        write(folder / "annotations" / f"{split}.json", rows)
    images = [{"id": image, "file_name": f"{image:012d}.jpg"} for image in sorted(named)]
    coco = folder / "COCO2017_unlabeled"
    write(coco / "annotations" / "image_info_unlabeled2017.json", {"images": images})
    for image in images:
        draw(coco / "unlabeled2017" / image["file_name"])
    return folder


@pytest.fixture(scope="session")
def hp_fashioniq(shared, tmp_path_factory) -> Path:
    """Return the first six judgements of three people."""
    folder = tmp_path_factory.mktemp("data") / "hp"
    people = read(shared / "data" / "hp_fashioniq" / "hpfiq.json")
    cut = {}
    for user in list(people)[:3]:
        sheet = next(iter(people[user].values()))
        cut[user] = {"question_set_1": {key: values[:6] for key, values in sheet.items()}}
        for key in ("ref_img_paths", "targ_img_paths"):
            for path in cut[user]["question_set_1"][key]:
                draw(folder / "images" / Path(path).name)
        for side in (1, 2):
            for found in cut[user]["question_set_1"][f"retrieved_set{side}"]:
                for path in found["img_path"]:
                    draw(folder / "images" / Path(path).name)
    write(folder / "hpfiq.json", cut)
    return folder


@pytest.fixture(scope="session")
def recipes(tmp_path_factory) -> dict[str, Path]:
    """Return the published recipes with three short epochs, at a rate that changes something."""
    folder, found = tmp_path_factory.mktemp("recipes"), {}
    for name in ("fashioniq", "cirr"):
        recipe = yaml.safe_load((RECIPES / f"dqe-{name}.yaml").read_text())
        recipe["negatives"]["refresh_epochs"] = 1
        recipe["training"] |= {"epochs": 3, "batch_size": 8, "learning_rate": 0.001, "checkpoint_every": 2}
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(yaml.safe_dump(recipe))
    return found


@pytest.fixture
def command(dqecir, model_folder):
    """Return a function that runs ``dqecir reproduce`` on tiny weights: (exit code, standard output,
    standard error).
    """

    def run(data_set, *arguments) -> tuple[int, str, str]:
        return dqecir("reproduce", data_set, "--weights", model_folder, *arguments)

    return run

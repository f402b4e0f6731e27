"""Pretraining reads catalogues with different columns, and starts from published weights."""

import csv

import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import save_file
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from dqecir.data.catalogue import read_catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.data.images import Preprocessing
from dqecir.errors import DataError
from dqecir.settings import parse_settings
from dqecir.training.pretraining import Pretrainer
from dqecir.training.pretraining_data import HELD_OUT, as_source, hold_out, read_images, shared_columns
from dqecir.training.recipe import CatalogueSource, Implied, PretrainingRecipe, read_pretraining_recipe
from tests.encoders.test_efficientnet import published

RECIPE = """
backbone:
  tower: {kind: efficientnet, image_size: 32, hidden_size: 16, colour_width: 4}
  hidden_size: 16
  layers: 2
  heads: 2
  intermediate_size: 32
  query_tokens: 3
  embedding_size: 12
  text_positions: 48
  attention: eager
preprocessing: {size: 32, pad_ratio: 1.0}
sources:
  - columns: {color: color, garment: garment}
  - columns: {color: shop_color, gender: gender}
    unknown_if_empty: [gender]
    held_out: 0.25
vocabulary_size: 400
max_text_length: 32
classification:
  {steps: 2, batch_size: 8, shares: [0.5, 0.5], strengths: [1, 1], light: 0.3, small_steps: 1, small_size: 32}
contrast: {steps: 1, batch_size: 8, shares: [0.5, 0.5], views: [1, 1]}
precision: fp32
"""


@pytest.fixture
def shop(tmp_path):
    """Return a catalogue of 12 pictures whose colours have a shop's spelling."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    with (folder / "attributes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "split", "color", "gender", "brand"])
        for place in range(12):
            Image.new("RGB", (30, 40), (20 * place, 0, 0)).save(folder / "images" / f"{place}.png")
            colour, gender = [("Off White", "Men"), ("Navy Blue", ""), ("Off White", "Women")][place % 3]
            table.writerow([f"images/{place}.png", "train", colour, gender, f"brand {place}"])
    return read_catalogue(folder)


def recipe(**changes) -> PretrainingRecipe:
    return parse_settings({**yaml.safe_load(RECIPE), **changes}, PretrainingRecipe, "recipe")


def test_a_source_names_its_columns_and_what_its_empty_cells_mean(shop):
    source = CatalogueSource(
        columns={"color": "shop_color", "gender": "gender"}, unknown_if_empty=("gender",)
    )
    told = as_source(shop, source)
    assert set(told.attributes) == {"shop_color", "gender"}
    assert set(told.attributes["gender"]) == {UNKNOWN, "Men", "Women"}
    plain = as_source(shop, CatalogueSource(columns={"gender": "gender"}))
    assert set(plain.attributes["gender"]) == {"", "Men", "Women"}
    with pytest.raises(DataError, match="no column 'colour'"):
        as_source(shop, CatalogueSource(columns={"colour": "color"}))


def test_a_column_of_many_values_is_an_attribute(tmp_path):
    (tmp_path / "images").mkdir()
    with (tmp_path / "attributes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "article", "name"])
        for place in range(600):
            (tmp_path / "images" / f"{place}.png").touch()
            table.writerow([f"images/{place}.png", f"kind {place % 141}", f"it {place}"])
    columns = shared_columns([read_catalogue(tmp_path)])
    assert {name: len(values) for name, values in columns.items()} == {"article": 141}


def test_what_is_held_out_is_not_learned_from(shop):
    apart = hold_out(shop, "train_all", 0.25, seed=0)
    held, kept = apart.split(HELD_OUT), apart.split("train_all")
    assert (len(held), len(kept)) == (3, 9)
    assert sorted([*held, *kept]) == list(shop.split("train_all"))
    assert list(hold_out(shop, "train_all", 0.25, seed=1).split(HELD_OUT)) != list(held)


def test_pixels_are_kept_for_a_run_that_goes_on(shop, tmp_path):
    preprocessing = Preprocessing(size=32)
    columns = {"color": ("Navy Blue", "Off White")}
    first = read_images(shop, "train_all", columns, preprocessing, True, tmp_path / "kept")
    for picture in shop.image_paths:
        picture.unlink()
    again = read_images(shop, "train_all", columns, preprocessing, True, tmp_path / "kept")
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.codes, again.codes)


def test_two_sources_train_a_tower_from_published_weights(garments, shop, tmp_path):
    weights = tmp_path / "lite0.safetensors"
    save_file(published("lite0"), weights)
    settings = recipe(tower_weights=str(weights))
    pretrainer = Pretrainer(settings, [garments, shop], "train_all", tmp_path / "work", quiet=True)
    start = published("lite0")["_conv_stem.weight"]
    assert torch.equal(pretrainer.backbone.tower.network.stem.conv.weight, start)
    model = pretrainer.run()
    assert set(model.heads.config.columns) == {"color", "garment", "shop_color", "gender"}
    assert model.heads.config.columns["gender"] == ("Men", "Women")
    assert not torch.equal(model.backbone.tower.network.stem.conv.weight, start)
    assert set(model.notes["heads"]) == {"shop_color", "gender"}
    assert model.notes["heads"]["shop_color"]["pictures"] == 3
    folder = model.save_pretrained(tmp_path / "model")
    assert type(model).from_pretrained(folder).fingerprint == model.fingerprint


def test_a_q_former_is_trained_over_a_frozen_tower_of_transformers(garments, shop, tmp_path):
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=8
    )
    torch.manual_seed(3)
    tower = transformers.Dinov2Model(config)
    tower.save_pretrained(tmp_path / "dino")
    BitImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "dino"
    )
    (tmp_path / "dino" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    said = yaml.safe_load(RECIPE)
    said["backbone"]["tower"] = {"kind": "transformers", "image_size": 32}
    said["classification"] |= {"frozen_tower": True, "small_steps": 0}
    settings = recipe(**said, tower_weights=str(tmp_path / "dino"))
    encoded: list[bool] = []
    pretrainer = Pretrainer(settings, [garments, shop], "train_all", tmp_path / "work", quiet=True)
    pretrainer.backbone.tower.register_forward_hook(lambda *_: encoded.append(True))
    before = {name: weight.clone() for name, weight in pretrainer.heads.state_dict().items()}
    pretrainer.classify()
    assert any(
        not torch.equal(weight, before[name]) for name, weight in pretrainer.heads.state_dict().items()
    )
    once = len(encoded)
    pretrainer.contrast()
    assert once == len(encoded) > 0, "the contrast encodes pictures again"
    model = pretrainer.run()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        right = tower.eval()(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(model.backbone.image_tokens(pixels), right)
    assert model.notes["tower"]["licence"] == "apache-2.0"
    folder = model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(folder)
    assert again.fingerprint == model.fingerprint
    again.with_method("dqe_values", {"attributes": ["colour"], "columns": ["color"]})


@pytest.mark.parametrize("stage", [{}, {"frozen_tower": True, "small_steps": 0}])
def test_a_tower_that_is_published_or_frozen_needs_its_weights(stage):
    said = yaml.safe_load(RECIPE)
    if not stage:
        said["backbone"]["tower"] = {"kind": "transformers", "image_size": 32}
    said["classification"] |= stage
    with pytest.raises(DataError, match="needs tower_weights"):
        recipe(**said)


@pytest.mark.parametrize("stage", [{"small_steps": 1}, {"mixup": 0.3}, {"replicas": 2}])
def test_a_frozen_tower_gets_no_settings_of_pixels(stage):
    said = yaml.safe_load(RECIPE)
    said["classification"] |= {"frozen_tower": True, "small_steps": 0} | stage
    with pytest.raises(DataError, match="leave out small_steps, mixup and replicas"):
        recipe(**said, tower_weights="somewhere")


def test_as_many_sources_as_catalogues(garments, tmp_path):
    with pytest.raises(DataError, match="the recipe has sources for 2 catalogues, but 1 are given"):
        Pretrainer(recipe(), [garments], "train", tmp_path, quiet=True)


def test_published_weights_need_their_kind_of_tower():
    backbone = {
        **yaml.safe_load(RECIPE)["backbone"],
        "tower": {"kind": "stem", "image_size": 32, "widths": [8]},
    }
    with pytest.raises(DataError, match="tower_weights need a tower of the kind efficientnet or"):
        recipe(backbone=backbone, tower_weights="somewhere")


def test_a_table_implies_what_another_says(shop):
    colours = Implied(column="color", values={"Navy Blue": "navy"})
    brands = Implied(column="brand", values={"BRAND 1": "first", "brand": "other"}, within=True)
    source = CatalogueSource(columns={}, implied={"colour": (colours,), "known": (brands,)})
    told = as_source(shop, source)
    assert told.attributes["colour"] == (UNKNOWN, "navy", UNKNOWN) * 4
    assert told.attributes["known"][:3] == ("other", "first", "other")
    both = as_source(shop, CatalogueSource(columns={}, implied={"known": (colours, brands)}))
    assert both.attributes["known"][:2] == ("other", "navy")
    with pytest.raises(DataError, match="no column 'colours'"):
        as_source(
            shop, CatalogueSource(columns={}, implied={"x": (Implied(column="colours", values={"a": "b"}),)})
        )


def test_sources_may_lie_in_a_file_beside_the_recipe(tmp_path):
    data = yaml.safe_load(RECIPE)
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump({"sources": data["sources"]}))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**data, "sources": "shared.yaml"}))
    assert read_pretraining_recipe(tmp_path / "recipe.yaml").sources == recipe().sources
    (tmp_path / "shared.yaml").unlink()
    with pytest.raises(DataError, match=r"no file .*shared\.yaml"):
        read_pretraining_recipe(tmp_path / "recipe.yaml")


def test_a_title_describes_its_own_picture_alone(garments, shop, tmp_path):
    sources = recipe().model_dump()["sources"]
    titled = recipe(sources=[sources[0], {**sources[1], "title": "brand"}])
    pretrainer = Pretrainer(titled, [garments, shop], "train_all", tmp_path, quiet=True)
    rows = pretrainer.catalogues[1].split("train_all")
    captions, said = pretrainer.captions_of(1, rows, step=0)
    whole = [caption for caption, row in zip(captions, said, strict=True) if not row.any()]
    assert 0 < len(whole) < len(captions)
    assert set(whole) <= set(shop.attributes["brand"])
    assert pretrainer.captions_of(0, garments.split("train_all")[:8], step=0)[1].any(dim=1).all()


@pytest.mark.parametrize("change", [{"mixup": 0.3}, {"replicas": 2}, {"average": 0.5, "steps": 4}])
def test_each_way_of_learning_trains_and_goes_on_where_it_was_killed(garments, shop, tmp_path, change):
    stage = {**yaml.safe_load(RECIPE)["classification"], **change}

    def trained(work):
        pretrainer = Pretrainer(recipe(classification=stage), [garments, shop], "train_all", work, quiet=True)
        before = pretrainer.heads.queries.detach().clone()
        pretrainer.classify()
        assert not torch.equal(pretrainer.heads.queries, before)
        return pretrainer.heads.state_dict()

    first, again = trained(tmp_path / "work"), trained(tmp_path / "work")
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_the_average_of_the_weights_is_kept(garments, shop, tmp_path):
    stage = {**yaml.safe_load(RECIPE)["classification"], "steps": 6}
    kept = []
    for average in (0.0, 0.9):
        settings = recipe(classification={**stage, "average": average})
        pretrainer = Pretrainer(settings, [garments, shop], "train_all", tmp_path / str(average), quiet=True)
        pretrainer.classify()
        kept.append(pretrainer.heads.queries)
    assert not torch.equal(*kept)

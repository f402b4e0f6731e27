"""Calibrated heads predict the same values, with probabilities that equal their accuracy."""

import torch
from torch import nn

from dqecir.data.cells import UNKNOWN_CODE
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.training.calibration import calibrate, calibration_error


class Pixels(nn.Module):
    """A tower whose tokens are the pixels of each place."""

    def forward(self, pixels):
        return pixels.flatten(2).transpose(1, 2)


def overconfident(seed: int):
    """Return heads and pictures; the heads predict the first column correctly in 7 of 10 cases, at a
    probability near 1.
    """
    torch.manual_seed(seed)
    heads = AttributeHeads(HeadsConfig(token_width=3, columns={"one": ("a", "b"), "other": ("c", "d")}))
    with torch.no_grad():
        heads.classifiers[0].weight.mul_(150)
    heads.eval()
    pixels = torch.randn(400, 3, 2, 2)
    with torch.no_grad():
        named = heads(Pixels()(pixels))["one"].argmax(dim=1)
    codes = torch.full((400, 2), UNKNOWN_CODE)
    codes[:, 0] = torch.where(torch.rand(400) < 0.7, named, 1 - named)
    return heads, pixels, codes


def test_probabilities_fit_after_calibration_and_names_stay():
    heads, pixels, codes = overconfident(0)
    with torch.no_grad():
        before = heads(Pixels()(pixels))
    found = calibrate(heads, Pixels(), zip(pixels.split(100), codes.split(100), strict=True))
    with torch.no_grad():
        after = heads(Pixels()(pixels))
    assert list(found) == ["one"]
    assert found["one"].temperature > 2
    assert found["one"].pictures == 400
    assert calibration_error(before["one"].softmax(dim=1), codes[:, 0]) > 0.15
    assert found["one"].calibration_error < 12
    assert torch.equal(before["one"].argmax(dim=1), after["one"].argmax(dim=1))
    assert torch.equal(before["other"], after["other"])


def test_the_calibration_error_is_the_distance_from_the_share_of_right_values():
    sure = torch.tensor([[0.9, 0.1]] * 10)
    assert abs(calibration_error(sure, torch.tensor([0] * 9 + [1])) - 0.0) < 1e-6
    assert abs(calibration_error(sure, torch.tensor([0] * 5 + [1] * 5)) - 0.4) < 1e-6


def test_nothing_held_out_leaves_the_heads_as_they_are():
    heads, _, _ = overconfident(1)
    before = heads.classifiers[0].weight.clone()
    assert calibrate(heads, Pixels(), []) == {}
    assert torch.equal(heads.classifiers[0].weight, before)

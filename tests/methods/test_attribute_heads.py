"""Attribute heads under other names."""

import pytest
import torch

from dqecir.errors import DataError
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig

COLUMNS = {"color": ("red", "blue"), "shape": ("long",), "shop_color": ("Red", "Navy", "Sky")}


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return AttributeHeads(HeadsConfig(token_width=4, columns=COLUMNS)).eval()


def test_a_renamed_head_takes_the_place_of_the_one_that_had_its_name(heads):
    renamed = heads.renamed({"color": "shop_color"})
    assert dict(renamed.config.columns) == {"shape": ("long",), "color": ("Red", "Navy", "Sky")}
    tokens = torch.randn(5, 3, 4)
    before, after = heads(tokens), renamed(tokens)
    assert torch.equal(after["color"], before["shop_color"])
    assert torch.equal(after["shape"], before["shape"])


def test_one_head_can_predict_two_columns(heads):
    renamed = heads.renamed({"upper": "color", "lower": "color"})
    assert list(renamed.config.columns) == ["shape", "shop_color", "upper", "lower"]
    found = renamed(torch.randn(2, 3, 4))
    assert torch.equal(found["upper"], found["lower"])


def test_a_head_that_is_missing_is_named(heads):
    with pytest.raises(DataError, match=r"no attribute head for 'shop_colour'.*shop_color"):
        heads.renamed({"color": "shop_colour"})

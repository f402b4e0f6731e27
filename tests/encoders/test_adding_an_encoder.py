"""The example of docs/encoders.md, run unchanged."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from dqecir.encoders.encoder import ENCODERS, unit
from dqecir.model.composed_model import ComposedModel, new_model

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"


@pytest.fixture
def example(tmp_path):
    """Yield the example's file, imported as one of the encoders, and unregister it afterwards."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "mean_colour.py"
    path.write_text(code[1], encoding="utf-8")
    specification = importlib.util.spec_from_file_location("mean_colour", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["mean_colour"] = module
    specification.loader.exec_module(module)
    yield module
    del ENCODERS["mean_colour"], sys.modules["mean_colour"]


def test_the_example_composes_and_is_loaded_again(example, model, tmp_path):
    encoder = example.MeanColour(example.MeanColourConfig())
    tokenizer = model.text_encoder.tokenizer
    made = new_model(encoder, tokenizer, model.preprocessing, None, 16, {}).eval()
    again = ComposedModel.from_pretrained(made.save_pretrained(tmp_path / "m"))
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, 2] = 1.0  # a blue picture
    for one in (made, again):
        tokens = one.backbone.image_tokens(pixels)
        query = one.method.embed_query(tokens, one.text_encoder(["is red"])).embeddings[0, 0]
        torch.testing.assert_close(query, unit(torch.tensor([1.0, 0.0, 1.0])))

"""BLIP's text encoder over image tokens equals the published code, and its parts joined by hand."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import BlipTextConfig, BlipTextModel

from dqecir.encoders.blip import BLIP_KEYS, blip_composer_of
from dqecir.errors import CheckpointError, DataError
from tests.methods.lavis_cases import GOLDEN, part, relative

CASE = load_file(GOLDEN / "16_covr_blip.safetensors")
STATE = part(CASE, "state/")
IMAGE, IDS, MASK = (CASE[f"in/{name}"] for name in ("image_tokens", "ids", "mask"))


@pytest.fixture(scope="module")
def composer():
    made = blip_composer_of(STATE)
    report = BLIP_KEYS.load(made, STATE)
    assert report.complete and report.dropped == ("text_encoder.embeddings.position_ids",)
    return made.eval()


def test_queries_and_targets_are_those_of_the_published_code(composer):
    with torch.no_grad():
        assert relative(composer(IMAGE, IDS, MASK), CASE["out/query"]) < 1e-4
        assert relative(composer.embed_target(IMAGE), CASE["out/target"]) < 1e-4


@torch.no_grad()
def test_a_query_is_the_projected_state_of_enc(composer):
    encoder = BlipTextModel(
        BlipTextConfig(
            vocab_size=60,
            hidden_size=128,
            encoder_hidden_size=48,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
        ),
        add_pooling_layer=False,
    ).eval()
    prefix = "text_encoder."
    names = {k.removeprefix(prefix): v for k, v in STATE.items() if k.startswith(prefix)}
    names.pop("embeddings.position_ids")
    encoder.load_state_dict(names)
    text = torch.cat([torch.full((3, 1), 59), IDS[:, 1:]], dim=1)
    everything = torch.ones(IMAGE.shape[:2], dtype=torch.long)
    states = encoder(
        text, attention_mask=MASK, encoder_hidden_states=IMAGE, encoder_attention_mask=everything
    ).last_hidden_state
    by_hand = F.normalize(states[:, 0] @ STATE["text_proj.weight"].T + STATE["text_proj.bias"], dim=-1)
    before = IDS.clone()
    assert torch.allclose(composer(IMAGE, IDS, MASK), by_hand, atol=1e-6)
    assert torch.equal(IDS, before)  # the caller's word pieces keep their [CLS]


@torch.no_grad()
def test_the_last_word_and_every_image_token_are_seen_and_padding_is_not(composer):
    query = composer(IMAGE, IDS, MASK)
    for row, last in enumerate(MASK.sum(dim=1).tolist()):
        other = IDS.clone()
        other[row, last - 1] = (other[row, last - 1] + 1) % 50
        assert not torch.allclose(composer(IMAGE, other, MASK)[row], query[row], atol=1e-3)
    padded = torch.where(MASK == 1, IDS, torch.tensor(7))
    assert torch.allclose(composer(IMAGE, padded, MASK), query, atol=1e-6)
    turned = IMAGE.clone()
    turned[:, -1] += 1.0
    assert (composer(turned, IDS, MASK) - query).abs().amax(dim=1).min() > 1e-3


def test_the_published_sizes_have_their_places():
    shapes = {
        "text_encoder.embeddings.word_embeddings.weight": (30524, 768),
        "text_encoder.embeddings.position_embeddings.weight": (512, 768),
        "text_proj.weight": (256, 768),
        "text_proj.bias": (256,),
        "vision_proj.weight": (256, 1024),
        "vision_proj.bias": (256,),
    }
    norms = ["embeddings"]
    for layer in (f"encoder.layer.{i}" for i in range(12)):
        linear = {"intermediate.dense": (3072, 768), "output.dense": (768, 3072)}
        for kind, read in (("attention", 768), ("crossattention", 1024)):
            linear |= {f"{kind}.self.query": (768, 768), f"{kind}.output.dense": (768, 768)}
            linear |= {f"{kind}.self.key": (768, read), f"{kind}.self.value": (768, read)}
        for name, shape in linear.items():
            shapes[f"text_encoder.{layer}.{name}.weight"] = shape
            shapes[f"text_encoder.{layer}.{name}.bias"] = shape[:1]
        norms += [f"{layer}.{name}" for name in ("attention.output", "crossattention.output", "output")]
    for norm in norms:
        shapes |= {f"text_encoder.{norm}.LayerNorm.{part}": (768,) for part in ("weight", "bias")}
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        made = blip_composer_of(state)
    renamed = {key.replace("_proj.", "_projection."): shape for key, shape in shapes.items()}
    assert {key: tuple(value.shape) for key, value in made.state_dict().items()} == renamed
    config = made.text_encoder.config
    assert (config.num_attention_heads, config.layer_norm_eps, config.hidden_act) == (12, 1e-12, "gelu")


@pytest.mark.parametrize(
    ("image", "ids", "mask", "words"),
    [
        (torch.zeros(3, 7, 40), IDS, MASK, r"\[3, 7, 40\]: give them as \[B, M, 48\]"),
        (torch.zeros(3, 48), IDS, MASK, r"\[3, 48\]"),
        (IMAGE, IDS[:2], MASK[:2], r"3 images need"),
        (IMAGE, IDS, MASK[:, 1:], r"a mask \[3, L\], not \[3, 9\] and \[3, 8\]"),
        (IMAGE, IDS.repeat(1, 3), MASK.repeat(1, 3), "a text has 27 word pieces: give 1 to 24"),
        (IMAGE, IDS[:, :0], MASK[:, :0], "a text has 0 word pieces"),
    ],
)
def test_inputs_of_other_shapes_get_a_sentence(composer, image, ids, mask, words):
    with pytest.raises(DataError, match=words):
        composer(image, ids, mask)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"text_encoder.encoder.layer.0.crossattention.self.key.weight": None}, "that reads images"),
        ({"text_proj.weight": torch.zeros(16)}, r"text_proj.weight has the shape \[16\], and is no matrix"),
        ({"text_encoder.embeddings.word_embeddings.weight": torch.zeros(60, 96)}, "multiple of 64"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(changed, words):
    state = {key: value for key, value in (STATE | changed).items() if value is not None}
    with pytest.raises(CheckpointError, match=words):
        blip_composer_of(state)

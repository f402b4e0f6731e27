"""DQE with attribute values over a dual encoder: heads from descriptions, by hand and in searches."""

import json
import shutil

import pytest
import torch
from torch import nn

from dqecir.encoders.encoder import Encoder, EncoderSizes, TextBatch, unit
from dqecir.errors import DataError
from dqecir.experiments.fit.steps import fit_catalogue
from dqecir.language.vocabulary import Vocabulary, load_vocabulary
from dqecir.methods.dual_values import DualValues, DualValuesOptions
from dqecir.methods.method import MethodContext
from dqecir.methods.prompt_heads import PromptHeads, described_columns, descriptions
from dqecir.methods.scoring import score
from dqecir.methods.value_vectors import SMOOTHING
from dqecir.model.composed_model import ComposedModel
from dqecir.questions.wording import CaptionGenerator
from dqecir.search.opening import model_of_index
from dqecir.search.retriever import ComposedRetriever
from tests.encoders.dual_cases import write_clip

COLOURS = {"red": 0, "green": 1, "blue": 2}
VOCABULARY = Vocabulary.model_validate(
    {
        "name": "tint",
        "columns": {
            "tint": {
                "values": {"red": ["red"], "green": ["green"], "blue": ["blue"], "other": ["odd"]},
                "statements": ["is {value}", "in {value}", "is more {value}"],
            }
        },
    }
)


class Tints(Encoder):
    """An encoder whose images are colours and whose texts are the named colours; a fourth number
    identifies images.
    """

    kind = "tints"
    provides = frozenset({"tokens", "image", "text"})

    def __init__(self):
        super().__init__(None)
        self.sizes = EncoderSizes(image=8, token_count=1, token_width=4, embedding=4)
        self.tower = nn.Flatten()
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def pooled_image(self, tokens):
        return tokens[:, 0]

    def pooled_text(self, text):
        named = [[float(colour in words.split()) for colour in COLOURS] + [0.01] for words in text.texts]
        return torch.tensor(named)


class Words:
    vocabularies = (VOCABULARY,)

    def __call__(self, texts, blank=False):
        count = len(texts)
        return TextBatch(torch.zeros(count, 1), torch.ones(count, 1), torch.zeros(count, 1, 1), tuple(texts))


def pictures(*colours, shape=0.5):
    """Return image tokens [N, 1, 4]; all are somewhat red, because photos also have a common part."""
    rows = torch.full((len(colours), 1, 4), 0.1)
    for row, colour in enumerate(colours):
        rows[row, 0, COLOURS[colour]] += 0.6
        rows[row, 0, 0] += 0.4
        rows[row, 0, 3] = shape
    return rows


@pytest.fixture
def method():
    context = MethodContext(vocabularies=(VOCABULARY,), text_encoder=Words())
    made = DualValues.from_context(Tints(), DualValuesOptions(attributes=("tint",)), context)
    gallery = pictures("red", "green", "blue")
    made.fit_targets([gallery[:2], gallery[2:]])
    return made.eval()


def test_descriptions_are_the_vocabularys_statements_in_frames():
    columns = described_columns([VOCABULARY])
    assert columns == {"tint": ("red", "green", "blue")}
    wording = CaptionGenerator([VOCABULARY], columns)
    assert descriptions(wording, "tint", "red") == [
        "is red",
        "a photo of a product: is red",
        "in red",
        "a photo of a product: in red",
    ]


@pytest.mark.parametrize("name", ["colour", "shape", "pattern", "form", "object_colour"])
def test_every_value_of_a_shipped_vocabulary_is_described(name):
    columns = described_columns([load_vocabulary(name)])
    wording = CaptionGenerator([load_vocabulary(name)], columns)
    for column, values in columns.items():
        said = [tuple(descriptions(wording, column, value)) for value in values]
        assert all(said) and len(set(said)) == len(said)
        assert not any("{" in text for own in said for text in own if text)


def test_calibration_takes_off_what_all_images_have_in_common(method):
    # Without it the green picture, which is somewhat red too, would be half red.
    images = unit(pictures("green", "red", "blue")[:, 0])
    [shown] = method.prompts(images, torch.tensor(0.1))
    assert shown.argmax(dim=1).tolist() == [1, 0, 2]
    directions = torch.eye(4)[:3] + torch.tensor([0, 0, 0, 0.01])
    right = (images @ unit(directions).T - (images @ unit(directions).T).mean(dim=0)) / 0.1
    torch.testing.assert_close(shown, right.softmax(dim=1))


def test_the_score_is_base_plus_log_likelihood_of_what_is_asked(method):
    reference, targets = pictures("red"), pictures("red", "green", "blue")
    query = method.embed_query(reference, Words()(["is green"]))
    found = score(query.embeddings, method.embed_target(targets), "dot")[0]
    images = unit(targets[:, 0])
    base = unit(images[:1] + unit(torch.tensor([[0, 1.0, 0, 0.01]])))[0]
    [shown] = method.prompts(images, torch.tensor(0.1))
    term = (shown[:, 1] / SMOOTHING).log1p() - (shown[0, 1] / SMOOTHING).log1p()
    rises = images @ base - images[0] @ base + 0.05 * term
    torch.testing.assert_close(found - found[0], rises, atol=0.01, rtol=0)
    assert found.argmax() == 1
    assert query.parts.asked.tolist() == [[1.0]]


def test_a_column_that_is_not_asked_of_keeps_the_references_values(method):
    query = method.embed_query(pictures("blue"), Words()(["has a zip"]))
    assert query.parts.asked.tolist() == [[0.0]]
    assert query.parts.weights.tolist() == [[0.25]]
    [wanted], [shown] = query.parts.wanted, method.prompts(unit(pictures("blue")[:, 0]), torch.tensor(0.1))
    torch.testing.assert_close(wanted, shown)


def test_a_blank_text_asks_for_what_is_alike(method):
    query = method.embed_query(pictures("blue"), Words()([""]))
    torch.testing.assert_close(query.parts.base[:, 0, :4], unit(pictures("blue")[:, 0]))


def test_without_a_gallery_the_descriptions_are_not_used():
    context = MethodContext(vocabularies=(VOCABULARY,), text_encoder=Words())
    made = DualValues.from_context(Tints(), DualValuesOptions(attributes=("tint",)), context)
    with pytest.raises(DataError, match="build an index with it"):
        made.embed_target(pictures("red"))


def test_prompt_heads_of_an_encoder_and_their_columns_are_one_set():
    heads = PromptHeads({"a": ["x", "y"], "b": ["u", "v", "w"]}, 4)
    first, second = heads(torch.randn(5, 4), torch.tensor(0.1))
    assert (first.shape, second.shape) == ((5, 2), (5, 3))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


def test_one_option_gives_an_index_attributes_without_labels(clip, garments_folder, tmp_path, dqecir):
    shop, index = tmp_path / "shop", tmp_path / "i"
    shop.mkdir()
    for path in sorted((garments_folder / "images").iterdir())[:12]:
        shutil.copy(path, shop / path.name)
    code, _, err = dqecir(
        *("index", "build", "--encoder", clip, "--images", shop, "--out", index, "--method", "dual_values")
    )
    assert code == 0, err
    picture = sorted(shop.iterdir())[0]
    asked = ("search", "--index", index, "--image", picture, "--text", "is red with a zip", "-k", 3)
    code, out, err = dqecir(*asked, "--weight", "colour=2", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert [(one["attribute"], one["value"]) for one in said["asked"]] == [("color", "red")]
    assert said["unread"] == [] and not said["alike"], "the encoder reads the whole text"
    assert said["attribute_weights"]["colour"] == 2
    assert said["answers"][0]["spoke"]
    code, out, err = dqecir(*asked)
    assert "Read as color: red" in out, out
    model = model_of_index(index)
    retriever = ComposedRetriever.of_index(index)
    assert retriever.index.header.tokens == 1
    stored = retriever.index.tokens([picture.name]).float()
    [own] = ComposedRetriever(model).encode_images([picture])
    torch.testing.assert_close(stored[0], own, atol=5e-3, rtol=1e-3)


def test_heads_with_labels_take_the_place_of_descriptions(clip, garments_folder, tmp_path):
    fit_catalogue(garments_folder, tmp_path / "out", str(clip), quiet=True)
    fitted = ComposedModel.from_pretrained(tmp_path / "out" / "run" / "best")
    assert isinstance(fitted.method, DualValues)
    assert fitted.method.prompts is None and not fitted.method.learns_gallery
    assert set(fitted.method.columns) <= set(fitted.heads.config.columns)
    found = ComposedRetriever(fitted).open_index(tmp_path / "out" / "index")
    response = found.search(sorted((garments_folder / "images").iterdir())[0], "has short sleeves", k=3)
    assert [one.attribute for one in response.reading.requested] == ["sleeves"]

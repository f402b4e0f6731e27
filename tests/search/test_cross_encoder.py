"""Cross encoders as rerankers: a tiny Qwen3-VL scores pairs as sentence-transformers does."""

import shutil
import sys

import pytest
import torch
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from dqecir.data.images import load_image
from dqecir.encoders.tokenizer import train_word_pieces
from dqecir.errors import CheckpointError
from dqecir.search.cross_encoder import INSTRUCTION, CrossEncoderReranker
from dqecir.search.engine import SearchEngine
from dqecir.search.response import SearchResponse, TextReading
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import SearchRequest, WeightedReference
from tests.encoders.dual_cases import pictures

sentence_transformers = pytest.importorskip("sentence_transformers", reason="the extra embedders is absent")

MARKS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
TEMPLATE = """{% for message in messages %}{{ message.role }}: {% for part in message.content %}
{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}
{%- endfor %} {% endfor %}"""


class Processor(transformers.Qwen3VLProcessor):
    """The processor of Qwen3-VL without videos, which need torchvision."""

    def check_argument_for_proper_class(self, name, argument):
        return type(argument)

    def save_pretrained(self, folder, **options):
        self.tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    place = tmp_path_factory.mktemp("pieces")
    words = "yes no is red blue dress has long sleeves system query document user retrieve the image"
    train_word_pieces([words] * 3, 200).save_pretrained(place)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    images = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    return Processor(images, tokenizer, None, chat_template=TEMPLATE)


@pytest.fixture
def folder(processor, tmp_path_factory, monkeypatch):
    """Return a tiny random Qwen3-VL as a cross encoder; its score is the logit of yes minus that of no."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda *names, **options: processor)
    place = tmp_path_factory.mktemp("reranker")
    tokenizer = processor.tokenizer
    image, video, start, end, yes, no = tokenizer.convert_tokens_to_ids([*MARKS, "yes", "no"])
    rotary = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    sizes = {"hidden_size": 32, "intermediate_size": 48}
    config = transformers.Qwen3VLConfig(
        text_config={
            **sizes, "vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "rope_parameters": rotary,
        },
        vision_config={
            **sizes, "depth": 2, "num_heads": 4, "patch_size": 16, "out_hidden_size": 32,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen3VLForConditionalGeneration(config)
    for weights in model.parameters():
        weights.data.mul_(3)  # so that pictures differ
    model.save_pretrained(place / "qwen")
    modules = [Transformer(str(place / "qwen"), transformer_task="any-to-any"), LogitScore(yes, no)]
    sentence_transformers.CrossEncoder(modules=modules, device="cpu").save_pretrained(str(place / "tiny"))
    return place / "tiny"


def test_scores_are_those_of_the_published_classes(folder, processor, garments):
    reranker = CrossEncoderReranker.from_pretrained(str(folder), "cpu")
    request = SearchRequest(image=garments.image_paths[0], text="is red")
    response = SearchResponse((), TextReading(), {}, {}, (), 0, 0)
    candidates = pictures(3)
    scores = reranker(request, response, candidates)
    model = reranker.model[0].model
    yes, no = processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    for picture, found in zip(candidates, scores, strict=True):
        query = {"text": "is red", "image": load_image(garments.image_paths[0])}
        features = reranker.model.preprocess([(query, picture)], prompt=INSTRUCTION)
        given = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
        with torch.no_grad():
            logits = model(**{k: v for k, v in given.items() if k != "num_images_per_sample"}).logits[0, -1]
        assert found == pytest.approx(float((logits[yes] - logits[no]).sigmoid()), abs=1e-4)
    assert len(set(scores)) == 3
    assert reranker(request, response, []) == []


def test_pairs_are_the_query_with_each_candidate(folder, model, garments, tmp_path, monkeypatch):
    retriever = ComposedRetriever(model)
    retriever.build_index(list(garments.image_paths[:6]), tmp_path / "index", quiet=True)
    reranker = CrossEncoderReranker.from_pretrained(str(folder), "cpu")
    seen = []

    def noting(pairs, **options):
        seen.append((pairs, options["prompt"]))
        return torch.arange(float(len(pairs)))

    monkeypatch.setattr(reranker.model, "predict", noting)
    engine = SearchEngine(model, retriever.index, reranker=reranker)
    item = garments.image_paths[0].as_posix()
    requests = [
        SearchRequest(item=item, text="is red", rerank=4),
        SearchRequest(item=item, rerank=4),
        SearchRequest(text="is red", rerank=4),
        SearchRequest(text="is red", references=(WeightedReference(item=item),), rerank=4),
        SearchRequest(item=item, text="with long sleeves", earlier=("is red",), rerank=4),
    ]
    plain = engine.search(SearchRequest(item=item, text="is red")).results
    found = [engine.search(request) for request in requests]
    assert [one.id for one in found[0].results] == [one.id for one in (*plain[:4][::-1], *plain[4:])]
    queries = [pairs[0][0] for pairs, _ in seen]
    assert queries[0]["text"] == "is red" and queries[0]["image"].size == queries[1].size
    assert queries[2] == "is red" and queries[3]["text"] == "is red"
    assert queries[4]["text"] == found[4].reading.together != ""
    assert [len(pairs) for pairs, _ in seen] == [4] * 5 and {prompt for _, prompt in seen} == {INSTRUCTION}


def test_the_command_takes_a_reranker(folder, model, garments, tmp_path, dqecir):
    retriever = ComposedRetriever(model)
    retriever.build_index(list(garments.image_paths[:6]), tmp_path / "index", quiet=True)
    saved = model.save_pretrained(tmp_path / "model")
    asked = ("search", "--index", tmp_path / "index", "--model", saved, "--image", garments.image_paths[8])
    code, out, err = dqecir(*asked, "--text", "is red", "-k", 2, "--rerank", 4, "--reranker", folder)
    assert code == 0, err
    assert len(out.splitlines()) >= 2
    code, _, err = dqecir(*asked, "--rerank", 4, "--reranker", tmp_path / "model")
    assert code == 1 and "modules.json" in err


def test_what_is_no_reranker_is_refused(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copied")
    (copy / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "own.Module"}]')
    with pytest.raises(CheckpointError, match="needs code of its own"):
        CrossEncoderReranker.from_pretrained(str(copy))
    shutil.copy(folder / "modules.json", copy)
    next(copy.rglob("*.safetensors")).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be read as a reranker"):
        CrossEncoderReranker.from_pretrained(str(copy))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(CheckpointError, match=r"pip install 'dqecir\[embedders\]'"):
        CrossEncoderReranker.from_pretrained(str(folder))

"""Tiny random dual encoders in folders as transformers writes them, with newly trained tokenizers."""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

CORPUS = [
    "a photo of a red dress that is longer and has short sleeves",
    "this is a blue shirt with stripes, it costs $ 40 * now",
    "the same thing but darker, with a round neck and no print",
] * 4
TEXTS = ["is red", "has Short sleeves, and is Blue", "a photo of $ that is longer", "darker"]
SIDE, PATCH, LENGTH = 32, 8, 48

VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}
TEXT = {"hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}


def clip_tokenizer():
    """Return a tokenizer like CLIP's: byte pairs between a start and an end token, padded with the end
    token.
    """
    made = transformers.CLIPTokenizer()
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    learner.normalizer = made.backend_tokenizer.normalizer
    learner.pre_tokenizer = made.backend_tokenizer.pre_tokenizer
    special = ["<|startoftext|>", "<|endoftext|>"]
    learner.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    model = json.loads(learner.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for token in special:  # the last ones, as in the published vocabulary
        vocabulary[token] = len(vocabulary)
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(pair) for pair in model["merges"]], model_max_length=LENGTH
    )


def gemma_tokenizer(masked: bool = False, left: bool = False):
    """Return a tokenizer like SigLIP 2's: byte pairs with visible spaces, an end token, padded to one
    length.
    """
    learner = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    learner.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    learner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    learner.decoder = decoders.Replace("▁", " ")
    learner.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", learner.token_to_id("<eos>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=learner,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        bos_token="<bos>",
        mask_token="<mask>",
        model_max_length=LENGTH,
        padding_side="left" if left else "right",
        model_input_names=["input_ids", "attention_mask"] if masked else ["input_ids"],
    )


def louder(model):
    """Give a model random weights that all differ, because transformers initialises many to zero or one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
            if name == "logit_scale":
                parameter.fill_(2.5)
            elif name == "logit_bias":
                parameter.fill_(-3.0)
            else:
                parameter.add_(0.2 * noise)
    return model.eval()


def clip_model(words: int, end: int, kind: str = "clip"):
    configs = {
        "clip": (transformers.CLIPConfig, transformers.CLIPModel),
        "metaclip_2": (transformers.MetaClip2Config, transformers.MetaClip2Model),
        "chinese_clip": (transformers.ChineseCLIPConfig, transformers.ChineseCLIPModel),
    }
    config_type, model_type = configs[kind]
    torch.manual_seed(0)
    text = {**TEXT, "vocab_size": words, "max_position_embeddings": LENGTH + 4}
    if kind != "chinese_clip":
        text |= {"eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}
    else:
        text |= {"pad_token_id": 0}
    return louder(model_type(config_type(text_config=text, vision_config=VISION, projection_dim=18)))


def siglip_model(words: int):
    torch.manual_seed(0)
    text = {
        **TEXT,
        "hidden_size": 24,
        "vocab_size": words,
        "max_position_embeddings": LENGTH,
        "projection_size": 24,
    }
    text |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return louder(transformers.SiglipModel(config))


def clip_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def siglip_processor():
    return SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2)


def write(folder: Path, model, tokenizer, processor, safe: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_clip(folder: Path, kind: str = "clip", legacy: bool = False, safe: bool = True) -> Path:
    """Return a CLIP; with ``legacy``, its config.json has the end token 2, like the first published ones."""
    tokenizer = clip_tokenizer()
    end = tokenizer.eos_token_id
    model = clip_model(len(tokenizer), 2 if legacy else end, kind)
    return write(folder, model, tokenizer, clip_processor(), safe)


def write_siglip(folder: Path, masked: bool = False, left: bool = False) -> Path:
    """Return a SigLIP 2 of a fixed resolution: SigLIP's classes and Gemma's tokenizer."""
    tokenizer = gemma_tokenizer(masked, left)
    return write(folder, siglip_model(len(tokenizer)), tokenizer, siglip_processor())


def pictures(count: int = 3) -> list[Image.Image]:
    """Return pictures of odd sizes."""
    random = np.random.default_rng(5)
    sizes = [(37, 61), (90, 41), (33, 33), (64, 47)]
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes[:count]
    ]

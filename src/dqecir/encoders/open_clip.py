"""Build dual encoders with open_clip's own classes, for architectures that transformers does not have.

MobileCLIP 2 is one of them. open_clip is installed with the extra ``openclip``. Its classes are built with
random weights, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dqecir.encoders.encoder import EncoderSizes
from dqecir.encoders.tokenizer import WordPieces
from dqecir.errors import CheckpointError, reason_of


def describes_open_clip(architecture: Mapping[str, Any]) -> bool:
    """Return whether ``architecture`` is a ``model_cfg`` of open_clip, and not a ``config.json``."""
    return "embed_dim" in architecture and "model_type" not in architecture


class OpenClipTower(nn.Module):
    """An image model of open_clip.

    A model of timm returns tokens, from which its vector is pooled, unless the channels of its map come last
    (NHWC). Any other model returns only its vector, as one token.
    """

    def __init__(self, visual: Any, side: int) -> None:
        """Take ``visual``, an image model that reads squares of ``side`` pixels."""
        super().__init__()
        self.visual = visual.eval()
        trunk = getattr(visual, "trunk", None)
        self.is_split = trunk is not None and getattr(trunk, "output_fmt", "NCHW") == "NCHW"
        self.map_side = 0
        """Side of the map that the tokens form; 0 if they form none."""
        with torch.no_grad():
            pixels = torch.zeros(1, 3, side, side)
            if self.is_split:
                features = visual.trunk.forward_features(pixels)
                self.map_side = features.shape[-1] if features.ndim == 4 else 0
            tokens = self(pixels)
            self.embedding = self.pooled(tokens).shape[1]
        self.token_count, self.token_width = tokens.shape[1:]

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [B, M, W] of normalised pixels [B, 3, S, S]."""
        if not self.is_split:
            vectors: Tensor = self.visual(pixels)
            return vectors[:, None]
        features: Tensor = self.visual.trunk.forward_features(pixels)
        return features.flatten(2).transpose(1, 2) if self.map_side else features

    def pooled(self, tokens: Tensor) -> Tensor:
        """Return the vector [B, D] of each image from its tokens [B, M, W]."""
        if not self.is_split:
            return tokens[:, 0]
        features = tokens.to(next(self.parameters()).dtype)
        if self.map_side:
            features = features.transpose(1, 2).unflatten(2, (self.map_side, self.map_side))
        image: Tensor = self.visual.head(self.visual.trunk.forward_head(features))
        return image


class OpenClipText(nn.Module):
    """A text model of open_clip with the interface of transformers.

    Texts are padded to one length, as in its training; open_clip itself finds out which tokens count.
    """

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None) -> SimpleNamespace:
        """Return the vectors [B, D] of token ids [B, L], in the field ``pooler_output``.

        ``attention_mask`` is ignored.
        """
        return SimpleNamespace(pooler_output=self.text(input_ids))

    def text_model(self, input_ids: Tensor, attention_mask: Tensor | None) -> SimpleNamespace:
        """Return the states [B, L, H] of token ids [B, L], in the field ``last_hidden_state``.

        ``attention_mask`` is ignored.
        """
        found = self.text.forward_intermediates(
            input_ids, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NLC"
        )
        return SimpleNamespace(last_hidden_state=found["text_intermediates"][-1])


class OpenClipParts:
    """Image model and text model of open_clip, with random weights."""

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        """Build the model of a ``model_cfg``.

        Raises :class:`CheckpointError` if that is not possible, and ``ValueError`` if its pictures are not
        squares.
        """
        model = _built(architecture)
        side = image_side(architecture)
        try:
            self.tower = OpenClipTower(model.visual, side)
        except Exception as error:  # timm raises any kind of exception
            raise _no_model(error) from error
        self.text = OpenClipText(model.text)
        self.words: nn.Embedding = model.text.token_embedding
        self.text_length = int(model.text.context_length)
        self.untraced = [json.dumps(architecture, sort_keys=True)]
        self.sizes = EncoderSizes(
            image=side,
            token_count=self.tower.token_count,
            token_width=self.tower.token_width,
            grid_side=self.tower.map_side,
            embedding=self.tower.embedding,
            vocabulary=self.words.num_embeddings,
            word_width=self.words.embedding_dim,
        )


def image_side(architecture: Mapping[str, Any]) -> int:
    """Return the side in pixels of the squares that a ``model_cfg`` reads.

    Raises ``ValueError`` if its pictures are not squares, and ``KeyError`` if it has no ``vision_cfg``.
    """
    size = architecture["vision_cfg"].get("image_size", 224)
    sides = {int(one) for one in (size if isinstance(size, list) else [size])}
    if len(sides) != 1:
        raise ValueError(f"pictures of {size} pixels are not squares")
    return sides.pop()


def own_tokenizer(architecture: Mapping[str, Any]) -> WordPieces:
    """Return the tokenizer that the package open_clip contains.

    Raises :class:`CheckpointError` if open_clip is not installed or cannot be loaded.
    """
    from transformers import CLIPTokenizer  # slow to import

    known = _library(architecture).tokenizer.SimpleTokenizer()
    vocabulary = dict(known.encoder)
    for place, name in ((known.sot_token_id, "<|startoftext|>"), (known.eot_token_id, "<|endoftext|>")):
        del vocabulary[known.decoder[place]]
        vocabulary[name] = place
    made = CLIPTokenizer(vocab=vocabulary, merges=list(known.bpe_ranks))
    with tempfile.TemporaryDirectory() as scratch:
        made.save_pretrained(scratch)
        return WordPieces.from_pretrained(Path(scratch))


def _built(architecture: Mapping[str, Any]) -> Any:
    """Return the open_clip model of a ``model_cfg``, with random weights."""
    try:
        vision, text = dict(architecture["vision_cfg"]), dict(architecture["text_cfg"])
        name, reader = vision.get("timm_model_name"), text.get("hf_model_name")
        if reader:
            raise CheckpointError(
                f"the encoder reads texts by {reader}, which open_clip downloads: name an encoder that "
                "contains its text model"
            )
        library = _library(architecture)
        if name:
            from timm import is_model

            # timm would download a model whose name contains a colon.
            if not is_model(name):
                raise CheckpointError(f"timm has no model {name}: pip install -U timm")
            vision["timm_model_pretrained"] = False
        settings = {key: value for key, value in architecture.items() if key != "custom_text"}
        return library.CustomTextCLIP(**{**settings, "vision_cfg": vision, "text_cfg": text})
    except CheckpointError:
        raise
    except Exception as error:  # open_clip raises any kind of exception
        raise _no_model(error) from error


def _no_model(error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the configuration describes no model of open_clip ({reason_of(error)}): copy it again"
    )


def _library(architecture: Mapping[str, Any]) -> Any:
    """Import open_clip.

    Raises :class:`CheckpointError` if the extra is not installed, or if its torchvision cannot be loaded.
    """
    if find_spec("open_clip") is None:
        tower = architecture["vision_cfg"].get("timm_model_name") or "settings of its own"
        raise CheckpointError(
            f"the encoder is a model of open_clip with {tower}, for which transformers has no class: "
            'pip install "dqecir[openclip]"'
        )
    try:
        import open_clip  # slow to import, and an extra
    except Exception as error:  # a torchvision of another build raises any kind of exception
        raise CheckpointError(
            f"open_clip does not load, because its torchvision does not fit torch {torch.__version__} "
            f"({reason_of(error)}): install the torchvision of the same release and build as torch"
        ) from error
    return open_clip

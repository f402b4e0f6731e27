"""Dual encoders, which encode images and texts separately into one space: CLIP, SigLIP and others.

Their classes are those of transformers or, for architectures that it does not have, of open_clip. Image and
text become one vector each. Image tokens are those from which the image vector is pooled, so that every
method can use stored tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.encoders.encoder import Encoder, EncoderSizes, TextBatch, register_encoder
from dqecir.encoders.open_clip import OpenClipParts, OpenClipTower, describes_open_clip
from dqecir.errors import CheckpointError, reason_of
from dqecir.settings import Strict

ARCHITECTURES = ("clip", "siglip", "metaclip_2", "chinese_clip")
"""Supported values of ``model_type`` in ``config.json``. SigLIP 2 with a fixed resolution is ``siglip``."""


class DualConfig(Strict):
    """The architecture of a dual encoder, and how its texts are padded."""

    architecture: dict[str, Any]
    """The ``config.json`` of transformers, or the ``model_cfg`` of open_clip, as a map."""
    pad_id: int = 0
    """Id of the padding token."""
    text_length: int = Field(default=77, gt=0)
    """Most tokens of a text with its special tokens; at most the number of positions of the text model."""
    pads_to_length: bool = False
    """Whether every text is padded to ``text_length``, as in the training of SigLIP."""
    pads_left: bool = False
    """Whether texts are padded on the left, as in the training of the encoder."""
    sees_padding: bool = False
    """Whether tokens of a text attend to its padding."""


class VisionTower(nn.Module):
    """A vision model of transformers that returns the tokens from which its image vector is pooled."""

    def __init__(self, vision_model: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [B, M, W] of normalised pixels [B, 3, S, S]."""
        tokens: Tensor = self.vision_model(pixel_values=pixels).last_hidden_state
        return tokens


_WORDS: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("words", default=None)
"""While set: places [B, L], and the word embeddings [B, H] that are used at these places."""


def _with_words(module: nn.Module, ids: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
    replaced = _WORDS.get()
    if replaced is None:
        return embedded
    places, words = replaced
    return torch.where(places[..., None], words[:, None].to(embedded.dtype), embedded)


@contextmanager
def _replaced(places: Tensor, words: Tensor) -> Iterator[None]:
    token = _WORDS.set((places, words))
    try:
        yield
    finally:
        _WORDS.reset(token)


@register_encoder("dual")
class Dual(Encoder):
    """A dual encoder; its vision model is split into a tower and the pooling of its tokens."""

    config_type = DualConfig
    provides = frozenset({"tokens", "image", "text", "text_states", "word_embeddings"})
    text_alone = re.compile(r"^text\.")
    no_image = ("tower.", "temperature", "logit_bias")
    config: DualConfig
    attends = False
    """Whether images are pooled by attention, and not by the first token."""

    def __init__(self, config: DualConfig) -> None:
        super().__init__(config)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.register_buffer("logit_bias", torch.zeros(()))
        if describes_open_clip(config.architecture):
            self._take_open_clip(OpenClipParts(config.architecture))
        else:
            self._take_transformers(_built(config.architecture))

    def _take_open_clip(self, parts: OpenClipParts) -> None:
        self.tower, self.text, self.sizes = parts.tower, parts.text, parts.sizes
        self._untraced = parts.untraced
        self.text_length = min(self.config.text_length, parts.text_length)
        parts.words.register_forward_hook(_with_words)

    def _take_transformers(self, whole: Any) -> None:
        vision, sizes = whole.config.vision_config, whole.config.text_config
        self.pool: nn.Module
        if hasattr(whole.vision_model, "head"):  # attention over normalised tokens
            self.pool, whole.vision_model.head = whole.vision_model.head, nn.Identity()
            class_token, width = 0, vision.hidden_size
        else:  # the first token, normalised
            self.pool, whole.vision_model.post_layernorm = whole.vision_model.post_layernorm, nn.Identity()
            class_token, width = 1, whole.config.projection_dim
        self.attends = class_token == 0
        self.visual_projection: nn.Module = getattr(whole, "visual_projection", nn.Identity())
        self.tower = VisionTower(whole.vision_model)
        for part in ("vision_model", "visual_projection", "logit_scale", "logit_bias"):
            if hasattr(whole, part):
                delattr(whole, part)
        self.text = whole
        whole.text_model.get_input_embeddings().register_forward_hook(_with_words)
        self._untraced = [vision.num_attention_heads, vision.hidden_act, vision.layer_norm_eps]
        self.text_length = min(self.config.text_length, sizes.max_position_embeddings)
        self.sizes = EncoderSizes(
            image=vision.image_size,
            token_count=(vision.image_size // vision.patch_size) ** 2 + class_token,
            token_width=vision.hidden_size,
            embedding=width,
            vocabulary=sizes.vocab_size,
            word_width=sizes.hidden_size,
        )

    @property
    def untraced(self) -> list[Any]:
        return list(self._untraced)

    @property
    def logit_scale(self) -> Tensor:
        """The factor s, a number, of the logits s·cosine + ``logit_bias`` in the encoder's training."""
        return 1 / self.temperature

    def pooled_image(self, tokens: Tensor) -> Tensor:
        if isinstance(self.tower, OpenClipTower):
            return self.tower.pooled(tokens).float()
        tokens = tokens.to(next(self.pool.parameters()).dtype)
        pooled = self.pool(tokens) if self.attends else self.pool(tokens[:, 0])
        image: Tensor = self.visual_projection(pooled)
        return image.float()

    def pooled_text(self, text: TextBatch) -> Tensor:
        return self._features(*self._padded(text.ids, text.mask))

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        padded, attended = self._padded(ids, mask)
        states: Tensor = self.text.text_model(input_ids=padded, attention_mask=attended).last_hidden_state
        return self._turned(states, mask, back=True)[:, : ids.shape[1]]

    def text_with_words(self, ids: Tensor, mask: Tensor, words: Tensor, places: Tensor) -> Tensor:
        padded, attended = self._padded(ids, mask)
        with _replaced(self._turned(self._lengthened(places, False), mask), words):
            return self._features(padded, attended)

    def _features(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        features: Tensor = self.text.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features.float()

    def _padded(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return token ids and attention mask as in the training of the text model.

        The mask is None if the model sees the padding.
        """
        ids = self._lengthened(ids.masked_fill(mask == 0, self.config.pad_id), self.config.pad_id)
        attended = self._turned(self._lengthened(mask, 0), mask)
        return self._turned(ids, mask), None if self.config.sees_padding else attended

    def _lengthened(self, rows: Tensor, value: int | bool) -> Tensor:
        """Pad ``rows`` [B, L] with ``value`` to the fixed length of texts, if there is one."""
        if not self.config.pads_to_length:
            return rows
        return F.pad(rows, (0, max(0, self.text_length - rows.shape[1])), value=value)

    def _turned(self, rows: Tensor, mask: Tensor, back: bool = False) -> Tensor:
        """Move the padding of ``rows`` [B, L, ...] from right to left, if the encoder pads on the left.

        ``back``: move it from left to right again.
        """
        if not self.config.pads_left:
            return rows
        moved = rows.shape[1] - mask.sum(dim=1, keepdim=True)
        places = torch.arange(rows.shape[1], device=rows.device) + (moved if back else -moved)
        places = places % rows.shape[1]
        if rows.ndim == 3:
            return rows.gather(1, places[..., None].expand_as(rows))
        return rows.gather(1, places)


def architecture_of(said: Mapping[str, Any]) -> Any:
    """Return the configuration object of transformers for a ``config.json``.

    Raises :class:`CheckpointError` for an unsupported kind, and for impossible sizes.
    """
    from transformers import CONFIG_MAPPING  # slow to import

    kind = said.get("model_type")
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"the checkpoint is of the kind {kind!r}, has no Q-Former and is not a dual encoder of the "
            f"kinds {', '.join(ARCHITECTURES)} (SigLIP 2 of a fixed resolution is siglip): name another one"
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(dict(said))
    except Exception as error:  # transformers raises any kind of exception
        raise _no_model(kind, error) from error


def _built(architecture: Mapping[str, Any]) -> nn.Module:
    """Return the transformers model of a ``config.json``, with random weights."""
    from transformers import AutoModel  # slow to import

    config = architecture_of(architecture)
    try:
        model: nn.Module = AutoModel.from_config(config)
        if not hasattr(model.vision_model, "head") and not hasattr(model, "visual_projection"):
            raise ValueError("its images have no pooled vector")
    except Exception as error:  # transformers raises any kind of exception
        raise _no_model(config.model_type, error) from error
    return model


def _no_model(kind: str, error: Exception) -> CheckpointError:
    reason = reason_of(error)
    return CheckpointError(f"the config.json describes no {kind} model ({reason}): copy it again")


_ATTENTION, _NORM = "vision_model.head.", "vision_model.post_layernorm."
"""How the names of the pooling of images begin in transformers: by attention, or of the first token."""


def published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a dual encoder, of transformers or open_clip, to the names of :class:`Dual`."""
    attends = any(key.startswith(_ATTENTION) for key in state)
    renamed = {}
    for key, value in state.items():
        if key == "logit_scale":
            renamed["temperature"] = (-value.float()).exp().reshape(())
        elif key == "logit_bias":
            renamed[key] = value.float().reshape(())
        elif not key.endswith("position_ids"):
            renamed[_renamed(key, attends)] = value
    if "logit_bias" not in renamed:
        renamed["logit_bias"] = torch.zeros(())
    return renamed


def published_name(key: str, attends: bool) -> str:
    """Return the published name of a key of :class:`Dual`; ``attends``: images are pooled by attention."""
    if key == "temperature":
        return "logit_scale"
    pool = _ATTENTION if attends else _NORM
    return re.sub(r"^pool\.", pool, re.sub(r"^(tower|text)\.", "", key))


def _renamed(key: str, attends: bool) -> str:
    pool = _ATTENTION if attends else _NORM
    if key.startswith(pool):
        return f"pool.{key.removeprefix(pool)}"
    if key.startswith(("vision_model.", "visual.")):
        return f"tower.{key}"
    return key if key.startswith("visual_projection.") else f"text.{key}"

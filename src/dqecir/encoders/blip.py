"""BLIP's text encoder that attends to image tokens (arXiv 2201.12086); published CoVR composes with it.

The text encoder is that of transformers, with the parameter names of the published state dicts. The names of
the projections differ; :data:`BLIP_KEYS` renames them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dqecir.encoders.checkpoints import PublishedKeys, matrix_sizes
from dqecir.encoders.encoder import unit
from dqecir.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from transformers import BlipTextConfig

_HEAD_WIDTH = 64
_TEXT = "text_encoder"
_DROPOUT = 0.1

BLIP_KEYS = PublishedKeys(
    ((r"^vision_proj\.", r"vision_projection."), (r"^text_proj\.", r"text_projection.")),
    # CoVR's temperature is a fixed 0.07, which its code keeps out of its weights.
    not_needed=r"^visual_encoder\.|position_ids$|^temp$",
)


class BlipComposer(nn.Module):
    """A text encoder whose layers attend to image tokens, with projections to query and target embeddings.

    W is the width of image tokens (1,024 for BLIP-L), D that of embeddings (``size``, 256). Image tokens are
    those of BLIP's tower after its last normalisation, with [CLS] first.
    """

    def __init__(self, config: BlipTextConfig, size: int) -> None:
        from transformers import BlipTextModel  # slow to import

        super().__init__()
        self.text_encoder = BlipTextModel(config, add_pooling_layer=False)
        self.text_projection = nn.Linear(config.hidden_size, size)
        self.vision_projection = nn.Linear(config.encoder_hidden_size, size)

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Compose image tokens [B, M, W] and texts to unit queries [B, D].

        ``ids`` [B, L] int64 are BERT's word pieces, with [CLS] first and padding on the right; ``mask`` [B,
        L] is 1 for a token and 0 for padding. [CLS] is replaced by [ENC], the last token of the vocabulary.
        Raises :class:`DataError` for other shapes, and for texts longer than the encoder has positions.
        """
        self._check_tokens(image)
        config = self.text_encoder.config
        if ids.shape != mask.shape or ids.dim() != 2 or len(ids) != len(image):
            raise DataError(
                f"{len(image)} images need word pieces and a mask [{len(image)}, L], not {list(ids.shape)} "
                f"and {list(mask.shape)}"
            )
        if not 1 <= ids.shape[1] <= config.max_position_embeddings:
            raise DataError(
                f"a text has {ids.shape[1]} word pieces: give 1 to {config.max_position_embeddings}"
            )
        ids = ids.clone()
        ids[:, 0] = config.vocab_size - 1
        states = self.text_encoder(
            ids,
            attention_mask=mask,
            encoder_hidden_states=image,
            is_decoder=False,  # Every word attends to every other; by default the layers are a decoder's.
        ).last_hidden_state
        return unit(self.text_projection(states[:, 0]))

    def embed_target(self, image: Tensor) -> Tensor:
        """Return unit targets [N, D] from the [CLS] of image tokens [N, M, W]; raises :class:`DataError`."""
        self._check_tokens(image)
        return unit(self.vision_projection(image[:, 0]))

    def _check_tokens(self, image: Tensor) -> None:
        width = self.vision_projection.in_features
        if image.dim() != 3 or image.shape[1] < 1 or image.shape[2] != width:
            raise DataError(f"image tokens have the shape {list(image.shape)}: give them as [B, M, {width}]")


def blip_composer_of(state: Mapping[str, Tensor]) -> BlipComposer:
    """Return a composer with random weights and the sizes of a published state dict.

    The number of attention heads cannot be seen in the tensors; 64 numbers for each head are assumed, as in
    BERT. Raises :class:`CheckpointError` if there is no text encoder that attends to images, or if its width
    is not a multiple of 64.
    """
    from transformers import BlipTextConfig

    first, what = f"{_TEXT}.encoder.layer.0", "it holds no text encoder of BLIP that reads images"
    vocabulary, hidden = matrix_sizes(state, f"{_TEXT}.embeddings.word_embeddings.weight", what)
    positions, _ = matrix_sizes(state, f"{_TEXT}.embeddings.position_embeddings.weight", what)
    intermediate, _ = matrix_sizes(state, f"{first}.intermediate.dense.weight", what)
    _, width = matrix_sizes(state, f"{first}.crossattention.self.key.weight", what)
    size, _ = matrix_sizes(state, "text_proj.weight", what)
    if hidden % _HEAD_WIDTH:
        raise CheckpointError(
            f"the checkpoint's text encoder is {hidden} wide, which is no multiple of {_HEAD_WIDTH}: "
            "its number of attention heads is not known; name another checkpoint"
        )
    layers = {found[1] for key in state if (found := re.match(rf"{_TEXT}\.encoder\.layer\.(\d+)\.", key))}
    config = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        encoder_hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=len(layers),
        num_attention_heads=hidden // _HEAD_WIDTH,
        max_position_embeddings=positions,
        hidden_dropout_prob=_DROPOUT,
        attention_probs_dropout_prob=_DROPOUT,
    )
    return BlipComposer(config, size)

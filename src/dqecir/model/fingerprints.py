"""Compute fingerprints: short names of weights and of everything else that a model's results depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from dqecir.data.images import Preprocessing
from dqecir.language.reader_version import READER_VERSION
from dqecir.methods.attribute_heads import AttributeHeads, TextEncoder
from dqecir.methods.method import Method, MethodOptions

TARGET = "target:"
"""Prefix of a fingerprint of target embeddings."""


def tower_fingerprint(state: Mapping[str, Tensor], preprocessing: Preprocessing) -> str:
    """Name a tower's weights and the preprocessing, which stored image tokens depend on."""
    return _digest(json.dumps(preprocessing.to_dict(), sort_keys=True), state)


def target_fingerprint(method: Method, tower: str) -> str:
    """Name everything that target embeddings, and so an index, depend on, and nothing else.

    ``tower`` is the tower's fingerprint. Do not change how this name is computed: existing indexes would
    no longer match their models.
    """
    made_by = {
        "tower": tower,
        "attention heads": method.backbone.untraced,
        "score rule": method.score_rule,
        "shape": method.target_shape,
        "values": list(method.target_values.items()),
    }
    return TARGET + _digest(json.dumps(made_by), method.target_state())


def model_fingerprint(
    method: Method,
    options: MethodOptions,
    heads: AttributeHeads | None,
    encoder: TextEncoder,
    target: str,
    reader: str,
) -> str:
    """Name everything that results depend on: also the composer, the text reader, vocabularies and options.

    ``target`` is the fingerprint of target embeddings, which covers the tower's weights; ``reader`` names the
    weights of the text reader.
    """
    made_by = {
        "target": target,
        "method": method.name,
        # Defaults are left out, so that a new option of the package does not rename older models.
        "options": options.model_dump(mode="json", exclude_defaults=True),
        "heads": heads.config.model_dump(mode="json") if heads is not None else None,
        "reader": [READER_VERSION, reader],
        "vocabularies": [
            known.model_dump(mode="json", exclude_defaults=True) for known in encoder.vocabularies
        ],
        "word pieces": sorted(encoder.tokenizer.vocabulary().items()),
        "max text length": encoder.max_length,
    }
    state = dict(method.state_dict())
    if heads is not None:
        state |= heads.state_dict(prefix="heads.")
    behind = {name: value for name, value in state.items() if not name.startswith("backbone.tower.")}
    return _digest(json.dumps(made_by), behind)


def fingerprint_of_0_1_0(method: Method, tower: str) -> str:
    """Name all weights as version 0.1.0 did for its indexes.

    It is needed to open those indexes.
    """
    return _digest(tower, method.state_dict())


def _digest(head: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(head.encode())
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]

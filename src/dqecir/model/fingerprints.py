"""Fingerprints: short names that change whenever weights, or other things that results depend on, change."""

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
"""How a fingerprint of target embeddings begins."""


def tower_fingerprint(state: Mapping[str, Tensor], preprocessing: Preprocessing) -> str:
    """Return the fingerprint of a tower's weights and the preprocessing, on which image tokens depend."""
    return _digest(json.dumps(preprocessing.to_dict(), sort_keys=True), state)


def target_fingerprint(method: Method, tower: str) -> str:
    """Return the fingerprint of everything that target embeddings depend on, and of nothing else.

    ``tower`` is the fingerprint of the tower. An index stores the result. Do not change how it is computed:
    existing indexes would no longer match their models.
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
    """Return the fingerprint of everything that results depend on.

    ``target`` is the fingerprint of target embeddings, which covers the tower; ``reader`` that of the text
    reader. Added to these are all weights but the tower's, the options, the vocabularies and the tokenizer.
    """
    made_by = {
        "target": target,
        "method": method.name,
        # Leave out defaults, so that a new option does not change the fingerprints of older models.
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
    """Return the fingerprint of all weights, as version 0.1.0 stored it in its indexes.

    It is needed to open these indexes. ``tower`` is the fingerprint of the tower.
    """
    return _digest(tower, method.state_dict())


def _digest(head: str, state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(head.encode())
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]

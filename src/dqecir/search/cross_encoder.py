"""Rerankers by name, among them cross encoders of sentence-transformers that score a query with a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from dqecir.data.images import load_image
from dqecir.encoders.checkpoint_files import located
from dqecir.encoders.embedder_folder import check_modules
from dqecir.errors import CheckpointError, reason_of
from dqecir.io.device import device_named
from dqecir.model.composed_model import ComposedModel
from dqecir.search.reranking import AttributeChecker, Reranker
from dqecir.search.response import SearchResponse
from dqecir.search.search_request import SearchRequest

ATTRIBUTE_HEADS = "attribute-heads"
"""Name of the reranker that uses the model's attribute heads (:class:`AttributeChecker`)."""
INSTRUCTION = "Retrieve the image that shows the reference image changed as the text says."
"""The prompt for rerankers that take one, such as Qwen3-VL-Reranker."""


class CrossEncoderReranker:
    """Score candidate pictures with a cross encoder, a model that reads the query and one picture together.

    The query is the first reference picture and the text of all turns; one of the two may be missing.
    """

    def __init__(self, model: Any, instruction: str | None = INSTRUCTION) -> None:
        """Take a ``CrossEncoder`` of sentence-transformers and its prompt; None: the prompt in its folder."""
        self.model, self.instruction = model, instruction

    @classmethod
    def from_pretrained(cls, name: str, device: str = "auto") -> CrossEncoderReranker:
        """Read a reranker from the hub or a folder, and move it to ``device`` (auto, cpu, cuda or mps).

        ``name`` is OWNER/NAME, OWNER/NAME@REVISION or a folder. Raises :class:`CheckpointError` if a file is
        missing or damaged, if the folder needs its own code or has pickled weights, if the model does not
        read images, or if sentence-transformers is not installed.
        """
        folder, _ = located(name)
        check_modules(folder)
        model = _loaded(folder, str(device_named(device)))
        if not all(model.supports(modality) for modality in ("image", ("image", "text"))):
            raise CheckpointError(
                f"{name} reads {', '.join(map(str, model.modalities))} but not an image with a text: name a "
                "reranker that reads both, such as Qwen/Qwen3-VL-Reranker-2B"
            )
        return cls(model)

    def __call__(
        self, request: SearchRequest, response: SearchResponse, pictures: Sequence[Image.Image]
    ) -> list[float]:
        if not pictures:
            return []
        text = response.reading.together or request.text
        query: Any = text
        if request.image is not None:
            picture = load_image(request.image)
            query = {"text": text, "image": picture} if text.strip() else picture
        pairs = [(query, picture) for picture in pictures]
        scores = self.model.predict(
            pairs, prompt=self.instruction, batch_size=8, show_progress_bar=False, convert_to_tensor=True
        )
        found: list[float] = scores.float().flatten().tolist()
        return found


def reranker_named(name: str, model: ComposedModel) -> Reranker:
    """Return a reranker: ``attribute-heads``, or a cross encoder by its hub name or folder.

    A cross encoder is moved to the device of ``model``; the last one is kept in memory for further calls.
    Raises :class:`DataError` for ``attribute-heads`` if ``model`` has none, and :class:`CheckpointError` as
    :meth:`CrossEncoderReranker.from_pretrained` does.
    """
    if name == ATTRIBUTE_HEADS:
        return AttributeChecker(model)
    return _cross_encoder(name, model.device.type)


@lru_cache(maxsize=1)
def _cross_encoder(name: str, device: str) -> CrossEncoderReranker:
    return CrossEncoderReranker.from_pretrained(name, device)


def _loaded(folder: Path, device: str) -> Any:
    try:
        from sentence_transformers import CrossEncoder  # slow to import, and an extra
    except ImportError:
        raise CheckpointError(
            f"{folder} is a reranker of sentence-transformers, which is not installed: "
            "pip install 'dqecir[embedders]'"
        ) from None
    try:
        return CrossEncoder(str(folder), device=device, trust_remote_code=False, local_files_only=True).eval()
    except Exception as error:  # it raises whatever the mistake makes of its own code
        reason = reason_of(error)
        raise CheckpointError(f"{folder} cannot be read as a reranker ({reason}): copy it again") from error

"""ComposedRetriever: the object a user holds. Encode, index, search, save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from dqecir.data.images import PixelBatch, Refusal, load_batches, load_image
from dqecir.data.triplets import DataError
from dqecir.index.engine import EngineError, Hit, Index, IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.methods.method import Query
from dqecir.model import ComposedModel
from dqecir.progress import track

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")

ImageSource = Path | str | bytes | Image.Image


@dataclass(frozen=True)
class BuildSummary:
    """What became of every picture when an index was built."""

    indexed: int
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class SearchResult:
    """The best items of one query, and the weight that each attribute had in it."""

    hits: tuple[Hit, ...]
    attribute_weights: Mapping[str, float]


class ComposedRetriever:
    """A model and, once built or opened, an index of images to search.

    >>> retriever = ComposedRetriever.from_pretrained()
    >>> retriever.build_index("pictures", "index")  # doctest: +SKIP
    >>> retriever.search("dress.jpg", "is blue and has short sleeves", k=5)  # doctest: +SKIP
    """

    def __init__(self, model: ComposedModel, index: Index | None = None) -> None:
        self.model = model.eval()
        self.index = index

    @classmethod
    def from_pretrained(cls, folder: Path | str | None = None, device: str = "cpu") -> Self:
        """Read a model folder, or the model that ships with the package."""
        return cls(ComposedModel.from_pretrained(folder).to(device))

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the model folder."""
        return self.model.save_pretrained(folder)

    def encode_images(self, images: Sequence[ImageSource], batch_size: int = 64) -> Tensor:
        """Target embeddings [N, n_t, D] of images; raises ``ImageError`` for one that cannot be used."""
        parts = [
            self._embed(torch.stack([self._pixels(image) for image in images[start : start + batch_size]]))
            for start in range(0, len(images), batch_size)
        ]
        if not parts:
            raise DataError("there are no images to encode")
        return torch.cat(parts)

    def encode_query(self, images: Sequence[ImageSource], texts: Sequence[str]) -> Tensor:
        """Query embeddings [B, n_q, D] of reference images with modification texts, one text an image."""
        return self.compose(images, texts).embeddings

    @torch.no_grad()
    def compose(self, images: Sequence[ImageSource], texts: Sequence[str]) -> Query:
        """As :meth:`encode_query`, with the attribute sub-queries and their weights."""
        if len(images) != len(texts):
            raise DataError(
                f"{len(images)} images came with {len(texts)} texts: every query needs one of each"
            )
        if not images:
            raise DataError("there is no query to encode")
        text = self.model.text_encoder([self.model.method.text((text,)) for text in texts]).to(
            self.model.device
        )
        pixels = torch.stack([self._pixels(image) for image in images]).to(self.model.device)
        return self.model.method.embed_query(self.model.backbone.image_tokens(pixels), text)

    def build_index(
        self,
        images: Path | str | Sequence[Path],
        out: Path | str,
        workers: int = 4,
        quiet: bool = False,
    ) -> BuildSummary:
        """Index a folder of pictures (with all its sub-folders), or a list of files.

        Ids are paths relative to the folder, or as they were given. Pictures that cannot be used are
        left out and named in the summary. The index takes the place of ``out`` when it is whole.
        """
        root, paths = _pictures(images)
        refusals: list[Refusal] = []
        tokens, size = self.model.method.target_shape
        header = IndexHeader(
            model=self.model.fingerprint,
            tokens=tokens,
            size=size,
            score_rule=self.model.method.score_rule,
        )

        def batches() -> Iterator[ItemBatch]:
            found = load_batches(paths, self.model.preprocessing, refusals, workers=workers)
            for batch in _with_progress(found, len(paths), quiet):
                chosen = [paths[position] for position in batch.positions]
                payloads: list[Mapping[str, Any]] = [{"path": str(path.resolve())} for path in chosen]
                yield ItemBatch(
                    [_item_id(path, root) for path in chosen], self._embed(batch.pixels), payloads
                )

        try:
            self.index = ExactIndex.build(Path(out), header, batches())
        except EngineError as error:
            if refusals and len(refusals) == len(paths):
                raise EngineError(
                    f"none of {len(paths)} pictures could be used; the first: {refusals[0].reason}"
                ) from error
            raise
        return BuildSummary(len(self.index), tuple(refusals))

    def open_index(self, folder: Path | str) -> Self:
        """Open an index that this model built; raises :class:`EngineError` for another's."""
        index = ExactIndex.open(Path(folder))
        index.check_model(self.model.fingerprint)
        self.index = index
        return self

    def search(self, image: ImageSource, text: str, k: int = 10, exclude: Sequence[str] = ()) -> SearchResult:
        """The ``k`` items that show ``image`` changed as ``text`` says.

        The reference itself is not found where the index holds it under its path; ``exclude`` names
        further ids.
        """
        if self.index is None:
            raise EngineError("there is no index: call build_index or open_index first")
        query = self.compose([image], [text])
        hits = self.index.search(query.embeddings.cpu(), k + 1, [list(exclude)])[0]
        if isinstance(image, Path | str):
            own = str(Path(image).resolve())
            hits = [hit for hit in hits if hit.payload.get("path") != own]
        return SearchResult(tuple(hits[:k]), self.attribute_weights(query)[0])

    def attribute_weights(self, query: Query) -> list[dict[str, float]]:
        """For each query, the weight of each attribute's sub-query; empty where a method has none."""
        rows = query.embeddings.shape[0]
        if query.attribute_weights is None:
            return [{} for _ in range(rows)]
        names = [vocabulary.name for vocabulary in self.model.vocabularies]
        return [dict(zip(names, row, strict=True)) for row in query.attribute_weights.tolist()]

    def _pixels(self, image: ImageSource) -> Tensor:
        return self.model.preprocessing(load_image(image))

    @torch.no_grad()
    def _embed(self, pixels: Tensor) -> Tensor:
        tokens = self.model.backbone.image_tokens(pixels.to(self.model.device))
        return self.model.method.embed_target(tokens).cpu()


def _pictures(images: Path | str | Sequence[Path]) -> tuple[Path | None, list[Path]]:
    if not isinstance(images, Path | str):
        return None, [Path(path) for path in images]
    root = Path(images)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    paths = sorted(
        path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not paths:
        raise DataError(f"the folder {root} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return root, paths


def _item_id(path: Path, root: Path | None) -> str:
    return path.as_posix() if root is None else path.relative_to(root).as_posix()


def _with_progress(batches: Iterator[PixelBatch], images: int, quiet: bool) -> Iterator[PixelBatch]:
    return track(batches, "indexing, 64 images a batch", -(-images // 64), quiet)

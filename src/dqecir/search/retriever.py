"""ComposedRetriever, the main class of the package: encode, index, search, save."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from dqecir.data.column_roles_file import read_roles, write_roles
from dqecir.data.images import ImageSource, load_batches
from dqecir.data.picture_files import Refusal
from dqecir.data.picture_root import read_root, write_root
from dqecir.encoders.store import TokenStore
from dqecir.errors import DataError, EngineError, listed
from dqecir.index.contract import Index, IndexHeader, ItemBatch
from dqecir.index.engines import engine_for, open_index
from dqecir.index.filters import parse_filter
from dqecir.io.device import device_named
from dqecir.io.progress import track
from dqecir.methods.method import Query
from dqecir.model.compose import QueryComposer, Reference
from dqecir.model.composed_model import ComposedModel
from dqecir.model.maker import Maker, read_maker, write_maker
from dqecir.search.engine import SearchEngine
from dqecir.search.opening import learned_of, model_of_index, untrained
from dqecir.search.pictures import Pictures
from dqecir.search.reranking import Reranker
from dqecir.search.response import SearchResponse, SearchResult
from dqecir.search.search_request import SearchRequest, WeightedReference
from dqecir.search.steering import Steering, attribute_weights, steered
from dqecir.search.updating import UpdateSummary, plan_update

_SAMPLE = 1024
"""Number of pictures that a method may see before it embeds a gallery."""

_Embedded = tuple[Sequence[int], Tensor]
"""Positions of B pictures in a list, and their target embeddings [B, n_t, D]."""


@dataclass(frozen=True)
class BuildSummary:
    """The result of building or extending an index; ``indexed`` is the number of indexed pictures."""

    indexed: int
    refusals: tuple[Refusal, ...]
    """Files and folders that were left out, and why."""
    warnings: tuple[str, ...] = ()
    """Sentences about suspicious cells of the table."""


class ComposedRetriever:
    """A model, and the index that it has built or opened, if any.

    >>> retriever = ComposedRetriever.from_pretrained()
    >>> retriever.build_index("pictures", "index")  # doctest: +SKIP
    >>> retriever.search("dress.jpg", "is blue and has short sleeves", k=5)  # doctest: +SKIP
    """

    def __init__(self, model: ComposedModel, index: Index | None = None, maker: Maker | None = None) -> None:
        """Take a model, an index of that model, and a description of encoder and method for new indexes.

        ``index`` is None until one is built or opened. ``maker`` is the description (:meth:`from_encoder`);
        None for a model folder.
        """
        self.model = model.eval()
        self.index = index
        self.maker = maker
        self._composer = QueryComposer(model)
        self._search: SearchEngine | None = None
        self.reranker: Reranker | None = None
        """A :class:`Reranker`, which scores the first candidates of a search again; None: none. Set it before
        the first search."""

    @classmethod
    def from_pretrained(cls, folder: Path | str | None = None, device: str = "cpu") -> Self:
        """Read a model folder (default: the shipped model) to ``device``: auto, cpu, cuda or mps.

        Raises :class:`DataError` if the folder cannot be read.
        """
        return cls(ComposedModel.from_pretrained(folder).to(device_named(device)))

    @classmethod
    def from_encoder(
        cls,
        encoder: str,
        method: str | None = None,
        options: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> Self:
        """Make a retriever from a published encoder and a method that needs no training.

        ``encoder`` is a hub name (OWNER/NAME or OWNER/NAME@REVISION) or a folder (CLIP, SigLIP, DINOv2, ...).
        Default of ``method``: ``image_plus_text``; ``read_together`` for an encoder that reads texts only
        together with images; ``token_mean`` for one that reads none. ``options`` are those of the method. An
        index that the retriever builds stores encoder and method. ``device`` is auto, cpu, cuda or mps.
        Raises :class:`DataError` for a method that must be trained first, or that needs more than the encoder
        provides.
        """
        model, maker = untrained(encoder, method, options or {})
        return cls(model.to(device_named(device)), maker=maker)

    @classmethod
    def of_index(cls, folder: Path | str, model: Path | str | None = None, device: str = "cpu") -> Self:
        """Open the index in ``folder``, and read the model folder ``model``.

        Default of ``model``: the encoder that the index stores, else the shipped model. ``device`` is auto,
        cpu, cuda or mps. Raises :class:`DataError` if the index or the model cannot be read, and
        :class:`EngineError` if another model made the index.
        """
        maker = read_maker(Path(folder)) if model is None else None
        return cls(model_of_index(Path(folder), model).to(device_named(device)), maker=maker).open_index(
            folder
        )

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the model to a folder that :meth:`from_pretrained` reads; return the folder."""
        return self.model.save_pretrained(folder)

    def encode_images(self, images: Sequence[ImageSource], batch_size: int = 64) -> Tensor:
        """Return target embeddings [N, n_t, D] of N images: n_t vectors of width D for each.

        ``batch_size`` images are encoded at a time. Raises ``ImageError`` if an image cannot be used, and
        :class:`DataError` if the list is empty.
        """
        if not images:
            raise DataError("the list of images is empty: give at least one image to encode")
        starts = range(0, len(images), batch_size)
        parts = (self._references(images[start : start + batch_size]) for start in starts)
        return torch.stack([one for part in parts for one in self._composer.target_embeddings(part)])

    def encode_query(self, images: Sequence[ImageSource], texts: Sequence[str]) -> Tensor:
        """Return query embeddings [B, n_q, D] of B images and texts: n_q vectors of width D for each pair.

        Raises as :meth:`compose`.
        """
        return self.compose(images, texts).embeddings

    def compose(self, images: Sequence[ImageSource], texts: Sequence[str]) -> Query:
        """Compose a query from each of B images and its text; all B are in the result.

        If the method has them, the result also has the part of each attribute in the queries, and its weight.
        An empty text asks for images like the reference. Raises :class:`DataError` if the lists are empty or
        differ in length, and ``ImageError`` if an image cannot be used.
        """
        if len(images) != len(texts):
            raise DataError(
                f"{len(images)} images came with {len(texts)} texts: every query needs one of each"
            )
        if not images:
            raise DataError("the lists of images and texts are empty: give at least one of each")
        return self._composer.compose([[one] for one in self._references(images)], texts)

    def build_index(
        self,
        images: Path | str | Sequence[Path],
        out: Path | str,
        workers: int = 4,
        quiet: bool = False,
        engine: str | None = None,
        tokens: Path | str | None = None,
        sheet: str | None = None,
    ) -> BuildSummary:
        """Index a folder of pictures (with all its sub-folders), or a list of files, and keep the index open.

        Ids are paths relative to the folder, or for a list the paths as given. If the folder has a table of
        attributes, its cells become the payloads. Pictures that cannot be used are left out and named in the
        summary. ``out`` is replaced only when the new index is complete. ``engine`` is a name from
        ``dqecir.index.engines``. Default: the engine of the index in ``out``, else ``exact``.

        ``tokens`` is a folder (:class:`TokenStore`) that keeps the image tokens of each picture, so that a
        later index of a model with the same tower need not encode it again. ``sheet`` names a sheet of the
        table's workbook. Default: the first. ``workers`` threads decode pictures; ``quiet`` hides the
        progress. Raises :class:`DataError` if no picture can be used, if the table has mistakes, or if
        ``out`` holds files that are not an index.
        """
        # Compute hashes first, so that a picture that changes meanwhile is encoded again by the next update.
        pictures = Pictures.of(images, sheet).with_contents()
        refusals: list[Refusal] = []
        if self.maker is not None and self.model.method.learns_gallery:
            self._learn(pictures)
        count, size = self.model.method.target_shape
        root = None if pictures.root is None else Path(os.path.abspath(pictures.root))  # noqa: PTH100
        header = IndexHeader(
            model=self.model.target_fingerprint,
            tokens=count,
            size=size,
            score_rule=self.model.method.score_rule,
        )

        try:
            self.index = engine_for(Path(out), engine).build(
                Path(out),
                header,
                self._batches(pictures, root, pictures.has_products, refusals, workers, quiet, tokens),
            )
            write_root(Path(out), root)
            write_maker(Path(out), self.maker, {} if self.maker is None else learned_of(self.model.method))
            write_roles(Path(out), pictures.roles)
        except EngineError as error:
            _check_any_used(pictures, refusals, error)
            raise
        return BuildSummary(len(self.index), (*pictures.left_out, *refusals), pictures.warnings)

    def add_pictures(
        self,
        images: Path | str | Sequence[Path],
        workers: int = 4,
        quiet: bool = False,
        tokens: Path | str | None = None,
    ) -> BuildSummary:
        """Add a folder of pictures, or a list of files, to the open index; ids as in :meth:`build_index`.

        Items with the same ids are replaced. Each batch can be found as soon as it is added. After an
        interruption, call this again with the same arguments. ``workers``, ``quiet`` and ``tokens`` as in
        :meth:`build_index`. Raises :class:`EngineError` if no index is open, or if no picture can be used.
        """
        index = self._opened()
        pictures = Pictures.of(images).with_contents()
        refusals: list[Refusal] = []
        added = 0
        root = read_root(index.folder)
        with_products = pictures.has_products or index.has_products
        for batch in self._batches(pictures, root, with_products, refusals, workers, quiet, tokens):
            index.add(batch)
            added += len(batch.ids)
        write_roles(index.folder, {**pictures.roles, **read_roles(index.folder)})
        _check_any_used(pictures, refusals, None)
        return BuildSummary(added, (*pictures.left_out, *refusals), pictures.warnings)

    def update_index(
        self, images: Path | str, workers: int = 4, quiet: bool = False, sheet: str | None = None
    ) -> UpdateSummary:
        """Bring the open index up to date with the folder or catalogue from which it was built.

        Only new and changed pictures are encoded. Items whose row in the table has changed get new payloads,
        and items that are no longer in the table or the folder are deleted. Items that were added through the
        service or from another folder stay. Searches continue meanwhile; after an interruption, call this
        again. ``images`` is that folder; the other arguments are those of :meth:`build_index`. Raises
        :class:`EngineError` if no index is open, or if the index has no item of the folder.
        """
        index = self._opened()
        index.refresh()
        pictures = Pictures.of(images, sheet).with_contents()
        root = Path(os.path.abspath(images))  # noqa: PTH100
        with_products = pictures.has_products or index.has_products
        plan = plan_update(index, pictures, root, with_products)
        write_root(index.folder, root)
        write_roles(index.folder, {**read_roles(index.folder), **pictures.roles})
        refusals: list[Refusal] = []
        encoded: set[str] = set()
        if plan.encode:
            todo = replace(pictures, pictures=plan.encode)
            for batch in self._batches(todo, root, with_products, refusals, workers, quiet, None):
                index.add(batch)
                encoded.update(batch.ids)
        if plan.payloads:
            index.change_payloads(plan.payloads)
        # As in a build, pictures that cannot be used are not in the index.
        broken = plan.changed - encoded
        removed = index.delete([*plan.gone, *sorted(broken)])
        return UpdateSummary(
            len(encoded - plan.changed),
            len(encoded & plan.changed),
            len(plan.payloads),
            removed,
            plan.unchanged,
            plan.kept,
            (*pictures.left_out, *refusals),
            pictures.warnings,
        )

    def open_index(self, folder: Path | str) -> Self:
        """Open the index in ``folder``; raises :class:`EngineError` if another model made it."""
        index = open_index(Path(folder))
        index.check_model(self.model)
        self.index = index
        return self

    def search(
        self,
        image: ImageSource | None = None,
        text: str = "",
        k: int = 10,
        exclude: Sequence[str] = (),
        where: str | None = None,
        weights: Mapping[str, float] | None = None,
        more: Sequence[str] = (),
        less: Sequence[str] = (),
        explain: bool = False,
        sold_out: bool = False,
        strictness: float = 1.0,
        earlier: Sequence[str] = (),
        references: Sequence[WeightedReference] = (),
        rerank: int = 0,
    ) -> SearchResponse:
        """Return the ``k`` items that are most like ``image`` changed as ``text`` says.

        Without a text, the items most like ``image`` are found. Without an image, the text alone decides: by
        values of columns, words of titles and, if the model has one, the embedding of the text;
        ``reading.decided_by`` of the response names them.

        An ``image`` whose path is an item's is left out of the results, as are the ids in ``exclude``.
        ``where`` is a filter such as ``color in {red, pink} and price < 40``. Numeric constraints of the text
        ("cheaper", "under 40 euros") filter too. Sold-out items are left out unless ``sold_out``.

        ``weights``: attribute -> weight from 0 to 3, instead of the weight that the text gives it. ``more``
        and ``less`` are ids of items that the results should, or should not, resemble; those of ``less`` are
        left out. ``strictness``, from 0 to 3, is how strongly requested values, and the garment that the text
        names or the reference shows, decide; 0: only the model's query decides. ``explain``: whether to
        compute which attributes raised each score. ``earlier`` are the texts of earlier turns: their requests
        stay unless ``text`` changes them ("now in blue") or takes them back ("no, not that"). ``references``
        are further pictures or items; each is composed with the text, and the query is their weighted mean
        (:mod:`dqecir.model.compose`). ``rerank`` is the number of first candidates that :attr:`reranker`
        scores again. Default: none.

        Raises ``FilterError`` if ``where`` cannot be read or names an unknown attribute, and
        :class:`DataError` for an unknown attribute or id, for a number outside its range, or if no index is
        open.
        """
        references = [
            replace(one, item=self._item_of(one.image)) if one.item is None else one for one in references
        ]
        files = [own for own in (image, *(one.image for one in references)) if isinstance(own, Path | str)]
        request = SearchRequest(
            image,
            text,
            # Search one more result for each file, because items that show a reference's file are removed.
            k=k + len(files),
            item=self._item_of(image),
            where=parse_filter(where) if where is not None else None,
            weights=weights or {},
            more=tuple(more),
            less=tuple(less),
            exclude=tuple(exclude),
            explain=explain,
            sold_out=sold_out,
            strictness=strictness,
            earlier=tuple(earlier),
            references=tuple(references),
            rerank=rerank and rerank + len(files),
        )
        response = self._engine().search(request)
        results: Iterable[SearchResult] = map(self._with_whole_path, response.results)
        states = [Path(file).stat() for file in files]
        results = (result for result in results if not _is_any_file(result.payload.get("path"), states))
        return replace(response, results=tuple(islice(results, k)))

    def steer(self, query: Query, steerings: Sequence[Steering]) -> Query:
        """Return the queries changed by the user's settings, one :class:`Steering` for each query.

        See :func:`dqecir.search.steering.steered`.
        """
        names = [vocabulary.name for vocabulary in self.model.vocabularies]
        return steered(query, steerings, names, self.model.method.score_rule)

    def attribute_weights(self, query: Query) -> list[dict[str, float]]:
        """Return attribute -> weight for each query; an empty map if the method has no weights.

        If weights can be set, they are on the scale of :attr:`Steering.weights`.
        """
        names = [vocabulary.name for vocabulary in self.model.vocabularies]
        if query.parts is not None:
            return attribute_weights(query, names)
        if query.attribute_weights is None:
            return [{} for _ in query.embeddings]
        return [dict(zip(names, row, strict=True)) for row in query.attribute_weights.tolist()]

    def _with_whole_path(self, result: SearchResult) -> SearchResult:
        path = self._opened().picture_path(result.payload)
        return result if path is None else replace(result, payload={**result.payload, "path": str(path)})

    def _item_of(self, image: ImageSource | None) -> str | None:
        """Return the id of the item whose picture is the file ``image``; None if there is none."""
        if not isinstance(image, Path | str):
            return None
        index, path = self._opened(), Path(image).resolve()
        # An id is the file's path as given, or relative to a folder.
        ids = [Path(image).as_posix(), *("/".join(path.parts[start:]) for start in range(1, len(path.parts)))]
        known = index.payloads(ids)
        places = ((item_id, index.picture_path(known[item_id])) for item_id in ids if item_id in known)
        return next((item_id for item_id, place in places if place and place.resolve() == path), None)

    def _engine(self) -> SearchEngine:
        index = self._opened()
        if self._search is None or self._search.index is not index:
            self._search = SearchEngine(self.model, index, reranker=self.reranker)
        return self._search

    def _references(self, images: Sequence[ImageSource]) -> list[Reference]:
        return [self._composer.reference(image) for image in images]

    def _opened(self) -> Index:
        if self.index is None:
            raise EngineError("there is no index: call build_index or open_index first")
        return self.index

    def _batches(
        self,
        pictures: Pictures,
        root: Path | None,
        with_products: bool,
        refusals: list[Refusal],
        workers: int,
        quiet: bool,
        tokens: Path | str | None,
    ) -> Iterator[ItemBatch]:
        chosen = []
        for picture in pictures.pictures:
            # Ids must be UTF-8 for HTTP and tables, but file names may be any bytes.
            readable = picture.id.encode(errors="replace").decode()
            if readable == picture.id:
                chosen.append(picture)
            else:
                refusals.append(Refusal(Path(readable), "its name is not UTF-8: rename it"))
        paths = [picture.path for picture in chosen]
        found = (
            self._encoded(paths, refusals, workers)
            if tokens is None
            else self._stored(paths, refusals, Path(tokens), quiet)
        )
        for positions, embedded in track(found, "indexing, 64 images a batch", -(-len(paths) // 64), quiet):
            own = [chosen[position] for position in positions]
            yield ItemBatch(
                [picture.id for picture in own],
                embedded,
                [picture.payload(root, with_products) for picture in own],
            )

    def _learn(self, pictures: Pictures) -> None:
        """Let a method that learns from the gallery see a sample of its readable pictures."""
        paths = [picture.path for picture in pictures.pictures]
        sample = random.Random(0).sample(paths, min(_SAMPLE, len(paths)))
        with torch.no_grad():
            self.model.method.fit_targets(
                self.model.backbone.image_tokens(batch.pixels)
                for batch in load_batches(sample, self.model.preprocessing, [])
            )
        self.model.forget_fingerprints()

    def _encoded(self, paths: Sequence[Path], refusals: list[Refusal], workers: int) -> Iterator[_Embedded]:
        for batch in load_batches(paths, self.model.preprocessing, refusals, workers=workers):
            with torch.no_grad():
                tokens = self.model.backbone.image_tokens(batch.pixels.to(self.model.device))
            yield batch.positions, self._embed_tokens(tokens)

    def _stored(
        self, paths: Sequence[Path], refusals: list[Refusal], folder: Path, quiet: bool
    ) -> Iterator[_Embedded]:
        model = self.model
        positions, store = TokenStore.build_usable(
            folder,
            model.backbone.image_tokens,
            model.tower_fingerprint,
            model.preprocessing,
            paths,
            refusals,
            quiet,
        )
        for rows in torch.arange(len(store)).split(64):
            embedded = self._embed_tokens(store.gather(rows).to(model.device))
            yield [positions[row] for row in rows.tolist()], embedded

    @torch.no_grad()
    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        return self.model.method.embed_target(tokens).cpu()


def _is_any_file(path: Any, files: Sequence[os.stat_result]) -> bool:
    """Return whether ``path`` is one of ``files`` on the disk, also through a link."""
    if not files or not isinstance(path, str):
        return False
    try:
        found = os.stat(path)  # noqa: PTH116  (quicker)
        return any(os.path.samestat(found, file) for file in files)
    except (OSError, ValueError):
        return False


def _check_any_used(pictures: Pictures, refusals: Sequence[Refusal], cause: EngineError | None) -> None:
    if refusals and len(refusals) == len(pictures.pictures):
        reasons = [f"{refusal.path}: {refusal.reason}" for refusal in refusals]
        raise EngineError(f"none of the pictures could be used:{listed(reasons)}") from cause

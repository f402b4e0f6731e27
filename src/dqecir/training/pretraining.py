"""Pretrain a small BLIP-2 on catalogues, from scratch or with a tower of published weights.

Stage 0 trains the tower to classify catalogue attributes; its heads stay in the model. Stage 1 freezes the
tower, and trains the Q-Former by image-text contrast on captions made from the attributes. Contrast without
stage 0 is much worse at the same cost.

The stages are not trained by ``Trainer``, which trains a method on triplets with a frozen tower: it draws
queries, mines negatives, and keeps the best model on dev. Here the tower and the Q-Former are trained, on
pixels and on captions made for each step, without queries, negatives or a dev split. Parameter groups,
autocast, the cosine schedule and the claim of the run folder are shared code.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dqecir.data.augmentation import random_views
from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import has_value, values_of
from dqecir.encoders.blip2 import Blip2, Blip2Config
from dqecir.encoders.checkpoint_files import located
from dqecir.encoders.checkpoints import load_strictly
from dqecir.encoders.efficientnet_weights import load_efficientnet
from dqecir.encoders.known_encoders import origin_of
from dqecir.encoders.licences import Origin
from dqecir.encoders.store import TokenStore
from dqecir.encoders.tokenizer import WordPieces, train_word_pieces
from dqecir.encoders.tower_folder import read_tower
from dqecir.encoders.towers import EfficientNetTower
from dqecir.errors import DataError
from dqecir.io.device import chosen_device, on_cpu
from dqecir.io.files import whole_folder, write_bytes
from dqecir.io.progress import track
from dqecir.io.run_folder import claim
from dqecir.io.stopwatch import Stopwatch, spent_name
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig, TextEncoder
from dqecir.methods.losses import contrastive
from dqecir.methods.scoring import score
from dqecir.model.composed_model import ComposedModel, new_model
from dqecir.questions.wording import CaptionGenerator
from dqecir.settings import Strict
from dqecir.training.calibration import ColumnCalibration, calibrate
from dqecir.training.heads import column_losses
from dqecir.training.loop import autocast, parameter_groups
from dqecir.training.pretraining_data import (
    HELD_OUT,
    LabelledImages,
    as_sources,
    codes_of,
    read_images,
    shared_columns,
    titles_of,
)
from dqecir.training.recipe import ClassificationStage, ContrastStage, PretrainingRecipe
from dqecir.training.replicas import Replicas
from dqecir.training.schedules import cosine_rate

SAVE_EVERY = 50
"""Number of steps between two saved states, from which an interrupted run resumes."""

TITLES = 0.5
"""Probability that the caption of a picture that has a title is this title."""


TokenSet = tuple[np.ndarray, TokenStore, Tensor]
"""Images [N] of a catalogue, their tokens, and their codes [N, C]."""


class PretrainingSettings(Strict):
    """The settings of a run, which its folder stores; ``catalogues`` are names of folders."""

    recipe: PretrainingRecipe
    catalogues: tuple[str, ...]
    split: str


class Pretrainer:
    """Runs both stages of a recipe in one folder; an interrupted run is resumed."""

    def __init__(
        self,
        recipe: PretrainingRecipe,
        catalogues: Sequence[Catalogue],
        split: str,
        work: Path,
        texts: Sequence[str] = (),
        quiet: bool = False,
    ) -> None:
        self.recipe, self.split, self.work, self.quiet = recipe, split, work, quiet
        whole, catalogues = catalogues, as_sources(catalogues, recipe.sources, split, recipe.seed)
        self.titles: list[tuple[str, ...]] = [()] * len(catalogues)
        if isinstance(recipe.sources, tuple):
            self.titles = [titles_of(*pair) for pair in zip(whole, recipe.sources, strict=True)]
        self.catalogues = catalogues
        for name, settings in (
            ("classification.shares", recipe.classification.shares),
            ("classification.strengths", recipe.classification.strengths),
            ("contrast.shares", recipe.contrast.shares),
            ("contrast.views", recipe.contrast.views),
        ):
            if len(settings) != len(catalogues):
                raise DataError(
                    f"the recipe's {name} has {len(settings)} numbers, one for each catalogue, but --data "
                    f"names {len(catalogues)}: name as many catalogues, or change the list in the recipe"
                )
        self.columns = shared_columns(catalogues)
        names = tuple(catalogue.folder.name for catalogue in catalogues)
        claimed = PretrainingSettings(recipe=recipe, catalogues=names, split=split)
        claim(work, "pretraining.json", claimed, "pretraining")
        self.vocabularies = shipped_vocabularies(self.columns)
        self.wordings = [
            CaptionGenerator(self.vocabularies, values_of(catalogue.attributes)) for catalogue in catalogues
        ]
        torch.manual_seed(recipe.seed)
        self.tokenizer = self._train_tokenizer(texts)
        backbone = recipe.backbone.model_copy(update={"vocabulary_size": len(self.tokenizer)})
        self.backbone, origin = _backbone(backbone, recipe.tower_weights)
        self.tower_origin = origin
        width = self.backbone.sizes.token_width
        self.heads = AttributeHeads(HeadsConfig(token_width=width, columns=self.columns))
        self.device = chosen_device()
        self.backbone.to(self.device)
        self.heads.to(self.device)
        self.seconds: dict[str, float] = {}
        self.token_sets: list[TokenSet] = []

    def run(self) -> ComposedModel:
        """Run both stages, and return the model; its method is an untrained sum of image and text."""
        self.classify()
        calibrated = self._calibrate()
        self.contrast()
        notes = {
            "pretraining": self.recipe.model_dump(mode="json"),
            **({} if self.tower_origin is None else {"tower": self.tower_origin.model_dump(mode="json")}),
            "catalogues": [catalogue.folder.name for catalogue in self.catalogues],
            "heads": {column: asdict(found) for column, found in calibrated.items()},
            spent_name(on_cpu()): self.seconds,
        }
        return new_model(
            self.backbone,
            self.tokenizer,
            self.recipe.preprocessing,
            self.heads,
            self.recipe.max_text_length,
            notes,
        ).eval()

    def _train_tokenizer(self, texts: Sequence[str]) -> WordPieces:
        """Train a tokenizer on captions of every catalogue, the shipped vocabularies, and ``texts``.

        It is stored in the run's folder: a second training may number the pieces differently, which a resumed
        run could not use.
        """
        kept = self.work / "tokenizer"
        if kept.exists():
            return WordPieces.from_pretrained(kept)
        rng = random.Random(self.recipe.seed)
        corpus = [word for vocabulary in self.vocabularies for word in sorted(vocabulary.lexicon)] * 20
        for catalogue, wording in zip(self.catalogues, self.wordings, strict=True):
            images = catalogue.split(self.split)
            for image in rng.choices(images.tolist(), k=min(4000, 4 * len(images))):
                corpus.append(wording.portray(_known(catalogue, image), rng))
        for catalogue, titles in zip(self.catalogues, self.titles, strict=True):
            corpus += [titles[image] for image in catalogue.split(self.split).tolist() if titles]
        tokenizer = train_word_pieces([*corpus, *texts], self.recipe.vocabulary_size)
        with whole_folder(kept) as draft:
            tokenizer.save_pretrained(draft)
        return tokenizer

    def classify(self) -> None:
        """Run stage 0: train the tower and the attribute heads, or only the heads if the tower is frozen."""
        stage = self.recipe.classification
        if stage.frozen_tower:
            self.backbone.freeze_tower()
            self._optimise("classification", self.heads, stage, self._learn_heads, average=stage.average)
            return
        modules = nn.ModuleDict({"tower": self.backbone.tower, "heads": self.heads})
        sets: list[LabelledImages] = []
        replicas = Replicas(modules, stage.replicas)

        def learn(step: int) -> Tensor:
            if not sets:
                for place, catalogue in enumerate(self.catalogues):
                    kept = self.work / f"pixels-{place}"
                    sets.append(
                        read_images(
                            catalogue, self.split, self.columns, self.recipe.preprocessing, self.quiet, kept
                        )
                    )
            seeds = np.random.default_rng((self.recipe.seed, step))
            own = float(seeds.beta(stage.mixup, stage.mixup)) if stage.mixup else 1.0

            def loss_of(replica: nn.Module, part: tuple[Sequence[int], int]) -> Tensor:
                assert isinstance(replica, nn.ModuleDict)
                pixels, codes = self._drawn(sets, *part, step)
                others = torch.arange(len(pixels)).roll(1)
                with autocast(self.device, self.recipe.precision):
                    mixed = pixels if own == 1 else own * pixels + (1 - own) * pixels[others]
                    logits = replica["heads"](replica["tower"](mixed))
                losses = [
                    share * torch.stack(column_losses(logits, labels, stage.label_smoothing)).mean()
                    for share, labels in ((own, codes), (1 - own, codes[others]))
                    if share > 0
                ]
                return torch.stack(losses).sum()

            drawn = seeds.integers(2**62, size=stage.replicas).tolist()
            return replicas.learn(loss_of, list(zip(self._parts(), drawn, strict=True)))

        fresh: list[nn.Parameter] = []
        if isinstance(self.backbone.tower, EfficientNetTower):
            published = set(self.backbone.tower.network.parameters())
            fresh = [weight for weight in modules.parameters() if weight not in published]
        self._optimise(
            "classification",
            modules,
            stage,
            learn,
            fast=fresh,
            factor=stage.heads_factor,
            average=stage.average,
        )

    def _learn_heads(self, step: int) -> Tensor:
        """Compute the heads' gradients on stored tokens of random pictures, and return the loss."""
        stage, sets = self.recipe.classification, self._token_sets()
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        tokens, codes = [], []
        for drawn, count in zip(sets, _shares(stage.shares, stage.batch_size), strict=True):
            rows, found = _drawn_tokens(drawn, count, generator)
            tokens.append(found)
            codes.append(drawn[2][rows])
        with autocast(self.device, self.recipe.precision):
            logits = self.heads(torch.cat(tokens).to(self.device))
        loss = torch.stack(column_losses(logits, torch.cat(codes), stage.label_smoothing)).mean()
        loss.backward()
        return loss.detach()

    def _token_sets(self) -> list[TokenSet]:
        """Return the images, tokens and codes of each catalogue; the tower encodes what is not stored yet."""
        stage = self.recipe.classification
        trained = f"stage-0 of seed {self.recipe.seed}, {stage.steps} steps"
        for place, catalogue in list(enumerate(self.catalogues))[len(self.token_sets) :]:
            images = catalogue.split(self.split)
            store = TokenStore.build(
                self.work / f"tokens-{place}",
                self.backbone.eval().image_tokens,
                f"frozen {self.recipe.tower_weights}" if stage.frozen_tower else trained,
                self.recipe.preprocessing,
                [catalogue.image_paths[i] for i in images],
                self.recipe.contrast.views[place],
                self.quiet,
            )
            self.token_sets.append((images, store, codes_of(catalogue, images, self.columns)))
        return self.token_sets

    def _parts(self) -> list[list[int]]:
        """Return for each replica how many pictures of each catalogue it gets in a step."""
        stage = self.recipe.classification
        whole = _shares(stage.shares, stage.batch_size)
        return [
            [len(range(count)[part :: stage.replicas]) for count in whole] for part in range(stage.replicas)
        ]

    def _drawn(
        self, sets: Sequence[LabelledImages], counts: Sequence[int], seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return normalised random views of random pictures [B, 3, S, S], shuffled, and their codes [B, C].

        ``counts``: number of pictures of each of ``sets``. ``seed`` draws pictures and views. In the first
        steps pictures are small, if the recipe says so.
        """
        stage, generator = self.recipe.classification, torch.Generator().manual_seed(seed)
        pixels, codes = [], []
        for images, count, strength in zip(sets, counts, stage.strengths, strict=True):
            if count == 0:
                continue
            rows = torch.randint(len(images.pixels), (count,), generator=generator)
            plain = images.pixels[rows].float() / 255
            if step < stage.small_steps:
                plain = F.interpolate(plain, size=stage.small_size, mode="area")
            pixels.append(random_views(plain, generator, strength, stage.light) if strength > 0 else plain)
            codes.append(images.codes[rows])
        order = torch.randperm(sum(map(len, codes)), generator=generator)
        normalised = self.recipe.preprocessing.normalised(torch.cat(pixels))[order]
        return normalised.to(self.device), torch.cat(codes)[order]

    def _calibrate(self) -> dict[str, ColumnCalibration]:
        """Calibrate the heads on the held-out pictures.

        Return column -> calibration, empty if there are none.
        """

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for catalogue in self.catalogues:
                if len(catalogue.splits.get(HELD_OUT, ())) == 0:
                    continue
                images = read_images(catalogue, HELD_OUT, self.columns, self.recipe.preprocessing, self.quiet)
                for rows in torch.arange(len(images.pixels)).split(64):
                    plain = images.pixels[rows].float() / 255
                    seen = self.recipe.preprocessing.normalised(plain).to(self.device)
                    yield seen, images.codes[rows]

        return calibrate(self.heads, self.backbone.tower, batches())

    def contrast(self) -> None:
        """Run stage 1: train the Q-Former by contrast of images and captions made from their attributes."""
        stage = self.recipe.contrast
        self.backbone.freeze_tower()
        self.backbone.eval()
        encoder = TextEncoder(self.tokenizer, (), self.recipe.max_text_length)

        def learn(step: int) -> Tensor:
            sets = self._token_sets()
            self.backbone.train()
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            place = int(torch.multinomial(torch.tensor(stage.shares), 1, generator=generator))
            images, _, codes = sets[place]
            rows, tokens = _drawn_tokens(sets[place], stage.batch_size, generator)
            tokens = tokens.to(self.device)
            captions, said = self.captions_of(place, images[rows.numpy()], step)
            text = encoder(captions).to(self.device)
            own = codes[rows]
            # A caption names a few attributes, and is right for every image that has them all. A title names
            # no attribute, and is right for images with the same title.
            fits = ((own[:, None] == own[None]) | ~said[:, None]).all(dim=2) & said.any(dim=1)[:, None]
            alike = torch.tensor([[one == other for other in captions] for one in captions])
            fits = (fits | alike).to(self.device)
            targets = torch.arange(len(rows), device=self.device)
            with autocast(self.device, self.recipe.precision):
                scores = score(
                    self.backbone.text_embedding(text.ids, text.mask)[:, None],
                    self.backbone.target_embeddings(tokens),
                    "max_t",
                )  # [caption, image]
                temperature = self.backbone.temperature.clamp(0.01, 0.5)
                loss = 0.5 * (
                    contrastive(scores, targets, temperature, fits)
                    + contrastive(scores.T, targets, temperature, fits.T)
                )
            loss.backward()
            return loss.detach()

        trained = torch.nn.ModuleList(
            [
                self.backbone.ln_vision,
                self.backbone.embeddings,
                self.backbone.qformer,
                self.backbone.vision_projection,
                self.backbone.text_projection,
            ]
        )
        extra = [self.backbone.query_tokens, self.backbone.temperature]
        self._optimise("contrast", trained, stage, learn, extra)
        with torch.no_grad():
            self.backbone.temperature.clamp_(0.01, 0.5)

    def captions_of(self, place: int, images: np.ndarray, step: int) -> tuple[list[str], Tensor]:
        """Return a caption of each of B images, and which columns it mentions [B, C].

        A title mentions none. ``place`` is the catalogue; ``step`` seeds the random choices.
        """
        catalogue, wording = self.catalogues[place], self.wordings[place]
        rng = random.Random(f"{self.recipe.seed} {step}")
        captions, said = [], torch.zeros(len(images), len(self.columns), dtype=torch.bool)
        names = list(self.columns)
        for row, image in enumerate(images.tolist()):
            title = self.titles[place][image] if self.titles[place] else ""
            if title and rng.random() < TITLES:
                captions.append(title)
                continue
            shown = {c: v for c, v in _known(catalogue, image).items() if c in self.columns}
            chosen = rng.sample(sorted(shown), rng.randint(1, len(shown)))
            captions.append(wording.portray({c: shown[c] for c in chosen}, rng))
            said[row, [names.index(c) for c in chosen]] = True
        return captions, said

    def _optimise(
        self,
        name: str,
        modules: nn.Module,
        stage: ClassificationStage | ContrastStage,
        learn: Callable[[int], Tensor],
        extra: Sequence[nn.Parameter] = (),
        fast: Sequence[nn.Parameter] = (),
        factor: float = 1.0,
        average: float = 0.0,
    ) -> None:
        """Run AdamW with a cosine schedule over ``stage.steps``, from the saved state of an interrupted run.

        ``name`` is the stage. ``learn`` computes the gradients of a step, and returns its loss. Trained are
        the parameters of ``modules`` and ``extra``, the latter without weight decay; the parameters ``fast``
        get ``factor`` times the learning rate. ``average`` is the decay of the weights' moving average over
        the second half of the steps; ``modules`` get the average at the end. 0: they keep the last weights.
        """
        groups = parameter_groups(modules, stage.learning_rate, stage.weight_decay, list(fast), factor)
        if extra:
            groups.append({"params": list(extra), "lr": stage.learning_rate, "weight_decay": 0.0})
        rates = [group["lr"] for group in groups]
        optimizer = torch.optim.AdamW(groups)
        log: list[dict[str, float]] = []
        averaged = AveragedModel(modules, multi_avg_fn=get_ema_multi_avg_fn(average), use_buffers=True)
        first = self._resume(name, optimizer, averaged, log)
        watch = Stopwatch(on_cpu())
        watch.seconds = self.seconds.get(name, 0.0)
        modules.train()
        for step in track(range(first, stage.steps), f"pretraining: {name}", quiet=self.quiet):
            watch.start()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * cosine_rate(step, stage.steps, stage.steps // 20, 0.0)
            torch.manual_seed(self.recipe.seed * 1_000_003 + step)
            loss = learn(step)
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if average and step >= stage.steps // 2:
                averaged.update_parameters(modules)
            if step % 50 == 0:
                log.append({"step": step, "loss": float(loss)})
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == stage.steps:
                watch.stop()
                self.seconds[name] = watch.seconds
                self.save(name, step + 1, optimizer, averaged, log)
        if average:
            modules.load_state_dict(averaged.module.state_dict())

    def save(
        self,
        name: str,
        step: int,
        optimizer: torch.optim.Optimizer,
        averaged: AveragedModel,
        log: list[dict[str, float]],
    ) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "step": step,
                "backbone": self.backbone.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizer": optimizer.state_dict(),
                "averaged": averaged.state_dict(),
                "cpu_seconds": self.seconds[name],
                "log": log,
            },
            buffer,
        )
        write_bytes(self.work / f"{name}.pt", buffer.getvalue())

    def _resume(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        averaged: AveragedModel,
        log: list[dict[str, float]],
    ) -> int:
        """Load the saved state of the stage ``name`` into the model and the arguments.

        Return the step at which to continue; 0 if no state is saved.
        """
        path = self.work / f"{name}.pt"
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True, map_location="cpu")
        self.backbone.load_state_dict(saved["backbone"])
        self.heads.load_state_dict(saved["heads"])
        optimizer.load_state_dict(saved["optimizer"])
        averaged.load_state_dict(saved["averaged"])
        self.seconds[name] = saved["cpu_seconds"]
        log.extend(saved["log"])
        return int(saved["step"])


def _backbone(config: Blip2Config, weights: str | None) -> tuple[Blip2, Origin | None]:
    """Return a BLIP-2, with the published ``weights`` of its tower if named, and their origin or None.

    Raises :class:`CheckpointError` if the weights cannot be used.
    """
    if config.tower.kind == "transformers" and weights is not None:
        place, name = located(weights)
        published = read_tower(place)
        side = {"image_size": config.tower.image_size}
        tower = published.config.model_copy(update=side)
        backbone = Blip2(config.model_copy(update={"tower": tower}))
        load_strictly(backbone.tower, published.state)
        return backbone, origin_of(name, place)
    backbone = Blip2(config)
    if weights is not None and isinstance(backbone.tower, EfficientNetTower):
        load_efficientnet(backbone.tower.network, weights)
    return backbone, None


def _drawn_tokens(tokens: TokenSet, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``count`` rows, and return them with their tokens [``count``, M, W] in random views."""
    images, store, _ = tokens
    rows = torch.randint(len(images), (count,), generator=generator)
    views = torch.randint(store.views, (count,), generator=generator)
    return rows, store.gather(rows, views)


def _shares(shares: Sequence[float], batch_size: int) -> list[int]:
    """Split ``batch_size`` in proportion to ``shares``; the first part gets what rounding leaves."""
    counts = [round(batch_size * share / sum(shares)) for share in shares]
    counts[0] += batch_size - sum(counts)
    return counts


def _known(catalogue: Catalogue, image: int) -> dict[str, str]:
    return {
        column: values[image] for column, values in catalogue.attributes.items() if has_value(values[image])
    }

"""A small BLIP-2 on catalogues, from scratch or with a tower that has published weights.

Stage 0 trains the tower by classifying catalogue attributes; its heads are kept. Stage 1 freezes
the tower and trains the Q-Former by image-text contrast on captions made from the attributes.
Contrast from nothing is far behind this order at the same cost.

The stages do not run in the loop of ``Trainer``. That loop trains a method on triplets of one data set
with a frozen tower: it draws queries, mines negatives, and keeps the best model on dev. Here the tower
and the Q-Former themselves are trained, on pixels and on captions that are made for each step, with
neither queries nor negatives nor a dev split. What both need (parameter groups, autocast, the cosine rate,
the claim of the folder) is shared.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dqecir.data.augmentation import random_views
from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import has_value, values_of
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.efficientnet_weights import load_efficientnet
from dqecir.encoders.store import TokenStore
from dqecir.encoders.tokenizer import WordPieces, train_word_pieces
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
    as_source,
    codes_of,
    hold_out,
    read_images,
    shared_columns,
)
from dqecir.training.recipe import PretrainingRecipe
from dqecir.training.schedules import cosine_rate

SAVE_EVERY = 50
"""Steps between states that a killed run resumes from."""


class PretrainingSettings(Strict):
    """What a folder of unfinished work is claimed with; ``catalogues`` are the names of their folders."""

    recipe: PretrainingRecipe
    catalogues: tuple[str, ...]
    split: str


class Pretrainer:
    """Runs both stages of a recipe into one folder, and continues where it was killed."""

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
        if recipe.sources is not None:
            if len(recipe.sources) != len(catalogues):
                raise DataError(
                    f"sources is for {len(recipe.sources)} catalogues, and {len(catalogues)} were given"
                )
            catalogues = [
                hold_out(as_source(catalogue, source), split, source.held_out, recipe.seed)
                for catalogue, source in zip(catalogues, recipe.sources, strict=True)
            ]
        self.catalogues = catalogues
        for name, settings in (
            ("classification.shares", recipe.classification.shares),
            ("classification.strengths", recipe.classification.strengths),
            ("contrast.shares", recipe.contrast.shares),
            ("contrast.views", recipe.contrast.views),
        ):
            if len(settings) != len(catalogues):
                raise DataError(f"{name} is for {len(settings)} catalogues, and {len(catalogues)} were given")
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
        self.backbone = Blip2(backbone)
        if recipe.tower_weights is not None and isinstance(self.backbone.tower, EfficientNetTower):
            load_efficientnet(self.backbone.tower.network, recipe.tower_weights)
        self.heads = AttributeHeads(HeadsConfig(token_width=backbone.tower.token_width, columns=self.columns))
        self.device = chosen_device()
        self.backbone.to(self.device)
        self.heads.to(self.device)
        self.seconds: dict[str, float] = {}

    def run(self) -> ComposedModel:
        """Both stages; returns the model, which composes by the sum of image and text until trained."""
        self._classify()
        calibrated = self._calibrate()
        self._contrast()
        notes = {
            "pretraining": self.recipe.model_dump(mode="json"),
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
        """Word pieces of captions of every catalogue, of the shipped vocabularies, and of ``texts``.

        They are kept with the run: the trainer breaks ties as it likes, so a second training would
        number the pieces otherwise, and a resumed run would read gibberish.
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
        tokenizer = train_word_pieces([*corpus, *texts], self.recipe.vocabulary_size)
        with whole_folder(kept) as draft:
            tokenizer.save_pretrained(draft)
        return tokenizer

    def _classify(self) -> None:
        """Stage 0."""
        stage, preprocessing = self.recipe.classification, self.recipe.preprocessing
        modules = torch.nn.ModuleDict({"tower": self.backbone.tower, "heads": self.heads})
        sets: list[LabelledImages] = []

        def loss_of(step: int) -> Tensor:
            if not sets:
                for place, catalogue in enumerate(self.catalogues):
                    kept = self.work / f"pixels-{place}"
                    sets.append(
                        read_images(catalogue, self.split, self.columns, preprocessing, self.quiet, kept)
                    )
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            pixels, codes = [], []
            parts = _shares(stage.shares, stage.batch_size)
            for images, count, strength in zip(sets, parts, stage.strengths, strict=True):
                if count == 0:
                    continue
                rows = torch.randint(len(images.pixels), (count,), generator=generator)
                plain = images.pixels[rows].float() / 255
                if step < stage.small_steps:
                    plain = F.interpolate(plain, size=stage.small_size, mode="area")
                seen = random_views(plain, generator, strength, stage.light) if strength > 0 else plain
                pixels.append(seen)
                codes.append(images.codes[rows])
            normalised = preprocessing.normalised(torch.cat(pixels)).to(self.device)
            logits = self.heads(self.backbone.tower(normalised))
            losses = column_losses(logits, torch.cat(codes), stage.label_smoothing)
            return torch.stack(losses).mean()

        fresh: list[torch.nn.Parameter] = []
        if isinstance(self.backbone.tower, EfficientNetTower):
            published = set(self.backbone.tower.network.parameters())
            fresh = [weight for weight in modules.parameters() if weight not in published]
        self._optimise("classification", modules, stage, loss_of, fast=fresh, factor=stage.heads_factor)

    def _calibrate(self) -> dict[str, ColumnCalibration]:
        """Calibrate the heads on the pictures that were held out, where there are any."""

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

    def _contrast(self) -> None:
        """Stage 1."""
        stage = self.recipe.contrast
        self.backbone.freeze_tower()
        self.backbone.eval()
        encoder = TextEncoder(self.tokenizer, (), self.recipe.max_text_length)
        sets: list[tuple[np.ndarray, TokenStore, Tensor]] = []

        def open_sets() -> None:
            for place, catalogue in enumerate(self.catalogues):
                images = catalogue.split(self.split)
                store = TokenStore.build(
                    self.work / f"tokens-{place}",
                    self.backbone.image_tokens,
                    f"stage-0 of seed {self.recipe.seed}, {self.recipe.classification.steps} steps",
                    self.recipe.preprocessing,
                    [catalogue.image_paths[i] for i in images],
                    stage.views[place],
                    self.quiet,
                )
                codes = codes_of(catalogue, images, self.columns)
                sets.append((images, store, codes))

        def loss_of(step: int) -> Tensor:
            if not sets:
                open_sets()
                self.backbone.train()
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            place = int(torch.multinomial(torch.tensor(stage.shares), 1, generator=generator))
            images, store, codes = sets[place]
            rows = torch.randint(len(images), (stage.batch_size,), generator=generator)
            views = torch.randint(stage.views[place], (stage.batch_size,), generator=generator)
            tokens = store.gather(rows, views).to(self.device)
            captions, said = self._captions(place, images[rows.numpy()], step)
            text = encoder(captions).to(self.device)
            scores = score(
                self.backbone.text_embedding(text.ids, text.mask)[:, None],
                self.backbone.target_embeddings(tokens),
                "max_t",
            )  # [caption, image]
            own = codes[rows]
            # A caption names a few attributes; every image that shows them all is described by it.
            fits = ((own[:, None] == own[None]) | ~said[:, None]).all(dim=2).to(self.device)
            targets = torch.arange(len(rows), device=self.device)
            temperature = self.backbone.temperature.clamp(0.01, 0.5)
            return 0.5 * (
                contrastive(scores, targets, temperature, fits)
                + contrastive(scores.T, targets, temperature, fits.T)
            )

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
        self._optimise("contrast", trained, stage, loss_of, extra)
        with torch.no_grad():
            self.backbone.temperature.clamp_(0.01, 0.5)

    def _captions(self, place: int, images: np.ndarray, step: int) -> tuple[list[str], Tensor]:
        """A caption of each image, and which columns it speaks of [B, C]."""
        catalogue, wording = self.catalogues[place], self.wordings[place]
        rng = random.Random(f"{self.recipe.seed} {step}")
        captions, said = [], torch.zeros(len(images), len(self.columns), dtype=torch.bool)
        names = list(self.columns)
        for row, image in enumerate(images.tolist()):
            shown = {c: v for c, v in _known(catalogue, image).items() if c in self.columns}
            chosen = rng.sample(sorted(shown), rng.randint(1, len(shown)))
            captions.append(wording.portray({c: shown[c] for c in chosen}, rng))
            said[row, [names.index(c) for c in chosen]] = True
        return captions, said

    def _optimise(
        self,
        name: str,
        modules: torch.nn.Module,
        stage: Any,
        loss_of: Any,
        extra: Sequence[torch.nn.Parameter] = (),
        fast: Sequence[torch.nn.Parameter] = (),
        factor: float = 1.0,
    ) -> None:
        """AdamW with a cosine rate over ``stage.steps``; continues where a killed run was saved.

        ``fast`` parameters learn at ``factor`` times the rate.
        """
        groups = parameter_groups(modules, stage.learning_rate, stage.weight_decay, list(fast), factor)
        if extra:
            groups.append({"params": list(extra), "lr": stage.learning_rate, "weight_decay": 0.0})
        rates = [group["lr"] for group in groups]
        optimizer = torch.optim.AdamW(groups)
        log: list[dict[str, float]] = []
        first = self._resume(name, optimizer, log)
        watch = Stopwatch(on_cpu())
        watch.seconds = self.seconds.get(name, 0.0)
        modules.train()
        for step in track(range(first, stage.steps), f"pretraining: {name}", quiet=self.quiet):
            watch.start()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * cosine_rate(step, stage.steps, stage.steps // 20, 0.0)
            torch.manual_seed(self.recipe.seed * 1_000_003 + step)
            with autocast(self.device, self.recipe.precision):
                loss = loss_of(step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step % 50 == 0:
                log.append({"step": step, "loss": float(loss.detach())})
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == stage.steps:
                watch.stop()
                self.seconds[name] = watch.seconds
                self._save(name, step + 1, optimizer, log)

    def _save(
        self, name: str, step: int, optimizer: torch.optim.Optimizer, log: list[dict[str, float]]
    ) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "step": step,
                "backbone": self.backbone.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizer": optimizer.state_dict(),
                "cpu_seconds": self.seconds[name],
                "log": log,
            },
            buffer,
        )
        write_bytes(self.work / f"{name}.pt", buffer.getvalue())

    def _resume(self, name: str, optimizer: torch.optim.Optimizer, log: list[dict[str, float]]) -> int:
        """Load what a killed run saved of a stage; returns the step to go on from."""
        path = self.work / f"{name}.pt"
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True, map_location="cpu")
        self.backbone.load_state_dict(saved["backbone"])
        self.heads.load_state_dict(saved["heads"])
        optimizer.load_state_dict(saved["optimizer"])
        self.seconds[name] = saved["cpu_seconds"]
        log.extend(saved["log"])
        return int(saved["step"])


def _shares(shares: Sequence[float], batch_size: int) -> list[int]:
    """``batch_size`` cut in proportion to ``shares``, the rounding left to the first."""
    counts = [round(batch_size * share / sum(shares)) for share in shares]
    counts[0] += batch_size - sum(counts)
    return counts


def _known(catalogue: Catalogue, image: int) -> dict[str, str]:
    return {
        column: values[image] for column, values in catalogue.attributes.items() if has_value(values[image])
    }

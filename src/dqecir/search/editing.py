"""Edit a result's picture as the text says, with a diffusion pipeline of diffusers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image, ImageOps
from pydantic import Field

from dqecir.errors import EditError, reason_of
from dqecir.settings import Strict

_TAKEN = ("prompt", "image", "num_inference_steps", "generator")
"""Names of the parameters that the pipeline's ``__call__`` must have."""

_GRAIN = 8
"""The sides of an edited picture, in pixels, are multiples of this, because of the pipeline's latents."""


class EditSettings(Strict):
    """Settings of an edit; their largest values limit the time that one edit can take."""

    steps: int = Field(default=30, ge=1, le=100)
    guidance: float = Field(default=7.5, ge=1, le=20)
    """How closely the edit follows the text."""
    picture_guidance: float = Field(default=1.5, ge=1, le=5)
    """How closely the edit follows the original picture; ignored by pipelines without this setting."""
    side: int = Field(default=512, ge=64, le=1024)
    """Longer side of the edited picture, in pixels."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class Editor:
    """An instruction-following diffusion pipeline in a local folder; it is loaded at the first edit.

    ``checkpoint`` is a folder that diffusers can read, with weights in safetensors. Nothing is downloaded,
    and no code of the folder is run. Any thread may call :meth:`edit`; edits run one after the other.
    """

    def __init__(
        self, checkpoint: Path | str | None, settings: EditSettings | None = None, device: str = "cpu"
    ) -> None:
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.settings = settings or EditSettings()
        self.device = device
        self._pipeline: Any = None
        self._turn = Lock()

    def missing(self) -> str | None:
        """Return a sentence that says what an edit still needs, such as a library.

        None if nothing is missing.
        """
        if self.checkpoint is None:
            return (
                "editing needs a diffusers pipeline that follows instructions, such as InstructPix2Pix: "
                "name its folder as the checkpoint"
            )
        if importlib.util.find_spec("diffusers") is None:
            return "editing needs diffusers, which is not installed: pip install 'dqecir[edit]'"
        if not (self.checkpoint / "model_index.json").is_file():
            return (
                f"{self.checkpoint} is not a folder of a diffusers pipeline, because it has no "
                "model_index.json: name another folder"
            )
        return None

    def edit(self, picture: Image.Image, text: str) -> Image.Image:
        """Return ``picture`` (RGB) edited as ``text`` says.

        The picture is first enlarged or reduced: its longer side becomes ``settings.side``, and both sides
        are rounded to multiples of 8 pixels, for which a little of the edges may be cut off. The same
        picture, text and settings give the same result. Raises :class:`EditError` if something is missing,
        if ``text`` is empty, or if the pipeline fails.
        """
        lacking = self.missing()
        if lacking is not None:
            raise EditError(lacking)
        if not text.strip():
            raise EditError("there is nothing to edit: say what should change")
        settings = self.settings
        with self._turn:
            if self._pipeline is None:
                self._pipeline = self._read()
            arguments: dict[str, Any] = {
                "prompt": text,
                "image": self._fitted(picture),
                "num_inference_steps": settings.steps,
                "guidance_scale": settings.guidance,
                "image_guidance_scale": settings.picture_guidance,
                "generator": torch.Generator("cpu").manual_seed(settings.seed),
            }
            known = inspect.signature(self._pipeline.__call__).parameters
            taken = {name: value for name, value in arguments.items() if name in known}
            try:
                with torch.no_grad():
                    edited: Image.Image = self._pipeline(**taken).images[0]
            except (RuntimeError, ValueError, TypeError) as error:
                reason = reason_of(error)
                raise EditError(
                    f"the picture could not be edited ({reason}): try again, or use another pipeline"
                ) from error
        return edited.convert("RGB")

    def _read(self) -> Any:
        diffusers = importlib.import_module("diffusers")
        try:
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                self.checkpoint, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except Exception as error:  # A folder of any origin may fail in any way.
            reason = reason_of(error)
            raise EditError(
                f"{self.checkpoint} cannot be read as a pipeline ({reason}): copy it again"
            ) from error
        known = inspect.signature(pipeline.__call__).parameters
        lacking = [name for name in _TAKEN if name not in known]
        if lacking:
            raise EditError(
                f"{type(pipeline).__name__} in {self.checkpoint} takes no {lacking[0]}: name a pipeline that "
                "edits a picture as a text says"
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    def _fitted(self, picture: Image.Image) -> Image.Image:
        """Resize ``picture`` to the settings' longer side, in multiples of ``_GRAIN`` pixels."""
        scale = self.settings.side / max(picture.size)
        width, height = (max(_GRAIN, round(side * scale / _GRAIN) * _GRAIN) for side in picture.size)
        return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)

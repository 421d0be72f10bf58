"""A learned image encoder, picture → vector: a CLIP or a DINOv2 from a hub or a directory, in transformers' format.

Of a CLIP (Radford et al., arXiv:2103.00020) the vector is the image embedding, which is compared with those of texts;
of a CLIP without projection and a DINOv2 (Oquab et al., arXiv:2304.07193), the class token after the last layer norm.

CSD (Somepalli et al., "Measuring Style Similarity in Diffusion Models", arXiv:2404.01292) is a CLIP ViT-L whose
projection was retrained for style. Its authors' checkpoint is a pickle and is not read; converted to a
`CLIPVisionModelWithProjection` whose projection is that style head, it loads like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection, Dinov2Model, Dinov2WithRegistersModel
from transformers.utils import logging as transformers_logging

from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.models import hub
from avignon.models.runtime import best_device

STEM = "model"
"""How the names of the weights' files begin."""

FILES = ["config.json", "preprocessor_config.json", f"{STEM}*.safetensors", f"{STEM}*.safetensors.index.json"]
"""The files of a repository that are downloaded."""


class _VisionTower(CLIPVisionModelWithProjection):  # type: ignore[misc]  # transformers ships no types
    """The image half of a whole CLIP, loaded without a warning about the text half, which is left out on purpose."""

    _keys_to_ignore_on_load_unexpected = (r"text_model\.", "text_projection", "logit_scale")


_ARCHITECTURES: Mapping[str, tuple[Any, str]] = {
    "CLIPModel": (_VisionTower, "image_embeds"),
    "CLIPVisionModelWithProjection": (CLIPVisionModelWithProjection, "image_embeds"),
    "CLIPVisionModel": (CLIPVisionModel, "pooler_output"),
    "Dinov2Model": (Dinov2Model, "pooler_output"),
    "Dinov2WithRegistersModel": (Dinov2WithRegistersModel, "pooler_output"),
}
"""Supported architectures: the class that is loaded, and which of its outputs is the vector."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture is prepared for an encoder: transformers' preprocessor_config.json, without torchvision.

    The same arithmetic as transformers' own processors for CLIP and BiT (which is DINOv2's), with Pillow and numpy.
    """

    size: int | tuple[int, int] | None
    """The short side, or width and height, that a picture is resized to; None leaves it."""
    resample: Image.Resampling
    crop: int | tuple[int, int] | None
    """The side, or width and height, of the middle that is kept; None keeps all."""
    scale: float
    """Factor on grey levels of 0–255."""
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    """Of red, green and blue, after scaling."""

    @classmethod
    def read(cls, path: Path) -> "Preprocessing":
        """Read a preprocessor_config.json.

        Raises:
            ModelError: the file is missing or damaged, or a value in it cannot be used.
        """
        fields = hub.described(path, "no encoder in transformers' format")
        normal = fields.get("do_normalize", True)
        try:
            return cls(
                size=_sides(fields["size"]) if fields.get("do_resize", True) else None,
                resample=Image.Resampling(fields.get("resample", Image.Resampling.BICUBIC)),
                crop=_sides(fields["crop_size"]) if fields.get("do_center_crop", True) else None,
                scale=float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 1.0,
                mean=np.asarray(fields["image_mean"] if normal else [0, 0, 0], np.float32).reshape(3),
                deviation=np.asarray(fields["image_std"] if normal else [1, 1, 1], np.float32).reshape(3),
            )
        except (LookupError, TypeError, ValueError) as wrong:
            raise ModelError(f"{path}: a value is missing or cannot be used: {hub.first_line(wrong)}") from None

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """The picture as the encoder sees it, shaped (3, H, W)."""
        if self.size:
            short = min(image.size)
            sides = [side * self.size // short for side in image.size] if isinstance(self.size, int) else self.size
            image = image.resize(sides, self.resample)
        if self.crop is not None:
            width, height = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
            left, upper = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, upper, left + width, upper + height))
        levels = np.asarray(image, np.float32) * np.float32(self.scale)  # (H, W, 3)
        seen: NDArray[np.float32] = ((levels - self.mean) / self.deviation).transpose(2, 0, 1)
        return seen


def _sides(size: Any) -> int | tuple[int, int]:
    """A size as a short side, or as width and height; older files have a bare number for the first."""
    if isinstance(size, int):
        return size
    return int(size["shortest_edge"]) if "shortest_edge" in size else (int(size["width"]), int(size["height"]))


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder; called with a picture, it returns the picture's vector."""

    model: str
    revision: str
    """The hub's commit, where there is one."""
    fingerprint: str
    """SHA-256 of the weights file."""
    preprocessing: Preprocessing
    network: Any
    """In evaluation mode and float32."""
    output: str
    """Which of its outputs is the vector."""

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> NDArray[np.float64]:
        """The vector of one RGB picture, scaled to length 1; one at a time, so that any machine's memory holds it."""
        seen = torch.from_numpy(self.preprocessing(image))[None].to(self.network.device)  # (1, 3, H, W)
        vector = self.network(pixel_values=seen)[self.output][0].cpu().double().numpy()
        unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
        return unit


def load(model: str, mirrors: tuple[str, ...], revision: str, reporter: Reporter) -> ImageEncoder:
    """Find, check and load the encoder that a recipe names; no code of a repository is run.

    Raises:
        ModelError: it is unavailable, incomplete, damaged, pickled, or of an architecture that is not supported.
    """
    transformers_logging.disable_progress_bar()
    wanted = hub.Wanted(model, mirrors, revision, "evaluate.encoder", "evaluate.encoder_mirrors")
    model, folder = hub.find(wanted, lambda name, access: hub.download(name, revision, access, FILES), reporter)
    path = folder / "config.json"
    config = hub.described(path, "no encoder in transformers' format")
    named = str((config.get("architectures") or ["nothing"])[0])
    if named not in _ARCHITECTURES:
        raise ModelError(f"{path}: architectures names {named}; supported are {', '.join(_ARCHITECTURES)}")
    preprocessing = Preprocessing.read(folder / "preprocessor_config.json")
    hub.check_weights(folder, STEM)
    kind, output = _ARCHITECTURES[named]
    # The vision tower's own settings in a whole CLIP do not say how wide its projection is.
    width = {"projection_dim": config["projection_dim"]} if named == "CLIPModel" and "projection_dim" in config else {}
    network = hub.read(kind, folder, dtype=torch.float32, **width)
    network.requires_grad_(False).eval().to(best_device())
    commit, fingerprint = hub.commit_of(folder), hub.fingerprint(folder, STEM)
    encoder = ImageEncoder(model, commit, fingerprint, preprocessing, network, output)
    try:  # What does not fit together is an error now, before any measuring.
        vector = encoder(Image.radial_gradient("L").convert("RGB"))
    except Exception as failed:
        why = hub.first_line(failed)
        raise ModelError(f"{folder}: preprocessor_config.json does not fit the model: {why}") from failed
    if not np.isfinite(vector).all():
        raise ModelError(f"{folder}: damaged: the encoder's vector of a picture is not finite")
    return encoder

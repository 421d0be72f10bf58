"""A CLIP and two DINOv2 in miniature, in transformers' format: random weights, a few kilobytes, 32×32 pictures."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

PREPARED: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 36},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
"""A preprocessor_config.json."""

_SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_SEEN: dict[str, Any] = {"image_size": 32, "patch_size": 8}
_VISION: dict[str, Any] = {**_SMALL, **_SEEN, "intermediate_size": 32}


def _clip() -> Any:
    # The whole CLIP says how wide its projection is; its vision tower's own settings say something else.
    vision = {**_VISION, "projection_dim": 512}
    text = {**_SMALL, "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


ENCODERS: dict[str, Any] = {
    "CLIPModel": _clip,
    "CLIPVisionModelWithProjection": lambda: CLIPVisionModelWithProjection(
        CLIPVisionConfig(**_VISION, projection_dim=12)
    ),
    "CLIPVisionModel": lambda: CLIPVisionModel(CLIPVisionConfig(**_VISION)),
    "Dinov2Model": lambda: Dinov2Model(Dinov2Config(**_SMALL, **_SEEN, mlp_ratio=2)),
    "Dinov2WithRegistersModel": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**_SMALL, **_SEEN, mlp_ratio=2)
    ),
}
"""One of each architecture that is understood."""


def make_encoder(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """Write one with its preprocessor_config.json, the same bytes for the same seed, and return the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ENCODERS[kind]()
        with torch.no_grad():
            for parameter in model.parameters():  # What transformers begins from would see all pictures alike.
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED), encoding="utf-8")
    return folder

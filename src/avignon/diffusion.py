"""Stable Diffusion from where the recipe says, loaded safely: the same code for the hub, a directory and the miniature.

Only safetensors are read; what is missing, incomplete or pickled is a clear line, before gigabytes are loaded.
"""

import importlib.resources
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from avignon.errors import BaseError, RecipeError
from avignon.recipe import EMBEDDED, Recipe
from avignon.recipe import Base as BaseSettings
from avignon.records import Voice
from avignon.workspace import sha256_of

TIMEOUT = 8
"""Seconds to wait for a hub to say whether it has a model."""

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""The parts that hold weights, and the stem of their files in diffusers' format."""

TEXTS = 32
"""How many texts go through the text encoder at once: all captions of a set would not fit a small card."""

SCHEDULERS = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
}

_CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}

_NOT_NEEDED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


@dataclass(frozen=True)
class Base:
    """A loaded Stable Diffusion, and what identifies it."""

    pipeline: Any
    """A StableDiffusionPipeline in evaluation mode, every parameter frozen."""
    model: str
    revision: str
    """The hub's commit, where there is one."""
    fingerprint: str
    """SHA-256 of the UNet's weights file: adapters belong to exactly these weights."""
    resolution: int

    @property
    def card(self) -> dict[str, Any]:
        """What an adapter's card says of its base."""
        return {
            "model": self.model,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "resolution": self.resolution,
        }


def load(recipe: Recipe, dtype: torch.dtype, voice: Voice) -> Base:
    """Find, check and load the recipe's base.

    Raises:
        BaseError: it cannot be reached, is incomplete, holds only pickle files, or is no Stable Diffusion.
    """
    settings = recipe.base
    _quiet_libraries()
    model, folder = _folder_of(settings, voice)
    _check(folder, settings.variant)
    pipeline = _read(folder, settings.variant, dtype)
    trained_at = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    if settings.resolution % pipeline.vae_scale_factor:
        raise RecipeError(f"base.resolution: {settings.resolution} is not a multiple of {pipeline.vae_scale_factor}")
    if trained_at != settings.resolution:
        voice.warn(f"{model} was trained at {trained_at} pixels, the recipe asks for {settings.resolution}")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    commit = re.search(r"/snapshots/([0-9a-f]{40})", folder.as_posix())
    return Base(pipeline, model, commit[1] if commit else "", fingerprint(folder), settings.resolution)


def fingerprint(folder: Path) -> str:
    """SHA-256 of the UNet's weights. In the hub's cache a large file's name is its SHA-256, which spares reading it."""
    path = max((folder / "unet").glob(f"{WEIGHTS['unet']}*.safetensors"), key=lambda p: p.stat().st_size)
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else sha256_of(path)


def embedded_folder() -> Path:
    """Where the miniature lies inside the package."""
    return Path(str(importlib.resources.files("avignon.embedded") / "base"))


def _folder_of(settings: BaseSettings, voice: Voice) -> tuple[str, Path]:
    if settings.model == EMBEDDED:
        return EMBEDDED, embedded_folder()
    if Path(settings.model).is_absolute():
        return Path(settings.model).name, Path(settings.model)
    failures = []
    for model in (settings.model, *settings.mirrors):
        try:
            return model, _download(model, settings)
        except BaseError as failed:
            failures.append(str(failed))
            voice.note(f"not available: {failed}")
    raise BaseError("; ".join(failures))


def _download(model: str, settings: BaseSettings) -> Path:
    """The repository's files in the hub's cache, fetched where they are not there yet; HF_ENDPOINT names a mirror."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    where = f"base.model {model!r} (revision {settings.revision!r})"
    offline = _why_offline(model, settings.revision, where, hub)
    try:
        return Path(
            StableDiffusionPipeline.download(
                model,
                revision=settings.revision,
                variant=settings.variant or None,
                use_safetensors=True,
                local_files_only=bool(offline),
                **_NOT_NEEDED,
            )
        )
    except GatedRepoError:
        raise BaseError(
            f"{where}: its owner asks for a login: accept the terms on {hub}/{model}, `hf auth login`"
        ) from None
    except Exception as failed:
        raise BaseError(
            f"{where}: could not be had from {hub} ({offline or _first_line(failed)}); check the network, "
            "set HF_ENDPOINT to a mirror, or name a local directory in base.model"
        ) from failed


def _why_offline(model: str, revision: str, where: str, hub: str) -> str:
    """Ask the hub once, with a short time-out, whether it has the model; why it cannot be asked, empty if it can.

    The client's own downloads wait for half a minute before they give up on a hub that is not there.
    """
    try:
        HfApi().model_info(model, revision=revision, timeout=TIMEOUT)
    except GatedRepoError:
        return ""
    except RevisionNotFoundError:
        raise BaseError(f"{where}: no such revision on {hub}") from None
    except RepositoryNotFoundError:
        raise BaseError(f"{where}: not on {hub}; name a mirror in base.mirrors, or a local directory") from None
    except HFValidationError:
        raise BaseError(f"{where}: neither owner/name on a hub nor a path that begins with ./, / or ~") from None
    except Exception as failed:  # noqa: BLE001 - see `_download`
        return _first_line(failed)
    return ""


def _first_line(failed: Exception) -> str:
    lines = str(failed).strip().splitlines()
    return lines[0][:200] if lines else type(failed).__name__


def _check(folder: Path, variant: str) -> None:
    """Name what a directory lacks before a library fails in the middle of it."""
    index = folder / "model_index.json"
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "")
    except FileNotFoundError:
        raise BaseError(f"{folder}: no Stable Diffusion in diffusers' format: model_index.json is missing") from None
    except (OSError, ValueError, AttributeError):
        raise BaseError(f"{index}: damaged: not a JSON object") from None
    if kind != "StableDiffusionPipeline":
        raise BaseError(f"{index}: _class_name is {kind!r}; only StableDiffusionPipeline (1.x and 2.x) is understood")
    for part, stem in WEIGHTS.items():
        _check_weights(folder / part, stem, variant)
    for needed in ("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"):
        alternative = folder / "tokenizer/tokenizer.json"
        if not (folder / needed).exists() and not (needed.startswith("tokenizer") and alternative.exists()):
            raise BaseError(f"{folder}: incomplete: {needed} is missing")


def _check_weights(folder: Path, stem: str, variant: str) -> None:
    if not (folder / "config.json").exists():
        raise BaseError(f"{folder.parent}: incomplete: {folder.name}/config.json is missing")
    names = sorted(p.name for p in folder.iterdir())
    wanted = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    sharded = f"{wanted}.index.json"
    if wanted in names or sharded in names or any(re.fullmatch(rf"{stem}.*-of-\d+\.safetensors", n) for n in names):
        return
    pickled = [name for name in names if name.endswith((".bin", ".ckpt", ".pt"))]
    if pickled:
        raise BaseError(
            f"{folder}: holds only pickle files ({', '.join(pickled)}), which can run code when they are loaded; "
            "convert them to safetensors"
        )
    raise BaseError(f"{folder.parent}: incomplete: {folder.name}/{wanted} is missing")


def _read(folder: Path, variant: str, dtype: torch.dtype) -> Any:
    parts = {part: _read_part(folder / part, variant, dtype) for part in WEIGHTS}
    try:
        return StableDiffusionPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=True, **parts, **_NOT_NEEDED, requires_safety_checker=False
        )
    except Exception as failed:
        raise BaseError(f"{folder}: cannot be loaded as Stable Diffusion: {_first_line(failed)}") from failed


def _read_part(folder: Path, variant: str, dtype: torch.dtype) -> Any:
    """One part with weights. The libraries fill in what a file lacks with random numbers; here that is an error."""
    try:
        part, info = _CLASSES[folder.name].from_pretrained(
            folder,
            dtype=dtype,
            variant=variant or None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as failed:
        raise BaseError(
            f"{folder}: damaged, or not of the shape that config.json says: {_first_line(failed)}"
        ) from failed
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseError(f"{folder}: incomplete: {len(missing)} tensors are missing, the first is {missing[0]}")
    return part


def _quiet_libraries() -> None:
    """Keep the libraries' bars for loading files off a terminal that is ours; downloads keep theirs."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device() -> torch.device:
    """The best device of this machine."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def precision_for(asked: str, stage: str, on: torch.device) -> Precision:
    """The precision a stage works in; `auto` is what this device does best.

    Training on a CPU takes bf16 where the processor multiplies it natively; generating on a CPU takes fp32, so that
    pictures are those of any other program.

    Raises:
        RecipeError: a precision that the device cannot do.
    """
    if asked == "auto":
        if on.type == "cuda":
            return "fp16"
        native = on.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return "bf16" if stage == "train" and native else "fp32"
    if asked == "fp16" and on.type == "cpu":
        raise RecipeError(f"{stage}.precision: 'fp16' needs a GPU and this machine has none; use auto, bf16 or fp32")
    if asked == "fp16":
        return "fp16"
    return "bf16" if asked == "bf16" else "fp32"


Attention = Literal["sdpa", "xformers", "plain"]

PLAIN_UP_TO = 256
"""Pixels of a side up to which two plain matrix products are the faster attention to train with on a CPU."""


def attention_for(asked: str, on: torch.device, trained_at: int = 0) -> Attention:
    """The attention backend to generate with, or to train with at this many pixels a side.

    Raises:
        RecipeError: xFormers is asked for and cannot be used here.
    """
    usable = on.type == "cuda" and importlib.util.find_spec("xformers") is not None
    if asked == "xformers" and not usable:
        raise RecipeError(
            "train.attention: 'xformers' needs a CUDA device and `pip install avignon[xformers]`; use auto or sdpa"
        )
    if asked in ("sdpa", "plain"):
        return "plain" if asked == "plain" else "sdpa"
    if usable:
        return "xformers"
    return "plain" if on.type == "cpu" and 0 < trained_at <= PLAIN_UP_TO else "sdpa"


def use_attention(unet: Any, backend: Attention) -> None:
    """Set the UNet's attention backend; PyTorch's own is diffusers' default."""
    if backend == "xformers":
        unet.enable_xformers_memory_efficient_attention()
    elif backend == "plain":
        unet.set_attn_processor(AttnProcessor())


def place(module: Any, *where: Any, **how: Any) -> Any:
    """`module.to(…)` without diffusers' own, which warns of parts to be kept in float32 even where there are none."""
    return torch.nn.Module.to(module, *where, **how)


def scheduler(base: Base, name: str) -> Any:
    """The recipe's scheduler with the base's own noise schedule and prediction type."""
    return SCHEDULERS[name].from_config(base.pipeline.scheduler.config)


@torch.no_grad()
def text_embeddings(base: Base, texts: Sequence[str], on: torch.device, voice: Voice) -> torch.Tensor:
    """Embeddings of `texts`, shaped (texts, tokens, width); a text the tokenizer must cut is named in a warning."""
    tokenizer = base.pipeline.tokenizer
    for text in dict.fromkeys(texts):
        tokens = tokenizer(text, truncation=False, verbose=False).input_ids
        if len(tokens) > tokenizer.model_max_length:
            # The first and the last token are the markers of start and end.
            cut = tokenizer.decode(tokens[tokenizer.model_max_length - 1 : -1])
            voice.warn(f"prompt longer than the base's {tokenizer.model_max_length} tokens; cut off: {cut.strip()!r}")
    encoded = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    encoder = base.pipeline.text_encoder.to(on)
    masked = getattr(encoder.config, "use_attention_mask", False)
    parts = zip(encoded.input_ids.to(on).split(TEXTS), encoded.attention_mask.to(on).split(TEXTS), strict=True)
    return torch.cat([encoder(ids, attention_mask=mask if masked else None)[0] for ids, mask in parts])

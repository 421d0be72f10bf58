"""Stable Diffusion, checked and loaded safely: the same code for the hub, a directory and the miniature."""

import importlib.resources
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from huggingface_hub import HfApi, snapshot_download
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest
from avignon.core.records import EMBEDDED
from avignon.models import finite, hub
from avignon.models.stable_diffusion import files as bases
from avignon.models.stable_diffusion.files import WEIGHTS
from avignon.recipe.schema import Base as BaseSettings
from avignon.recipe.schema import Recipe

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
    parts: Mapping[str, str]
    """SHA-256 of unet, vae, text_encoder, tokenizer and scheduler, as loaded: what other ones made is made again."""
    folder: Path
    variant: str
    resolution: int

    @property
    def identity(self) -> str:
        """One hash over all parts."""
        return digest(dict(self.parts))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the UNet's weights rounded to fp16: adapters fit every base that has this one."""
        return hub.rounded(hub.weight_files(self.folder / "unet", WEIGHTS["unet"], self.variant))

    @cached_property
    def earlier_names(self) -> frozenset[str]:
        """What avignon 0.1.0 may have called this base: it knew the hash of one file of the UNet's."""
        return hub.known_as(self.folder / "unet", WEIGHTS["unet"])

    def fits(self, card: Mapping[str, Any]) -> bool:
        """Whether an adapter with this base on its card can be put on."""
        if card.get("parts", {}).get("unet") == self.parts["unet"]:
            return True
        return card["fingerprint"] in self.earlier_names | {self.fingerprint}

    @property
    def card(self) -> dict[str, Any]:
        """What an adapter's card says of its base."""
        return {
            "model": self.model,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "parts": dict(self.parts),
            "resolution": self.resolution,
        }


def load(recipe: Recipe, dtype: torch.dtype, reporter: Reporter) -> Base:
    """Find, check and load the recipe's base.

    Raises:
        ModelError: it cannot be reached, is incomplete, holds only pickle files, NaN or infinity, or is no Stable
            Diffusion.
        RecipeError: the recipe's resolution or sampler cannot be used with it.
    """
    settings = recipe.base
    _quiet_libraries()
    model, folder = _folder_of(settings, reporter)
    bases.check(folder, settings.variant)
    noise = bases.noise_schedule(folder)
    bases.check_sampler(recipe, noise)
    if bases.is_shifted(folder):
        reporter.warn(
            f"{folder / 'scheduler'}: snr_shift_scale is not used: Stable Diffusion was never trained with it"
        )
    pipeline = _read(folder, settings.variant, dtype, noise)
    size = pipeline.unet.config.sample_size
    trained_at = size * pipeline.vae_scale_factor if isinstance(size, int) else settings.resolution
    if settings.resolution % pipeline.vae_scale_factor:
        raise RecipeError(f"base.resolution: {settings.resolution} is not a multiple of {pipeline.vae_scale_factor}")
    if trained_at != settings.resolution:
        reporter.warn(f"{model} was trained at {trained_at} pixels, the recipe asks for {settings.resolution}")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    parts = {part: hub.part(folder / part, WEIGHTS.get(part, ""), settings.variant) for part in (*WEIGHTS, "tokenizer")}
    parts["scheduler"] = digest(noise)  # Nothing else of it is used.
    return Base(pipeline, model, hub.commit_of(folder), parts, folder, settings.variant, settings.resolution)


def embedded_folder() -> Path:
    """Where the miniature lies inside the package."""
    return Path(str(importlib.resources.files("avignon.demo") / "base"))


def _folder_of(settings: BaseSettings, reporter: Reporter) -> tuple[str, Path]:
    if settings.model == EMBEDDED:
        return EMBEDDED, embedded_folder()
    wanted = hub.Wanted(settings.model, settings.mirrors, settings.revision, "base.model", "base.mirrors")

    def fetch(model: str, access: hub.Access) -> str:
        if not access.offline:
            _look_ahead(settings, model, access)
        folder: str = StableDiffusionPipeline.download(
            model,
            revision=settings.revision,
            variant=settings.variant or None,
            use_safetensors=True,
            local_files_only=bool(access.offline),
            token=access.token,
            **_NOT_NEEDED,
        )
        return folder

    return hub.find(wanted, fetch, reporter)


def _look_ahead(settings: BaseSettings, model: str, access: hub.Access) -> None:
    """Refuse a repository by its small files and the names of the others, before gigabytes are fetched.

    Raises:
        ModelError: see `bases.check`.
    """
    asked: Any = {"revision": settings.revision, "token": access.token}
    folder = Path(snapshot_download(model, allow_patterns=list(bases.SMALL), **asked))
    names = [Path(name) for name in HfApi().list_repo_files(model, **asked)]
    bases.check_index(folder)
    for part, stem in WEIGHTS.items():
        within = [name.name for name in names if name.parent == Path(part)]
        hub.check_names(within, Path(model, part), stem, settings.variant, "base.variant")
    bases.check_kind(folder)


def _read(folder: Path, variant: str, dtype: torch.dtype, noise: dict[str, Any]) -> Any:
    """The pipeline, whose scheduler has nothing of the base's but its noise schedule."""
    parts = {
        part: hub.read(kind, folder / part, variant=variant or None, dtype=dtype) for part, kind in _CLASSES.items()
    }
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            scheduler=DDIMScheduler.from_config(noise),
            **parts,
            **_NOT_NEEDED,
            requires_safety_checker=False,
        )
    except Exception as failed:
        raise ModelError(f"{folder}: cannot be loaded as Stable Diffusion: {hub.first_line(failed)}") from failed
    _fit_tokenizer(folder, pipeline.tokenizer, pipeline.text_encoder.config)
    return pipeline


def _fit_tokenizer(folder: Path, tokenizer: Any, encoder: Any) -> None:
    """Let texts be as long as the text encoder takes them: a tokenizer's file may say more, or nothing at all.

    Raises:
        ModelError: the tokenizer has tokens that the encoder has no embedding for, or none to pad with.
    """
    own, most = tokenizer.model_max_length, encoder.max_position_embeddings
    tokenizer.model_max_length = min(own, most) if isinstance(own, int) and own > 2 else most  # More than its markers.
    if tokenizer.pad_token is None:
        raise ModelError(f"{folder / 'tokenizer'}: tokenizer_config.json has no pad_token, which short texts need")
    if len(tokenizer) > encoder.vocab_size:
        raise ModelError(
            f"{folder / 'tokenizer'}: {len(tokenizer)} tokens, and text_encoder/config.json has a vocab_size of "
            f"{encoder.vocab_size}; they do not belong together"
        )


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
    """The precision a stage works in; `auto` is the device's best: on a CPU bf16 where it multiplies that natively.

    Args:
        asked: the recipe's word.
        stage: whose setting it is.
        on: the device.

    Raises:
        RecipeError: a precision that the device cannot do.
    """
    if asked == "auto":
        if on.type == "cuda":
            return "fp16"
        return "bf16" if on.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"
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


def set_attention_backend(unet: Any, backend: Attention) -> None:
    """Set the UNet's attention backend; PyTorch's own is diffusers' default."""
    if backend == "xformers":
        unet.enable_xformers_memory_efficient_attention()
    elif backend == "plain":
        unet.set_attn_processor(AttnProcessor())


def place(module: Any, *where: Any, **how: Any) -> Any:
    """`module.to(…)` without diffusers' own, which warns of parts to be kept in float32 even where there are none."""
    return torch.nn.Module.to(module, *where, **how)


def scheduler(base: Base, name: str) -> Any:
    """The recipe's scheduler with the base's own noise schedule and prediction type, and nothing else of the base's."""
    return SCHEDULERS[name].from_config(base.pipeline.scheduler.config)


@torch.no_grad()
def text_embeddings(base: Base, texts: Sequence[str], on: torch.device, reporter: Reporter) -> torch.Tensor:
    """Embeddings of `texts`, shaped (texts, tokens, width); a text the tokenizer must cut is named in a warning."""
    tokenizer = base.pipeline.tokenizer
    for text in dict.fromkeys(texts):
        tokens = tokenizer(text, truncation=False, verbose=False).input_ids
        if len(tokens) > tokenizer.model_max_length:
            # The first and the last token are the markers of start and end.
            cut = tokenizer.decode(tokens[tokenizer.model_max_length - 1 : -1])
            reporter.warn(
                f"prompt longer than the base's {tokenizer.model_max_length} tokens; cut off: {cut.strip()!r}"
            )
    encoded = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    encoder = base.pipeline.text_encoder.to(on)
    masked = getattr(encoder.config, "use_attention_mask", False)
    parts = zip(encoded.input_ids.to(on).split(TEXTS), encoded.attention_mask.to(on).split(TEXTS), strict=True)
    read = torch.cat([encoder(ids, attention_mask=mask if masked else None)[0] for ids, mask in parts])
    if not finite.is_finite(read):
        bad = next(text for text, one in zip(texts, read, strict=True) if not finite.is_finite(one))
        raise ModelError(
            f"the base's text encoder makes NaN or infinity of {bad!r} in {encoder.dtype}; "
            f"set {reporter.stage}.precision to fp32"
        )
    return read

"""Stable Diffusion 1.x and 2.x, loaded safely: the same code for the hub, a directory and the miniature."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from avignon.core.errors import AvignonError, ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest
from avignon.models import finite, hub
from avignon.models.base import (
    AdapterTargets,
    BaseSettings,
    Conditioning,
    DiffusionBase,
    LatentMoments,
    SamplingSettings,
)
from avignon.models.runtime import Attention, move_to
from avignon.models.stable_diffusion import files

TEXTS = 32
"""How many texts go through the text encoder at once: all captions of a set would not fit a small card."""

_SAMPLERS = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
}

_CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}

_NOT_NEEDED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


def _per_sample(layer: str, module: Any) -> tuple[int, ...]:
    """A layer's output is (B, C, h, w), (B, tokens, C), or (B, C) of times."""
    if isinstance(module, torch.nn.Conv2d):
        return (-1, 1, 1, 1)
    return (-1, 1) if "time_emb" in layer else (-1, 1, 1)


class StableDiffusion(DiffusionBase):
    """A Stable Diffusion 1.x or 2.x; `pipeline` is diffusers' own, in evaluation mode, every parameter frozen."""

    targets = AdapterTargets(
        kinds={
            "attention": ("to_q", "to_k", "to_v", "to_out.0"),
            "projection": ("proj_in", "proj_out"),
            "convolution": ("conv1", "conv2"),
        },
        blocks=r"(down|up)_blocks\.\d+|mid_block",
        part_of=lambda layer: layer.partition("_")[0],
        per_sample=_per_sample,
        prefix="unet",
    )
    denoiser_part = "unet"
    denoiser_files = files.WEIGHTS["unet"]

    def __init__(self, pipeline: Any, *identity: Any) -> None:
        super().__init__(*identity)
        self.pipeline = pipeline
        self.denoiser = pipeline.unet

    @property
    def prompt_encoders(self) -> dict[str, Any]:  # noqa: D102
        return {"text_encoder": self.pipeline.text_encoder}

    def move_to(self, device: torch.device) -> None:  # noqa: D102 - as in the protocol, here and below
        self.pipeline.to(device)
        # The VAE of some models overflows to black pictures in fp16.
        self.pipeline.vae.to(torch.float32)

    def offload(self) -> None:  # noqa: D102
        for part in (self.pipeline.vae, self.pipeline.text_encoder):
            move_to(part, "cpu")

    def set_attention_backend(self, backend: Attention) -> None:  # noqa: D102
        if backend == "xformers":
            self.denoiser.enable_xformers_memory_efficient_attention()
        elif backend == "plain":
            self.denoiser.set_attn_processor(AttnProcessor())  # PyTorch's own is diffusers' default.

    @property
    def architecture(self) -> str:  # noqa: D102
        if not self.denoiser.config.use_linear_projection:  # Version 2 alone projects with linear layers.
            return "stable-diffusion-v1"
        return "stable-diffusion-v2-768-v" if self.prediction_type == "v" else "stable-diffusion-v2-512"

    @property
    def prediction_type(self) -> str:  # noqa: D102
        return str(self.pipeline.scheduler.config.prediction_type).removesuffix("_prediction")

    @property
    def max_tokens(self) -> int:  # noqa: D102
        positions = int(self.pipeline.text_encoder.config.max_position_embeddings)
        return min(int(self.pipeline.tokenizer.model_max_length), positions)

    def _tokens(self, text: str) -> list[int]:
        return list(self.pipeline.tokenizer(text, truncation=False, verbose=False).input_ids)

    def reads_whole(self, text: str) -> bool:  # noqa: D102
        return len(self._tokens(text)) <= self.max_tokens

    @torch.no_grad()
    def encode_prompts(self, texts: Sequence[str], device: torch.device, reporter: Reporter) -> Conditioning:
        """The text encoder's last hidden state, `text`: (B, tokens, width)."""
        tokenizer, longest = self.pipeline.tokenizer, self.max_tokens
        for text in dict.fromkeys(texts):
            tokens = self._tokens(text)
            if len(tokens) > longest:
                # The first and the last token are the markers of start and end.
                cut = tokenizer.decode(tokens[longest - 1 : -1])
                reporter.warn(f"prompt longer than the base's {longest} tokens; cut off: {cut.strip()!r}")
        encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        encoder = self.pipeline.text_encoder.to(device)
        masked = getattr(encoder.config, "use_attention_mask", False)
        tensors = (encoded[name].to(device).split(TEXTS) for name in ("input_ids", "attention_mask"))
        parts = zip(*tensors, strict=True)
        read = torch.cat([encoder(ids, attention_mask=mask if masked else None)[0] for ids, mask in parts])
        if not finite.is_finite(read):
            bad = next(text for text, one in zip(texts, read, strict=True) if not finite.is_finite(one))
            raise ModelError(
                f"the base's text encoder makes NaN or infinity of {bad!r} in {encoder.dtype}; "
                f"set {reporter.stage}.precision to fp32"
            )
        return Conditioning({"text": read})

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:  # noqa: D102
        scale = self.pipeline.vae_scale_factor
        return self.denoiser.config.in_channels, height // scale, width // scale

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> LatentMoments:  # noqa: D102
        vae = move_to(self.pipeline.vae, pixels.device, torch.float32)
        posterior, scale = vae.encode(pixels).latent_dist, vae.config.scaling_factor
        return LatentMoments(posterior.mean * scale, posterior.std * scale)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:  # noqa: D102
        vae = move_to(self.pipeline.vae, latents.device, torch.float32)
        pixels: torch.Tensor = vae.decode(latents.float() / vae.config.scaling_factor, return_dict=False)[0]
        return pixels

    @cached_property
    def _noise_scheduler(self) -> Any:
        return DDPMScheduler.from_config(self.pipeline.scheduler.config)

    @property
    def num_train_timesteps(self) -> int:  # noqa: D102
        return int(self._noise_scheduler.config.num_train_timesteps)

    def sample_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:  # noqa: D102
        return torch.randint(self.num_train_timesteps, (count,), generator=generator)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:  # noqa: D102
        noisy: torch.Tensor = self._noise_scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def training_target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the UNet was trained to say.

        epsilon: Ho et al., arXiv:2006.11239, eq. 14. v: Salimans & Ho, arXiv:2202.00512, section 4.

        Raises:
            AvignonError: the base's scheduler predicts something else.
        """
        kind = self._noise_scheduler.config.prediction_type
        if kind == "v_prediction":
            velocity: torch.Tensor = self._noise_scheduler.get_velocity(latents, noise, timesteps)
            return velocity
        if kind not in files.PREDICTIONS:
            raise AvignonError(f"the base's scheduler predicts {kind!r}; {', '.join(files.PREDICTIONS)} are understood")
        return noise if kind == "epsilon" else latents

    def loss_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
        """min(SNR, γ) on the error of the clean sample, put in terms of the target.

        Hang et al., arXiv:2303.09556, section 3.4: an error of x is one of ε by SNR⁻¹ and one of v by (SNR + 1)⁻¹.
        At a zero terminal SNR (Lin et al., arXiv:2305.08891) ε says nothing about x and its weight is 1, the limit.
        """
        kept: torch.Tensor = self._noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        snr: torch.Tensor = kept / (1 - kept)
        kind = self._noise_scheduler.config.prediction_type
        if kind == "epsilon":
            return (gamma / snr).clamp(max=1.0)
        return snr.clamp(max=gamma) / (snr + 1 if kind == "v_prediction" else 1)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:  # noqa: D102
        unet, text = self.denoiser, conditioning.tensors["text"]
        predicted: torch.Tensor = unet(noisy.to(unet.dtype), timesteps, text.to(unet.dtype), return_dict=False)[0]
        return predicted.float()

    def sampler(self, name: str) -> Any:  # noqa: D102
        return _SAMPLERS[name].from_config(self.pipeline.scheduler.config)


def fetch(model: str, folder: Path, settings: BaseSettings, access: hub.Access) -> Path:
    """Bring a repository's files into the hub's cache; `files.check_kind` reads its small ones, in `folder`, first."""
    if not access.offline:
        names = [Path(name) for name in hub.files_of(model, settings.revision, access)]
        for part, stem in files.WEIGHTS.items():
            within = [name.name for name in names if name.parent == Path(part)]
            hub.check_names(within, Path(model, part), stem, settings.variant, "base.variant")
        files.check_kind(folder)
    fetched = StableDiffusionPipeline.download(
        model,
        revision=settings.revision,
        variant=settings.variant or None,
        use_safetensors=True,
        local_files_only=bool(access.offline),
        token=access.token,
        **_NOT_NEEDED,
    )
    return Path(fetched)


def load(
    model: str, folder: Path, settings: BaseSettings, sampling: SamplingSettings, dtype: torch.dtype, reporter: Reporter
) -> StableDiffusion:
    """Check and load a base; see `loading.load`."""
    diffusers_logging.disable_progress_bar()  # The terminal is ours; downloads keep their bars.
    transformers_logging.disable_progress_bar()
    files.check(folder, settings.variant)
    noise = files.noise_schedule(folder)
    files.check_sampler(sampling, noise)
    if files.is_shifted(folder):
        place = folder / "scheduler"
        reporter.warn(f"{place}: snr_shift_scale is not used: Stable Diffusion was never trained with it")
    pipeline = _read(folder, settings.variant, dtype, noise)
    size = pipeline.unet.config.sample_size
    trained_at = size * pipeline.vae_scale_factor if isinstance(size, int) else settings.resolution
    resolution = settings.resolution or trained_at
    if resolution % pipeline.vae_scale_factor:
        raise RecipeError(f"base.resolution: {resolution} is not a multiple of {pipeline.vae_scale_factor}")
    if trained_at != resolution:
        reporter.warn(f"{model} was trained at {trained_at} pixels, {resolution} are asked for")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    stems = {**files.WEIGHTS, "tokenizer": ""}
    parts = {part: hub.part(folder / part, stem, settings.variant) for part, stem in stems.items()}
    parts["scheduler"] = digest(noise)  # Nothing else of it is used.
    return StableDiffusion(pipeline, model, folder, settings.variant, resolution, parts)


def _read(folder: Path, variant: str, dtype: torch.dtype, noise: dict[str, Any]) -> Any:
    """The pipeline, whose scheduler has nothing of the base's but its noise schedule."""
    how = {"variant": variant or None, "dtype": dtype}
    parts = {part: hub.read(kind, folder / part, **how) for part, kind in _CLASSES.items()}
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
    """Let texts be as long as the text encoder takes them: a tokenizer's file may say more, or nothing at all."""
    place, own, most = folder / "tokenizer", tokenizer.model_max_length, encoder.max_position_embeddings
    tokenizer.model_max_length = min(own, most) if isinstance(own, int) and own > 2 else most  # More than its markers.
    if tokenizer.pad_token is None:
        raise ModelError(f"{place}: tokenizer_config.json has no pad_token, which short texts need")
    if len(tokenizer) > encoder.vocab_size:
        raise ModelError(
            f"{place}: {len(tokenizer)} tokens, and text_encoder/config.json has a vocab_size of "
            f"{encoder.vocab_size}; they do not belong together"
        )

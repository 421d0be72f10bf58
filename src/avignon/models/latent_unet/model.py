"""A UNet over a VAE's latents, loaded safely: the same code for the hub, a directory and the miniature.

Stable Diffusion and SDXL differ in their text encoders and in what their UNets are told beside a text: a subclass
says which classes read texts, `_read` what becomes of them, and `_besides` what else goes into the UNet.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from avignon.core.errors import AvignonError, ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest, sha256_of
from avignon.models import finite, hub
from avignon.models.base import AdapterTargets, Conditioning, DiffusionBase, LatentMoments
from avignon.models.latent_unet import noise as noise_schedules
from avignon.models.latent_unet import single_file
from avignon.models.latent_unet.files import Layout
from avignon.models.meta import META, Configs, without_weights
from avignon.models.registry import FAMILIES, is_checkpoint
from avignon.models.runtime import Attention, move_to
from avignon.models.settings import BaseSettings, SamplingSettings

_SAMPLERS = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
}

_CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def _per_sample(layer: str, module: Any) -> tuple[int, ...]:
    """A layer's output is (B, C, h, w), (B, tokens, C), or (B, C) of times and sizes."""
    if isinstance(module, torch.nn.Conv2d):
        return (-1, 1, 1, 1)
    return (-1, 1) if "time_emb" in layer or "add_embedding" in layer else (-1, 1, 1)


class LatentUNet(DiffusionBase):
    """`pipeline` is diffusers' own, in evaluation mode, every parameter frozen."""

    layout: ClassVar[Layout]
    text_classes: ClassVar[Mapping[str, Any]]
    """transformers' classes of the text encoders, by part."""

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
    denoiser_files = "diffusion_pytorch_model"

    def __init__(self, pipeline: Any, *identity: Any, file: Path | None = None) -> None:
        super().__init__(*identity)
        self.pipeline = pipeline
        self.denoiser = pipeline.unet
        self.file = file
        """The single file that holds its weights; `folder` then has its small files alone."""

    @property
    def revision(self) -> str:  # noqa: D102 - as in the protocol, here and below
        return "" if self.file else super().revision

    @cached_property
    def fingerprint(self) -> str:
        """As of a folder of the same UNet: over its weights by diffusers' names, rounded to fp16."""
        if not self.file:
            return super().fingerprint
        unet = single_file.read(UNet2DConditionModel, self.file, self.folder, torch.float16, subfolder="unet")
        return hub.rounded_tensors(sorted(unet.state_dict().items()))

    @cached_property
    def earlier_names(self) -> frozenset[str]:  # noqa: D102
        return frozenset() if self.file else super().earlier_names

    @property
    def autoencoder(self) -> Any:  # noqa: D102
        return self.pipeline.vae

    @autoencoder.setter
    def autoencoder(self, vae: Any) -> None:
        self.pipeline.vae = vae

    @property
    def prompt_encoders(self) -> dict[str, Any]:  # noqa: D102
        return {part: encoder for part in self.text_classes if (encoder := getattr(self.pipeline, part))}

    @property
    def readers(self) -> tuple[Any, ...]:  # noqa: D102
        return tuple(self.prompt_encoders.values())

    @property
    def prediction_type(self) -> str:  # noqa: D102
        return str(self.pipeline.scheduler.config.prediction_type).removesuffix("_prediction")

    def offload(self) -> None:  # noqa: D102
        for part in (self.autoencoder, *self.readers):
            move_to(part, "cpu")

    def release_readers(self) -> None:  # noqa: D102
        self.pipeline.register_modules(**dict.fromkeys(self.text_classes))

    def set_attention_backend(self, backend: Attention) -> None:  # noqa: D102
        if backend == "xformers":
            self.denoiser.enable_xformers_memory_efficient_attention()
        elif backend == "plain":
            self.denoiser.set_attn_processor(AttnProcessor())  # PyTorch's own is diffusers' default.

    @property
    def _tokenized(self) -> list[tuple[Any, Any]]:
        """Each tokenizer with its text encoder."""
        pairs = self.layout.tokenizers.items()
        return [(getattr(self.pipeline, tokenizer), getattr(self.pipeline, encoder)) for tokenizer, encoder in pairs]

    @property
    def max_tokens(self) -> int:  # noqa: D102
        readers = self._tokenized
        return min(min(int(t.model_max_length), int(e.config.max_position_embeddings)) for t, e in readers)

    def reads_whole(self, text: str) -> bool:  # noqa: D102
        return not self._cut_off(text)

    def _cut_off(self, text: str) -> str:
        """What a tokenizer leaves no room for; empty where all of a text is read."""
        longest = self.max_tokens
        for tokenizer, _ in self._tokenized:
            tokens = tokenizer(text, truncation=False, verbose=False).input_ids
            if len(tokens) > longest:
                # The first and the last token are the markers of start and end.
                return str(tokenizer.decode(tokens[longest - 1 : -1])).strip() or text
        return ""

    @torch.no_grad()
    def encode_prompts(self, texts: Sequence[str], device: torch.device, reporter: Reporter) -> Conditioning:
        """What the text encoders make of texts, by name: `text` (B, tokens, width), and what a family has besides."""
        for text in dict.fromkeys(texts):
            if cut := self._cut_off(text):
                reporter.warn(f"prompt longer than the base's {self.max_tokens} tokens; cut off: {cut!r}")
        batches = (texts[start : start + self.texts_at_once] for start in range(0, len(texts), self.texts_at_once))
        read = Conditioning.cat([Conditioning(self._read(batch, device)) for batch in batches])
        if finite.first_bad(read.tensors.items()):
            bad = next(t for t, one in zip(texts, read.split(1), strict=True) if finite.first_bad(one.tensors.items()))
            raise ModelError(
                f"the base's text encoder makes NaN or infinity of {bad!r} in {self._tokenized[0][1].dtype}; "
                f"set {reporter.stage}.precision to fp32"
            )
        return read

    @abstractmethod
    def _read(self, texts: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
        """The conditioning's tensors of a few texts."""

    def _encoders_on(self, device: torch.device, texts: Sequence[str]) -> Iterator[tuple[Any, Any, Any]]:
        """Each text encoder on a device, with the texts' tokens and their attention mask, (B, tokens)."""
        for tokenizer, encoder in self._tokenized:
            how = {"padding": "max_length", "truncation": True, "max_length": self.max_tokens, "return_tensors": "pt"}
            encoded = tokenizer(list(texts), **how)
            yield encoder.to(device), encoded["input_ids"].to(device), encoded["attention_mask"].to(device)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:  # noqa: D102
        scale = self.pipeline.vae_scale_factor
        return self.denoiser.config.in_channels, height // scale, width // scale

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> LatentMoments:  # noqa: D102
        vae = move_to(self.autoencoder, pixels.device, torch.float32)
        posterior, scale = vae.encode(pixels).latent_dist, vae.config.scaling_factor
        return LatentMoments(posterior.mean * scale, posterior.std * scale)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:  # noqa: D102
        vae = move_to(self.autoencoder, latents.device, torch.float32)
        pixels: torch.Tensor = vae.decode(latents.float() / vae.config.scaling_factor, return_dict=False)[0]
        return pixels

    @cached_property
    def _noise_scheduler(self) -> Any:
        return DDPMScheduler.from_config(self.pipeline.scheduler.config)

    @property
    def num_train_timesteps(self) -> int:  # noqa: D102
        return int(self._noise_scheduler.config.num_train_timesteps)

    def sample_timesteps(self, count: int, generator: torch.Generator, width: int, height: int) -> torch.Tensor:  # noqa: ARG002, D102
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
        if kind not in noise_schedules.PREDICTIONS:
            known = ", ".join(noise_schedules.PREDICTIONS)
            raise AvignonError(f"the base's scheduler predicts {kind!r}; {known} are understood")
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
        unet, told = self.denoiser, conditioning.tensors
        text = told["text"].to(unet.dtype)
        predicted: torch.Tensor = unet(noisy.to(unet.dtype), timesteps, text, **self._besides(told), return_dict=False)[
            0
        ]
        return predicted.float()

    def _besides(self, told: Mapping[str, torch.Tensor]) -> dict[str, Any]:  # noqa: ARG002
        """What the UNet is told beside a text."""
        return {}

    def sampler(self, name: str, steps: int, width: int, height: int) -> Any:  # noqa: ARG002, D102
        sampler = _SAMPLERS[name].from_config(self.pipeline.scheduler.config)
        sampler.set_timesteps(steps)
        return sampler

    @classmethod
    def load(
        cls,
        model: str,
        folder: Path,
        settings: BaseSettings,
        sampling: SamplingSettings,
        dtype: torch.dtype | None,
        reporter: Reporter,
    ) -> Self:
        """Check and load a base; see `loading.load`."""
        diffusers_logging.disable_progress_bar()  # The terminal is ours; downloads keep their bars.
        transformers_logging.disable_progress_bar()
        file = Path(settings.model) if is_checkpoint(settings.model) else None
        noise = FAMILIES[cls.family].files.checked(folder, settings)
        noise_schedules.check_sampler(sampling, noise)
        if noise_schedules.is_shifted(folder):
            place = folder / "scheduler"
            reporter.warn(f"{place}: snr_shift_scale is not used: {cls.layout.label} was never trained with it")
        pipeline = cls._pipeline(folder, file, settings, dtype, noise)
        resolution = _resolution(pipeline, model, settings.resolution, reporter)
        for network in filter(None, (getattr(pipeline, part) for part in cls.layout.weights)):
            network.requires_grad_(False).eval()
        parts = cls._weights(folder, file, settings.variant) | cls._further_parts(pipeline)
        parts |= {name: hub.part(folder / name) for name in cls.layout.tokenizers}
        parts["scheduler"] = digest(noise)  # Nothing else of it is used.
        return cls(pipeline, model, folder, settings.variant, resolution, parts, file=file)

    @classmethod
    def outlined(cls, configs: Configs, resolution: int) -> Self:  # noqa: D102
        parts = {part: without_weights(kind, configs[part]) for part, kind in {**_CLASSES, **cls.text_classes}.items()}
        scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
        how = {**dict.fromkeys(cls.layout.tokenizers), **parts, "scheduler": scheduler, **cls.pipeline_settings}
        pipeline = cls.pipeline_class(**how)
        return cls(pipeline, "", Path(), "", resolution or _trained_at(pipeline), {})

    def blank_conditioning(self, count: int) -> Conditioning:  # noqa: D102
        configs = [encoder.config for encoder in self.prompt_encoders.values()]
        width = sum(config.hidden_size for config in configs)
        text = torch.empty(count, configs[0].max_position_embeddings, width, device=META)
        return Conditioning({"text": text})

    @classmethod
    def _weights(cls, folder: Path, file: Path | None, variant: str) -> dict[str, str]:
        """Hashes of the parts that hold weights, with their configurations."""
        if file:
            content = sha256_of(file)
            return {part: digest([hub.part(folder / part), content]) for part in cls.layout.weights}
        return {part: hub.part(folder / part, stem, variant) for part, stem in cls.layout.weights.items()}

    @classmethod
    def _further_parts(cls, pipeline: Any) -> dict[str, str]:  # noqa: ARG003
        """Hashes of what else of a pipeline's own settings is used."""
        return {}

    @classmethod
    def _pipeline(
        cls, folder: Path, file: Path | None, settings: BaseSettings, dtype: torch.dtype | None, noise: Any
    ) -> Any:
        """The pipeline, whose scheduler has nothing of the base's but its noise schedule."""
        how = {"scheduler": DDIMScheduler.from_config(noise), **cls.pipeline_settings}
        if file:
            if settings.vae:  # It is put into its place; the file's own may be missing, or hold NaN.
                how["vae"] = None
            pipeline = single_file.read(cls.pipeline_class, file, folder, dtype, **how)
            for part in cls.layout.weights.keys() - how.keys():
                single_file.check_read(getattr(pipeline, part), part, file)
        else:
            pipeline = cls._from_folder(folder, settings.variant, dtype, how)
        for name, part in cls.layout.tokenizers.items():
            _fit_tokenizer(folder / name, getattr(pipeline, name), part, getattr(pipeline, part).config)
        return pipeline

    @classmethod
    def _from_folder(cls, folder: Path, variant: str, dtype: torch.dtype | None, how: Mapping[str, Any]) -> Any:
        classes = {**_CLASSES, **cls.text_classes}
        parts = {p: hub.read(kind, folder / p, variant=variant or None, dtype=dtype) for p, kind in classes.items()}
        try:
            return cls.pipeline_class.from_pretrained(folder, dtype=dtype, local_files_only=True, **parts, **how)
        except Exception as failed:
            raise ModelError(f"{folder}: cannot be loaded as {cls.layout.label}: {hub.first_line(failed)}") from failed


def _resolution(pipeline: Any, model: str, asked: int, reporter: Reporter) -> int:
    """The resolution that is asked for; 0 is the one that the base was trained at, and another one a warning.

    Raises:
        RecipeError: it is no whole number of latent pixels.
    """
    trained_at = _trained_at(pipeline)
    resolution = asked or trained_at
    if resolution % (scale := pipeline.vae_scale_factor):
        raise RecipeError(f"base.resolution: {resolution} is not a multiple of {scale}")
    if trained_at not in (0, resolution):
        reporter.warn(f"{model} was trained at {trained_at} pixels, {resolution} are asked for")
    return resolution


def _trained_at(pipeline: Any) -> int:
    """Pixels of a side that the base was trained at; 0 where its files do not say."""
    size = pipeline.unet.config.sample_size
    return size * int(pipeline.vae_scale_factor) if isinstance(size, int) else 0


def _fit_tokenizer(place: Path, tokenizer: Any, part: str, encoder: Any) -> None:
    """Let texts be as long as the text encoder takes them: a tokenizer's file may say more, or nothing at all."""
    own, most = tokenizer.model_max_length, encoder.max_position_embeddings
    tokenizer.model_max_length = min(own, most) if isinstance(own, int) and own > 2 else most  # More than its markers.
    if tokenizer.pad_token is None:
        raise ModelError(f"{place}: tokenizer_config.json has no pad_token, which short texts need")
    if len(tokenizer) > encoder.vocab_size:
        raise ModelError(
            f"{place}: {len(tokenizer)} tokens, and {part}/config.json has a vocab_size of "
            f"{encoder.vocab_size}; they do not belong together"
        )

"""Z-Image: pictures from text by a transformer of one stream (Z-Image team, arXiv:2511.22699), by flow matching.

What goes in and out is that of diffusers' ZImagePipeline, whose pictures are ours.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import Attention as AttentionLayer
from diffusers.utils import logging as diffusers_logging
from transformers import AutoTokenizer, Qwen3Model
from transformers.utils import logging as transformers_logging

from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest
from avignon.models import finite, hub
from avignon.models.base import (
    META,
    OUTLINED_TOKENS,
    AdapterTargets,
    BaseSettings,
    Conditioning,
    Configs,
    LatentMoments,
    SamplingSettings,
    TrainingSettings,
    without_weights,
)
from avignon.models.flow.matching import FlowMatching
from avignon.models.flow.noise import LEVELS
from avignon.models.runtime import Attention, move_to
from avignon.models.z_image import files

TOKENS = 512
"""Of a text with its marks, at most (`max_sequence_length` of diffusers' pipeline)."""

TEXTS = 8
"""How many texts go through the text encoder at once: it has four billion weights, and keeps all its hidden states."""

RESOLUTION = 1024
"""Pixels of a side that its makers show and diffusers' pipeline has by default."""

PATCH = 2
"""Latent pixels of a token's side."""

_CLASSES = {"transformer": ZImageTransformer2DModel, "vae": AutoencoderKL, "text_encoder": Qwen3Model}

_BACKENDS: Mapping[Attention, AttentionBackendName] = {
    "sdpa": AttentionBackendName.NATIVE,
    "plain": AttentionBackendName._NATIVE_MATH,
    "xformers": AttentionBackendName.XFORMERS,
}


def _per_sample(layer: str, module: Any) -> tuple[int, ...]:  # noqa: ARG001 - the name alone tells
    """A layer's output is (B, tokens, C); of times (B, C); of embedders it has the tokens of all samples in one row."""
    if re.search(r"adaLN_modulation|t_embedder", layer):
        return (-1, 1)
    return () if re.search(r"x_embedder|cap_embedder", layer) else (-1, 1, 1)


def _targets(layers: int) -> AdapterTargets:
    """The layers to adapt: attention, as in diffusers' script, and the feed-forward networks.

    The latter is OneTrainer's preset `attn-mlp` (https://github.com/Nerogar/OneTrainer/pull/1195).

    Thirds of the blocks are early, middle and late; the two refiners of each input come before all of them.
    """

    def part_of(layer: str) -> str:
        found = re.match(r"layers\.(\d+)\.", layer)
        return ("early", "middle", "late")[int(found[1]) * 3 // layers if found else 0]

    return AdapterTargets(
        kinds={
            "attention": ("to_q", "to_k", "to_v", "to_out.0"),
            "projection": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        },
        blocks=r"(layers|noise_refiner|context_refiner)\.\d+",
        part_of=part_of,
        per_sample=_per_sample,
        prefix="transformer",
    )


class ZImage(FlowMatching):
    """A Z-Image, in evaluation mode, every parameter frozen."""

    family = "z-image"
    denoiser_part = "transformer"
    denoiser_files = files.WEIGHTS["transformer"]
    architecture = "Z-Image"  # As kohya's musubi-tuner writes it: ModelSpec names no Z-Image.

    def __init__(self, loaded: Mapping[str, Any], noise: Mapping[str, Any], *identity: Any) -> None:
        super().__init__(*identity)
        self.denoiser, self.noise = loaded["transformer"], noise
        self.vae, self.text_encoder, self.tokenizer = loaded["vae"], loaded["text_encoder"], loaded["tokenizer"]
        self.targets = _targets(len(self.denoiser.layers))

    def check_training(self, settings: TrainingSettings) -> None:
        """A step-distilled base must not be trained on bare.

        What it learns is to make pictures in many steps again (https://github.com/SceneWorks/SceneWorks/pull/126).
        """
        super().check_training(settings)
        if self.noise["shift"] == files.TURBO_SHIFT:
            raise RecipeError(
                f"base.model: {self.model} is the distilled Z-Image-Turbo (its scheduler's shift is "
                f"{files.TURBO_SHIFT:g}, the base's is 6): it can be painted with, but training undoes its "
                "distillation; train on z-image"
            )

    @property
    def readers(self) -> tuple[Any, ...]:  # noqa: D102 - as in the protocol, here and below
        return (self.text_encoder,) if self.text_encoder else ()

    def offload(self) -> None:  # noqa: D102
        for part in (self.vae, *self.readers):
            move_to(part, "cpu")

    def release_readers(self) -> None:  # noqa: D102
        self.text_encoder = None

    def set_attention_backend(self, backend: Attention) -> None:  # noqa: D102
        for module in self.denoiser.modules():
            if isinstance(module, AttentionLayer):  # The model's own method sets that of every other model as well.
                module.processor._attention_backend = _BACKENDS[backend]

    @property
    def max_tokens(self) -> int:  # noqa: D102
        return min(TOKENS, int(self.text_encoder.config.max_position_embeddings))

    def _asked(self, text: str) -> str:
        """A text as the encoder is asked with it: a user's turn, and the mark of an answer."""
        turn = [{"role": "user", "content": text}]
        how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
        return str(self.tokenizer.apply_chat_template(turn, **how))

    def _cut_off(self, text: str) -> str:
        """What there is no room for; empty where all of a text is read."""
        tokens = self.tokenizer(self._asked(text), truncation=False, verbose=False).input_ids
        return str(self.tokenizer.decode(tokens[self.max_tokens :])) if len(tokens) > self.max_tokens else ""

    def reads_whole(self, text: str) -> bool:  # noqa: D102
        return not self._cut_off(text)

    @torch.no_grad()
    def encode_prompts(self, texts: Sequence[str], device: torch.device, reporter: Reporter) -> Conditioning:
        """`text`, (B, tokens, width): Qwen3's last hidden states but one, zeros behind each; `length`, (B,), of each.

        The empty text is read as any other, as diffusers' pipeline does where there is no negative prompt.
        """
        for text in dict.fromkeys(texts):
            if cut := self._cut_off(text):
                reporter.warn(f"prompt longer than the base's {self.max_tokens} tokens; cut off: {cut!r}")
        read = Conditioning.cat([one for start in range(0, len(texts), TEXTS)
                                 for one in self._read(texts[start : start + TEXTS], device)])  # fmt: skip
        if finite.first_bad(read.tensors.items()):
            bad = next(t for t, one in zip(texts, read.split(1), strict=True) if finite.first_bad(one.tensors.items()))
            raise ModelError(
                f"the base's text encoder makes NaN or infinity of {bad!r} in {self.text_encoder.dtype}; "
                f"set {reporter.stage}.precision to fp32 or bf16"
            )
        return read

    def _read(self, texts: Sequence[str], device: torch.device) -> Iterator[Conditioning]:
        """Each text by itself, without what it was padded with."""
        how = {"padding": True, "truncation": True, "max_length": self.max_tokens, "return_tensors": "pt"}
        tokens = self.tokenizer([self._asked(text) for text in texts], **how).to(device)
        mask = tokens.attention_mask.bool()
        encoder = move_to(self.text_encoder, device)
        said = encoder(input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        for one, own in zip(said, mask, strict=True):
            yield Conditioning({"text": one[own][None], "length": own.sum()[None]})

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:  # noqa: D102
        return self.denoiser.config.in_channels, height // self._scale, width // self._scale

    @property
    def _scale(self) -> int:
        """Pixels of a latent pixel's side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def tokens_of(self, width: int, height: int) -> int:  # noqa: D102
        edge = PATCH * self._scale
        return (height // edge) * (width // edge)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> LatentMoments:  # noqa: D102
        vae = move_to(self.vae, pixels.device, torch.float32)
        posterior, scale = vae.encode(pixels).latent_dist, vae.config.scaling_factor
        return LatentMoments((posterior.mean - vae.config.shift_factor) * scale, posterior.std * scale)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:  # noqa: D102
        vae = move_to(self.vae, latents.device, torch.float32)
        unscaled = latents.float() / vae.config.scaling_factor + vae.config.shift_factor
        pixels: torch.Tensor = vae.decode(unscaled, return_dict=False)[0]
        return pixels

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The velocity from picture to noise.

        The transformer's time runs from noise, 0, to the picture, 1, and so does its velocity: (1000 − t)/1000 goes in,
        and what comes out is negated (diffusers' `pipeline_z_image.py`; `train_dreambooth_lora_z_image.py`).
        """
        told, dtype = conditioning.tensors, self.denoiser.dtype
        pairs = zip(told["text"].to(dtype), told["length"].tolist(), strict=True)
        times = ((LEVELS - timesteps) / LEVELS).expand(len(noisy))
        pictures = list(noisy.to(dtype).unsqueeze(2))  # Each (C, 1, h, w).
        said = self.denoiser(pictures, times, [text[:length] for text, length in pairs], return_dict=False)[0]
        return -torch.stack(said).squeeze(2).float()

    @classmethod
    def outlined(cls, configs: Configs, resolution: int) -> Self:  # noqa: D102
        parts = {part: without_weights(kind, configs[part]) for part, kind in _CLASSES.items()}
        noise = {"shift": 6.0, "use_dynamic_shifting": False}
        return cls({**parts, "tokenizer": None}, noise, "", Path(), "", resolution or RESOLUTION, {})

    @property
    def autoencoder(self) -> Any:  # noqa: D102
        return self.vae

    def blank_conditioning(self, count: int) -> Conditioning:  # noqa: D102
        text = torch.empty(count, OUTLINED_TOKENS, self.text_encoder.config.hidden_size, device=META)
        return Conditioning({"text": text, "length": torch.full((count,), OUTLINED_TOKENS)})

    @classmethod
    def fetch(cls, model: str, folder: Path, settings: BaseSettings, access: hub.Access) -> Path:
        """Bring a repository's files into the hub's cache; `check_kind` reads its small ones, in `folder`, first."""
        if not access.offline:
            hub.check_listed(model, files.WEIGHTS, settings.revision, settings.variant, access)
            files.check_kind(folder)
        fetched = ZImagePipeline.download(
            model,
            revision=settings.revision,
            variant=settings.variant or None,
            use_safetensors=True,
            local_files_only=bool(access.offline),
            token=access.token,
        )
        return Path(fetched)

    @classmethod
    def load(
        cls,
        model: str,
        folder: Path,
        settings: BaseSettings,
        sampling: SamplingSettings,
        dtype: torch.dtype | None,
        reporter: Reporter,  # noqa: ARG003 - there is nothing to warn of
    ) -> Self:
        """Check and load a base; see `loading.load`."""
        diffusers_logging.disable_progress_bar()  # The terminal is ours; downloads keep their bars.
        transformers_logging.disable_progress_bar()
        noise = files.checked(folder, settings)
        files.check_sampler(sampling, noise)
        loaded = {
            part: hub.read(kind, folder / part, variant=settings.variant or None, dtype=dtype)
            .requires_grad_(requires_grad=False)
            .eval()
            for part, kind in _CLASSES.items()
        }
        loaded["tokenizer"] = _tokenizer(folder / "tokenizer", loaded["text_encoder"].config.vocab_size)
        parts = {part: hub.part(folder / part, stem, settings.variant) for part, stem in files.WEIGHTS.items()}
        parts |= {"tokenizer": hub.part(folder / "tokenizer"), "scheduler": digest(noise)}
        base = cls(loaded, noise, model, folder, settings.variant, settings.resolution or RESOLUTION, parts)
        if base.resolution % (edge := PATCH * base._scale):
            raise RecipeError(f"base.resolution: {base.resolution} is not a multiple of {edge}, as Z-Image needs")
        return base


def _tokenizer(place: Path, words: int) -> Any:
    """The tokenizer, which must have a chat template and a mark to pad with, and no more tokens than the encoder."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as failed:
        raise ModelError(f"{place}: cannot be loaded as a tokenizer: {hub.first_line(failed)}") from failed
    for name in ("chat_template", "pad_token"):
        if not getattr(tokenizer, name, None):
            raise ModelError(f"{place}: has no {name}, which prompts of Z-Image need")
    if len(tokenizer) > words:
        raise ModelError(
            f"{place}: {len(tokenizer)} tokens, and text_encoder/config.json has a vocab_size of {words}; they do not "
            "belong together"
        )
    return tokenizer


fetch, load, outlined = ZImage.fetch, ZImage.load, ZImage.outlined

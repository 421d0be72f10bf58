"""What transformers trained by flow matching share beside their noise: a VAE, and texts asked of a language model.

A subclass says what goes into its denoiser, and what it takes of the language model's hidden states.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.utils import logging as diffusers_logging
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest
from avignon.models import finite, hub
from avignon.models.base import Conditioning
from avignon.models.flow.files import PATCH, WEIGHTS
from avignon.models.flow.matching import FlowMatching
from avignon.models.meta import Configs, without_weights
from avignon.models.registry import FAMILIES
from avignon.models.runtime import Attention, move_to
from avignon.models.settings import BaseSettings, SamplingSettings

TOKENS = 512
"""Of a text with its marks, at most (`max_sequence_length` of diffusers' pipelines)."""

RESOLUTION = 1024
"""Pixels of a side that these families' makers show and diffusers' pipelines have by default."""

_BACKENDS: Mapping[Attention, AttentionBackendName] = {
    "sdpa": AttentionBackendName.NATIVE,
    "plain": AttentionBackendName._NATIVE_MATH,
    "xformers": AttentionBackendName.XFORMERS,
}


class FlowTransformer(FlowMatching):
    """A transformer in evaluation mode, every parameter frozen; `loaded` has its parts by their folders."""

    classes: ClassVar[Mapping[str, Any]]
    """The class of each part that has weights, by its folder."""
    stored_in = torch.bfloat16
    texts_at_once = 8  # The encoder has four billion weights, and keeps all its hidden states.
    thinking: ClassVar[bool]
    """Whether the language model is asked to think before it answers (`enable_thinking` of its chat template)."""

    def __init__(self, loaded: Mapping[str, Any], noise: Mapping[str, Any], *identity: Any) -> None:
        super().__init__(*identity)
        self.denoiser, self.noise = loaded["transformer"], noise
        self.autoencoder, self.text_encoder, self.tokenizer = loaded["vae"], loaded["text_encoder"], loaded["tokenizer"]

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
        family = FAMILIES[cls.family]
        noise = family.files.checked(folder, settings)
        family.files.check_sampler(sampling, noise)
        # The language model reads each text once, in the precision that it was trained in: that of its files.
        precisions = dict.fromkeys(cls.classes, dtype) | {"text_encoder": None}
        loaded = {
            part: hub.read(kind, folder / part, variant=settings.variant or None, dtype=precisions[part])
            .requires_grad_(requires_grad=False)
            .eval()
            for part, kind in cls.classes.items()
        }
        loaded["tokenizer"] = _tokenizer(folder / "tokenizer", loaded["text_encoder"].config.vocab_size)
        parts = {part: hub.part(folder / part, stem, settings.variant) for part, stem in WEIGHTS.items()}
        parts |= {"tokenizer": hub.part(folder / "tokenizer"), "scheduler": digest(noise)}
        base = cls(loaded, noise, model, folder, settings.variant, settings.resolution or RESOLUTION, parts)
        if base.resolution % base._token_edge:
            raise RecipeError(
                f"base.resolution: {base.resolution} is not a multiple of {base._token_edge}, as {family.label} needs"
            )
        return base

    @classmethod
    def outlined(cls, configs: Configs, resolution: int) -> Self:  # noqa: D102 - as in the protocol, here and below
        parts = {part: without_weights(kind, configs[part]) for part, kind in cls.classes.items()}
        noise = {"shift": 3.0, "use_dynamic_shifting": False}  # No shape depends on it.
        return cls({**parts, "tokenizer": None}, noise, "", Path(), "", resolution or RESOLUTION, {})

    @property
    def readers(self) -> tuple[Any, ...]:  # noqa: D102
        return (self.text_encoder,) if self.text_encoder else ()

    def offload(self) -> None:  # noqa: D102
        for part in (self.autoencoder, *self.readers):
            move_to(part, "cpu")

    def release_readers(self) -> None:  # noqa: D102
        self.text_encoder = None

    def set_attention_backend(self, backend: Attention) -> None:  # noqa: D102
        for module in self.denoiser.modules():
            processor: Any = getattr(module, "processor", None)
            if hasattr(processor, "_attention_backend"):  # The model's own method sets that of all others as well.
                processor._attention_backend = _BACKENDS[backend]

    @property
    def max_tokens(self) -> int:  # noqa: D102
        return min(TOKENS, int(self.text_encoder.config.max_position_embeddings))

    def _asked(self, text: str) -> str:
        """A text as the encoder is asked with it: a user's turn, and the mark of an answer."""
        turn = [{"role": "user", "content": text}]
        how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": self.thinking}
        return str(self.tokenizer.apply_chat_template(turn, **how))

    def _cut_off(self, text: str) -> str:
        """What there is no room for; empty where all of a text is read."""
        tokens = self.tokenizer(self._asked(text), truncation=False, verbose=False).input_ids
        return str(self.tokenizer.decode(tokens[self.max_tokens :])) if len(tokens) > self.max_tokens else ""

    def reads_whole(self, text: str) -> bool:  # noqa: D102
        return not self._cut_off(text)

    @torch.no_grad()
    def encode_prompts(self, texts: Sequence[str], device: torch.device, reporter: Reporter) -> Conditioning:
        """What `_read` makes of texts; the empty one is read as any other, as diffusers' pipelines do."""
        for text in dict.fromkeys(texts):
            if cut := self._cut_off(text):
                reporter.warn(f"prompt longer than the base's {self.max_tokens} tokens; cut off: {cut!r}")
        most = self.texts_at_once
        read = Conditioning.cat([one for start in range(0, len(texts), most)
                                 for one in self._read(texts[start : start + most], device)])  # fmt: skip
        if finite.first_bad(read.tensors.items()):
            bad = next(t for t, one in zip(texts, read.split(1), strict=True) if finite.first_bad(one.tensors.items()))
            raise ModelError(
                f"the base's text encoder makes NaN or infinity of {bad!r} in {self.text_encoder.dtype}, the precision "
                "of its files; name a base whose files are in bf16 or fp32"
            )
        return read

    @abstractmethod
    def _read(self, texts: Sequence[str], device: torch.device) -> Iterator[Conditioning]:
        """What the denoiser is told of a few texts, in their order."""

    def _states(
        self, texts: Sequence[str], device: torch.device, *, padding: bool | str
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """The encoder's hidden states of texts, (B, tokens, width) after each layer, and their mask, (B, tokens)."""
        how = {"padding": padding, "truncation": True, "max_length": self.max_tokens, "return_tensors": "pt"}
        tokens = self.tokenizer([self._asked(text) for text in texts], **how).to(device)
        encoder, mask = move_to(self.text_encoder, device), tokens.attention_mask.bool()
        how = {"output_hidden_states": True, "use_cache": False}
        return encoder(input_ids=tokens.input_ids, attention_mask=mask, **how).hidden_states, mask

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of a side of what the VAE makes one latent pixel of."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    @property
    def _token_edge(self) -> int:
        """Pixels of a token's side."""
        return PATCH * self.vae_scale_factor

    def tokens_of(self, width: int, height: int) -> int:  # noqa: D102
        return (height // self._token_edge) * (width // self._token_edge)


def _tokenizer(place: Path, words: int) -> Any:
    """The tokenizer, which must have a chat template and a mark to pad with, and no more tokens than the encoder."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as failed:
        raise ModelError(f"{place}: cannot be loaded as a tokenizer: {hub.first_line(failed)}") from failed
    for name in ("chat_template", "pad_token"):
        if not getattr(tokenizer, name, None):
            raise ModelError(f"{place}: has no {name}, which prompts need")
    if len(tokenizer) > words:
        raise ModelError(
            f"{place}: {len(tokenizer)} tokens, and text_encoder/config.json has a vocab_size of {words}; they do not "
            "belong together"
        )
    return tokenizer

"""The protocol of a family of base models: all that is particular to a family, and nothing else.

A base is a frozen denoiser of latents, with what turns texts into conditionings and images into latents and back.
`models/README.md` has the checklist for a new family.
Shapes: B samples, C channels, h × w latent pixels, H × W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from avignon.core import imaging
from avignon.core.events import Reporter
from avignon.core.files import digest
from avignon.models import frozen, hub, names
from avignon.models.meta import Configs
from avignon.models.registry import FAMILIES
from avignon.models.runtime import Attention, move_to
from avignon.models.settings import BaseSettings, TrainingSettings


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser receives beside noisy latents and timesteps: named tensors, batch first."""

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, samples: Any) -> "Conditioning":
        """Some samples, by a slice or by a tensor of their numbers, (B,)."""
        return Conditioning({name: tensor[samples] for name, tensor in self.tensors.items()})

    def split(self, size: int) -> Iterator["Conditioning"]:
        """In parts of `size` samples."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def __or__(self, other: "Conditioning") -> "Conditioning":
        """What both say of the same samples."""
        return Conditioning({**self.tensors, **other.tensors})

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Several, one after the other; of tensors (B, tokens, …) of different lengths the shorter end in zeros."""
        return Conditioning({name: _joined([part.tensors[name] for part in parts]) for name in parts[0].tensors})


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    if len({tensor.shape[1:2] for tensor in tensors}) > 1:
        longest = max(tensor.shape[1] for tensor in tensors)
        grown = [tensor.new_zeros(len(tensor), longest, *tensor.shape[2:]) for tensor in tensors]
        for room, tensor in zip(grown, tensors, strict=True):
            room[:, : tensor.shape[1]] = tensor
        tensors = grown
    return torch.cat(list(tensors))


@dataclass(frozen=True)
class Framing:
    """Where a picture's pixels come from: a box of an original, resized. Widths come before heights, in pixels."""

    original: tuple[int, int]
    corner: tuple[int, int]
    """Left and top of the box, in an original that is resized as the picture was."""
    target: tuple[int, int]
    """The picture's own size."""

    @classmethod
    def whole(cls, width: int, height: int) -> "Framing":
        """A picture that was not cut from anything."""
        return cls((width, height), (0, 0), (width, height))

    @classmethod
    def cut(cls, original: Sequence[int], box: Sequence[int], target: tuple[int, int], *, mirrored: bool) -> "Framing":
        """A box (left, upper, right, lower) of an original, resized to `target`; mirrored, as the whole original is."""
        left = original[0] - box[2] if mirrored else box[0]
        corner = left * target[0] / (box[2] - box[0]), box[1] * target[1] / (box[3] - box[1])
        return cls((original[0], original[1]), (round(corner[0]), round(corner[1])), target)


@dataclass(frozen=True)
class LatentMoments:
    """Mean and standard deviation of what an image may be in latents, (B, C, h, w), in the denoiser's scale."""

    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class AdapterTargets:
    """The layers of a family's denoiser that can be adapted, and what its parts are called."""

    kinds: Mapping[str, tuple[str, ...]]
    """Ends of the names of layers of each kind that a recipe's ranks know: attention, projection, convolution."""
    blocks: str
    """A regular expression for the names of blocks, which can have ranks and weights of their own."""
    part_of: Callable[[str], str]
    """The part of the denoiser that a layer lies in (`down`, `mid`, `up`), by the layer's name."""
    per_sample: Callable[[str, Any], tuple[int, ...]]
    """The shape in which one number per sample meets a layer's output, by the layer's name and module; empty where none
    does, because the layer sees the tokens of all samples in one row."""
    prefix: str
    """Before the names of layers in an adapter's file in diffusers' format."""


ENCODER_TARGETS = AdapterTargets(kinds={}, blocks="", part_of=lambda _: "", per_sample=lambda *_: (-1, 1, 1), prefix="")
"""Of a network that reads prompts: nothing new is trained on it, and it has no parts with weights of their own."""


class DiffusionBase(ABC):
    """A loaded base model: frozen, and all that is particular to its family.

    Attributes:
        model: how the recipe calls it, or a directory's name.
        folder: where its files lie.
        variant: of the weights, `fp16` or empty.
        resolution: pixels of a side that it paints in.
        parts: SHA-256 of each part, as loaded: what other ones made is made again.
        denoiser: the network that adapters are put on.
        quantized: how its weights are kept, `int8` or `nf4`; empty: in full.
    """

    family: ClassVar[str]
    """Its row in the registry."""
    targets: AdapterTargets
    denoiser_part: ClassVar[str]
    """The folder of the denoiser, and its name among `parts`."""
    denoiser_files: ClassVar[str]
    """How the names of the denoiser's files of weights begin."""
    stored_in: ClassVar[torch.dtype] = torch.float32
    """The precision of the denoiser's files as their makers share them: what memory is estimated by."""
    texts_at_once: ClassVar[int] = 32
    """How many texts go through the networks that read them at once."""
    pipeline_class: ClassVar[Any]
    """diffusers' own pipeline of the family, which knows what files of a repository belong to it."""
    pipeline_settings: ClassVar[Mapping[str, Any]] = {}
    """What it is made with; a part that is None is not fetched."""

    def __init__(self, model: str, folder: Path, variant: str, resolution: int, parts: Mapping[str, str]) -> None:
        self.model, self.folder, self.variant, self.resolution, self.parts = model, folder, variant, resolution, parts
        self.denoiser: Any
        self.autoencoder: Any
        """The network between images and latents; `models.vae` may put another into its place."""
        self.other_vae: Mapping[str, str] = {}
        """Name and revision of a VAE that is not the base's own."""
        self.quantized = ""
        self.is_altered = False
        """Whether the recipe keeps it in fewer bits, or gives it another VAE or target than its files say."""

    @property
    @abstractmethod
    def readers(self) -> Sequence[Any]:
        """The networks that read prompts, whether adapters may change them or not; none once they are released."""

    @property
    def language_models(self) -> list[Any]:
        """Those of the readers that adapters cannot change: as large as the denoiser, and kept as their files are."""
        return [reader for reader in self.readers if reader not in self.prompt_encoders.values()]

    @classmethod
    def fetch(cls, model: str, folder: Path, settings: BaseSettings, access: hub.Access) -> Path:
        """Bring a repository's files into the hub's cache; its small ones, in `folder`, are checked first.

        Raises:
            ModelError: naming what it lacks, or holds that is not understood, before gigabytes are fetched.
        """
        files = FAMILIES[cls.family].files
        if not access.offline:
            hub.check_listed(model, files.WEIGHTS, settings.revision, settings.variant, access)
            files.check_kind(folder)
        fetched = cls.pipeline_class.download(
            model,
            revision=settings.revision,
            variant=settings.variant or None,
            use_safetensors=True,
            local_files_only=bool(access.offline),
            token=access.token,
            **cls.pipeline_settings,
        )
        return Path(fetched)

    @property
    def prompt_encoders(self) -> Mapping[str, Any]:
        """The networks that read prompts and that adapters may change as well, by their folders; in order."""
        return {}

    @property
    def networks(self) -> dict[str, Any]:
        """All networks that adapters may change, by the prefix of their layers in files; the denoiser first."""
        return {self.targets.prefix: self.denoiser, **self.prompt_encoders}

    @property
    def revision(self) -> str:
        """The hub's commit, where there is one."""
        return hub.commit_of(self.folder)

    @property
    def identity(self) -> str:
        """One hash over all parts."""
        return digest(dict(self.parts))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the denoiser's weights rounded to fp16: adapters fit every base that has this one."""
        return hub.rounded(hub.weight_files(self.folder / self.denoiser_part, self.denoiser_files, self.variant))

    @cached_property
    def earlier_names(self) -> frozenset[str]:
        """What avignon 0.1.0 may have called this base: it knew the hash of one file of the denoiser's."""
        return hub.known_as(self.folder / self.denoiser_part, self.denoiser_files)

    @property
    def earlier_identities(self) -> frozenset[str]:
        """What avignon 0.1.0 may have called it as the recipe has it; it knew nothing of bases that are altered."""
        return frozenset() if self.is_altered else self.earlier_names

    def fits(self, card: Mapping[str, Any]) -> bool:
        """Whether an adapter with this base on its card can be put on."""
        if card.get("parts", {}).get(self.denoiser_part) == self.parts[self.denoiser_part]:
            return True
        return card["fingerprint"] in self.earlier_names | {self.fingerprint}

    @classmethod
    @abstractmethod
    def outlined(cls, configs: Configs, resolution: int) -> "DiffusionBase":
        """A base of which only the shapes are there, on the meta device: what its memory is counted by."""

    @abstractmethod
    def blank_conditioning(self, count: int) -> Conditioning:
        """What `encode_prompts` makes of so many texts, each of `meta.TOKENS` or as many as are always read."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """The family's identifier in ModelSpec (https://github.com/Stability-AI/ModelSpec), for adapters' headers."""

    @property
    @abstractmethod
    def prediction_type(self) -> str:
        """What the denoiser predicts, in ModelSpec's words: `epsilon`, `v`, or another's own."""

    @property
    def card(self) -> dict[str, Any]:
        """What an adapter's card says of its base."""
        return {
            "family": self.family,
            "model": self.model,
            "architecture": self.architecture,
            "prediction_type": self.prediction_type,
            "licence": names.licence_of(self.model),
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "parts": dict(self.parts),
            "resolution": self.resolution,
            **({"vae": dict(self.other_vae)} if self.other_vae else {}),
            **({"quantized": self.quantized} if self.quantized else {}),
        }

    @property
    def is_guided(self) -> bool:
        """Whether classifier-free guidance changes its pictures: a base distilled from it has it within."""
        return True

    def quantize(self, kind: str, dtype: torch.dtype) -> None:
        """Keep the denoiser's weights in 8 or 4 bits, and compute in a precision; call it before adapters are put on.

        A network that reads prompts, if adapters cannot change it, is a language model as large as the denoiser: it is
        kept in 8 bits, since it reads each prompt once.
        """
        layers = frozen.linear_in_blocks(self.denoiser, self.targets)
        frozen.quantize(self.denoiser, layers, kind)
        for reader in self.language_models:
            frozen.quantize(reader, frozen.linear_layers(reader), "int8")
        for network in (self.denoiser, *self.prompt_encoders.values()):
            move_to(network, dtype)
        self.quantized = kind
        self.parts = {**self.parts, "quantized": digest([kind, layers])}

    def check_training(self, settings: TrainingSettings) -> None:  # noqa: B027 - most can be trained with anything
        """Refuse what this base cannot be trained with, or that it is trained on at all.

        Raises:
            RecipeError: naming the field and why.
        """

    @abstractmethod
    def offload(self) -> None:
        """Take everything but the denoiser off the device; it comes back by itself where it is needed."""

    @abstractmethod
    def release_readers(self) -> None:
        """Let go of the networks that read prompts, with their memory: all that will be asked for was read."""

    @abstractmethod
    def set_attention_backend(self, backend: Attention) -> None:
        """Choose how the denoiser computes attention."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of the denoiser's own weights in a precision, without adapters, gradients or activations."""
        own = (parameter for name, parameter in self.denoiser.named_parameters() if ".lora_" not in name)
        quantized = (layer for layer in self.denoiser.modules() if isinstance(layer, frozen.Frozen))
        full = sum(parameter.numel() for parameter in own) * dtype.itemsize
        return int(full + sum(layer.stored_bytes for layer in quantized))

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """How many tokens of a text are read, with the marks of start and end."""

    @abstractmethod
    def reads_whole(self, text: str) -> bool:
        """Whether all of a text is read."""

    @abstractmethod
    def encode_prompts(self, texts: Sequence[str], device: torch.device, reporter: Reporter) -> Conditioning:
        """The conditioning of `texts`; one that must be cut is named in a warning.

        Raises:
            ModelError: the encoder makes NaN or infinity of a text.
        """

    def size_conditioning(self, framings: Sequence[Framing], device: torch.device) -> Conditioning:  # noqa: ARG002
        """What the denoiser is told of where pictures were cut from; of most families nothing."""
        return Conditioning()

    @abstractmethod
    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, h, w) of a picture of so many pixels."""

    @abstractmethod
    def encode_images(self, pixels: torch.Tensor) -> LatentMoments:
        """Latents of images (B, 3, H, W) in -1…1, in fp32, on the images' device."""

    @abstractmethod
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) in -1…1 of latents (B, C, h, w) in the denoiser's scale, in fp32."""

    @property
    @abstractmethod
    def num_train_timesteps(self) -> int:
        """Noise levels that the base was trained on."""

    @abstractmethod
    def sample_timesteps(self, count: int, generator: torch.Generator, width: int, height: int) -> torch.Tensor:
        """Timesteps to train on, (B,), for images of so many pixels; drawn on the CPU."""

    @abstractmethod
    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) at the noise level of their timesteps, (B,)."""

    @abstractmethod
    def training_target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the denoiser should say of them, (B, C, h, w)."""

    @abstractmethod
    def loss_weights(self, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
        """Weight of each sample's loss, (B,), by min-SNR-γ (Hang et al., arXiv:2303.09556)."""

    @abstractmethod
    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """What the denoiser says of noisy latents (B, C, h, w); in fp32, whatever it computes in.

        `timesteps` is (B,), or one for all.
        """

    @abstractmethod
    def sampler(self, name: str, steps: int, width: int, height: int) -> Any:
        """A new sampler over the base's own noise levels, set to so many steps for pictures of so many pixels.

        Its interface is that of diffusers' schedulers: `timesteps`, `init_noise_sigma`, `scale_model_input`, `step`,
        `add_noise`, `set_begin_index`, `order`.
        """


def to_pixels(image: Image.Image) -> torch.Tensor:
    """An image as (3, H, W) in -1…1."""
    return torch.from_numpy(imaging.pixels(image)).float().permute(2, 0, 1) * 2 - 1


def to_image(pixels: torch.Tensor) -> Image.Image:
    """The inverse: (3, H, W), what lies beyond -1…1 cut off."""
    shares = (pixels * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).float().cpu().numpy()
    return Image.fromarray((shares * 255).round().astype(np.uint8))

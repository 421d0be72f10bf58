"""Another VAE in place of a base's own (`base.vae`): found, checked to make the same latents, and put there.

Such as one that does not overflow in fp16, or one whose decoder was trained further. A folder or a repository holds it
at its root or in `vae/`; a single file has the shape of the base's own, and its scale.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avignon.core.errors import ModelError
from avignon.core.events import Reporter
from avignon.core.files import digest, sha256_of
from avignon.models import hub
from avignon.models.latent_unet import single_file
from avignon.models.registry import is_checkpoint, local_folder

if TYPE_CHECKING:  # A look at its small files needs no torch.
    import torch

    from avignon.models.base import DiffusionBase
    from avignon.models.settings import BaseSettings

STEM = "diffusion_pytorch_model"
"""How the names of the weights' files begin."""

_LATENTS: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "patch_size": None,
}
"""What latents depend on beside a VAE's weights, with the library's defaults, which files may leave out."""

_FIRST = "decoder.conv_in.weight"
"""What every VAE has, (channels, channels of the latents, 3, 3)."""


def _within(place: Path) -> Path:
    """A file, or the folder of `config.json`: the one that is named, or `vae/` in it."""
    inner = place / "vae"
    return inner if (inner / "config.json").is_file() and not (place / "config.json").is_file() else place


def _variant(names: list[str], asked: str) -> str:
    """The variant that is asked for, if there is one, else what there is: it computes in fp32 in any case."""
    there = hub.by_variant(names, STEM)
    return next((variant for variant in (asked, "", *there) if variant in there), "")


@dataclass(frozen=True)
class OtherVae:
    """A VAE on this machine."""

    name: str
    """How cards call it: a repository, or a folder's or a file's name."""
    place: Path
    """The folder of its configuration and weights, or its file."""
    asked: str
    """The variant that the recipe has of its base."""

    @property
    def _is_file(self) -> bool:
        return is_checkpoint(self.place.name)

    @property
    def _own_variant(self) -> str:
        return _variant([path.name for path in self.place.glob("*")], self.asked)

    def check(self, base: Path | None) -> None:
        """Refuse what is no whole VAE, or, where the base's small files are known, makes other latents than its own.

        Raises:
            ModelError: naming the file, the setting, its value, and what is allowed.
        """
        told = {"latent_channels": self._channels()} if self._is_file else self._told()
        if not base:
            return
        own_file, own = base / "vae" / "config.json", _own(base)
        if self._is_file and own["_class_name"] != _LATENTS["_class_name"]:
            raise ModelError(
                f"base.vae: {self.place}: a single file is read as {_LATENTS['_class_name']}, and in {own_file} "
                f"_class_name is {own['_class_name']!r}; name a folder in diffusers' format"
            )
        for name, found in told.items():
            if found != own[name]:
                path = self.place if self._is_file else self.place / "config.json"
                raise ModelError(
                    f"base.vae: {path}: {name} is {found!r}, and in {own_file} {own[name]!r}: these are not the "
                    "latents that the base knows"
                )

    def _told(self) -> dict[str, Any]:
        """What its configuration says of its latents."""
        if not self.place.is_dir():
            raise ModelError(f"base.vae: {self.place}: no such directory")
        told = _read(self.place / "config.json", "no VAE in diffusers' format, at its root or in vae/")
        hub.check_weights(self.place, STEM, self._own_variant)
        return told

    def _channels(self) -> int:
        """Channels of the latents that a single file decodes, by its header."""
        shapes = [shape for key, shape in single_file.header(self.place)[0].items() if key.endswith(_FIRST)]
        if not shapes or len(shapes[0]) < 2:
            raise ModelError(f"base.vae: {self.place}: no VAE: {_FIRST} is missing")
        return shapes[0][1]

    def put_into(self, base: "DiffusionBase", dtype: "torch.dtype") -> None:
        """Read it, and have a base use it; it counts for the base's identity.

        Raises:
            ModelError: it is damaged, incomplete, or holds NaN or infinity.
        """
        import diffusers

        kind = getattr(diffusers, _own(base.folder)["_class_name"])
        if self._is_file:
            network = single_file.read(kind, self.place, base.folder, dtype, subfolder="vae")
            single_file.check_read(network, "the VAE", self.place)
            hashed = digest([hub.part(base.folder / "vae"), sha256_of(self.place)])
        else:
            network = hub.read(kind, self.place, variant=self._own_variant or None, dtype=dtype)
            hashed = hub.part(self.place, STEM, self._own_variant)
        base.autoencoder = network.requires_grad_(requires_grad=False).eval()
        base.parts = {**base.parts, "vae": hashed}
        base.other_vae = {"model": self.name, "revision": hub.commit_of(self.place)}


def _read(config: Path, otherwise: str) -> dict[str, Any]:
    """What a VAE's configuration says of its latents; of its blocks the number, which halve the picture."""
    told = {**_LATENTS, **hub.described(config, otherwise)}
    return {**{name: told[name] for name in _LATENTS}, "block_out_channels": len(told.get("block_out_channels", "."))}


def _own(base: Path) -> dict[str, Any]:
    """The same of a base's own."""
    return _read(base / "vae" / "config.json", "incomplete")


def local(settings: "BaseSettings") -> OtherVae | None:
    """The VAE that is asked for, where it is on this machine; None where that is a hub, or none is asked for."""
    place = local_folder(settings.vae) if settings.vae else None
    return OtherVae(place.name, _within(place), settings.variant) if place else None


def find(settings: "BaseSettings", reporter: Reporter) -> OtherVae | None:
    """The same, fetched where it is on a hub.

    Raises:
        ModelError: it is on no hub and in no cache, or has no weights.
    """
    if not settings.vae or local_folder(settings.vae):
        return local(settings)
    wanted = hub.Wanted(settings.vae, settings.vae_mirrors, settings.vae_revision, "base.vae", "base.vae_mirrors")
    name, folder = hub.find(wanted, lambda model, access: _fetched(model, settings, access), reporter)
    return OtherVae(name, _within(folder), settings.variant)


def _fetched(model: str, settings: "BaseSettings", access: hub.Access) -> Path:
    """Bring its files into the hub's cache, and of its weights one variant."""
    revision = settings.vae_revision
    folder = hub.download(model, revision, access, ("config.json", "vae/config.json"))
    if access.offline:
        return folder
    inside = _within(folder).relative_to(folder)
    names = [each.name for each in map(Path, hub.files_of(model, revision, access)) if each.parent == inside]
    variant = _variant(names, settings.variant)
    hub.check_names(names, Path(model, inside), STEM, variant)
    indexes = [name for name in names if name.startswith(STEM) and name.endswith(".json")]
    files = [(inside / name).as_posix() for name in (*hub.by_variant(names, STEM)[variant], *indexes)]
    return hub.download(model, revision, access, files)

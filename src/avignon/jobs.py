"""What is to be trained: an adapter's job, all that its weights depend on, the machine, and what is left in the end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image

from avignon import adapters, cards, diffusion, imaging, infotext, studies
from avignon.batches import Data, encode, fitted, seed_of
from avignon.checkpoints import Checkpoints
from avignon.errors import RecipeError
from avignon.recipe import Artist, Recipe
from avignon.records import Frame, Voice, plain
from avignon.workspace import Workspace, digest, read_json, sha256_of, write_bytes, write_json, write_text

NOT_IDENTITY = {
    "attention",
    "checkpoint_every",
    "compile",
    "gradient_checkpointing",
    "keep_checkpoints",
    "micro_batch",
    "together",
    "watch_every",
}
"""Settings that change how a training is carried out but not what it learns, except in the last digits."""


@dataclass(frozen=True)
class Machine:
    """What a training runs on, and what was chosen for it."""

    device: torch.device
    precision: diffusion.Precision
    attention: diffusion.Attention
    compiled: bool
    why: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> "Machine":
        """The recipe's choices, with every `auto` decided for this device."""
        settings = recipe.train
        precision = diffusion.precision_for(settings.precision, "train", device)
        attention = diffusion.attention_for(settings.attention, device, recipe.base.resolution)
        # peft's DoRA cannot be traced: a block would fall into a graph for every piece of a layer.
        compiled = settings.compile == "on" or (
            settings.compile == "auto" and device.type == "cuda" and not settings.dora
        )
        automatic = [name for name in ("precision", "attention", "compile") if getattr(settings, name) == "auto"]
        return cls(device, precision, attention, compiled, tuple(automatic))

    def describe(self, processes: int) -> str:
        """In one line: what was picked, and which of it by the program itself."""
        parts = [str(self.device), self.precision, f"attention {self.attention}"]
        parts += ["compiled blocks"] if self.compiled else []
        parts += [f"{processes} processes"] if processes > 1 else []
        return ", ".join(parts) + (f" (chosen for this machine: {', '.join(self.why)})" if self.why else "")


@dataclass(frozen=True)
class Lessons:
    """What a job learns from, must not forget, and is measured on."""

    works: Data
    prior: Data | None
    unseen: Data | None


@dataclass(frozen=True)
class Job:
    """One adapter to train, and where it goes."""

    name: str
    artists: tuple[Artist, ...]
    recipe: Recipe
    space: Workspace
    voice: Voice
    machine: Machine
    company: Accelerator

    @property
    def folder(self) -> Path:
        """Where everything about this adapter is written."""
        return self.space.adapter(self.name)

    @property
    def _triggers(self) -> dict[str, str]:
        """By the folder of an artist's images, the phrase in its captions."""
        return {artist.slug: artist.trigger for artist in self.artists}

    def examples(self) -> list[tuple[Path, dict[str, Any]]]:
        """The prepared images of all the job's artists."""
        return [
            (self.space.metadata(artist.slug).with_name(row["file_name"]), row)
            for artist in self.artists
            for row in self.space.read_metadata(artist.slug)
        ]

    def identity(self, base: diffusion.Base) -> dict[str, str]:
        """All that the weights depend on, by names that a user knows; a checkpoint of another job is not continued."""
        settings = self.recipe.train.model_dump(mode="json", exclude=NOT_IDENTITY)
        if self.recipe.train.is_judged:
            settings["judged_by"] = self.recipe.generate.model_dump(mode="json", exclude={"extra_seeds"})
        else:
            del settings["sample_every"]
        artists = [[artist.name, artist.trigger, artist.rights] for artist in self.artists]
        return {
            "settings": digest([self.name, self.recipe.seed, settings, self.machine.precision]),
            "artists": digest(artists),
            "base": base.fingerprint,
            "dataset": digest([[row["sha256"], row["captions"]] for _, row in self.examples()]),
        }

    def is_done(self, base: diffusion.Base) -> bool:
        """Whether this very adapter was finished by an earlier run that was interrupted later on."""
        card, weights = self.folder / "card.json", self.folder / adapters.WEIGHTS_FILE
        if not (card.exists() and weights.exists()):
            return False
        metrics = read_json(card)["metrics"]
        return bool(metrics["identity"] == digest(self.identity(base)) and metrics["weights"] == sha256_of(weights))

    def checkpoints(self, base: diffusion.Base) -> Checkpoints:
        """Where an interrupted training goes on."""
        return Checkpoints(self.folder / "checkpoints", self.identity(base), self.recipe.train.keep_checkpoints)

    def lessons(self, base: diffusion.Base) -> Lessons:
        """Everything that the training reads, encoded once; the UNet must be without adapters."""
        settings, device = self.recipe.train, self.machine.device
        kept, held = (fitted(base, part, self._triggers, self.voice) for part in self._split())
        return Lessons(
            works=encode(base, kept, settings, device, self.voice),
            prior=self._prior(base, kept) if settings.prior_images else None,
            unseen=encode(base, held, settings, device, self.voice) if held else None,
        )

    def _prior(self, base: diffusion.Base, kept: list[Any]) -> Data:
        """What the base itself paints of the works' captions; the first process paints, the others read."""
        captions = [
            studies.untriggered(caption, self._triggers[path.parent.name])
            for path, row in kept
            for caption in row["captions"]
        ]
        dtype = diffusion.DTYPES[self.machine.precision]
        diffusion.place(base.pipeline.unet, self.machine.device, dtype, memory_format=torch.channels_last)
        with self.company.main_process_first():
            return studies.prior(
                base,
                self.recipe,
                list(dict.fromkeys(captions)),
                self.folder / "checkpoints" / "prior.safetensors",
                self.machine.device,
                self.voice,
            )

    def sampler(self, base: diffusion.Base) -> studies.Sampler | None:
        """What paints on the way, where that is wanted and this is the process that paints."""
        if not self.recipe.train.sample_every or not self.company.is_main_process:
            return None
        works = {
            artist.slug: self.space.training_images(artist.slug)
            for artist in self.recipe.artists
            if artist not in self.artists
        }
        kept, _ = self._split()
        for artist in self.artists:
            works[artist.slug] = [path for path, _ in kept if path.parent.name == artist.slug]
        judge = studies.Judge.of(works, [artist.slug for artist in self.artists])
        return studies.Sampler(self.name, base, self.recipe, judge, self.machine.device, self.voice)

    def keep_samples(self, pictures: list[tuple[Frame, Image.Image]]) -> None:
        """Write pictures that were painted on the way, each with its frame and its rights."""
        works = cards.works_of([artist.name for artist in self.artists], self.space.read_ledger())
        rights = cards.notice_from(cards.rights_of(self.artists, works))
        for frame, image in pictures:
            content = imaging.png_bytes(image, infotext.text(frame), plain(frame), rights)
            write_bytes(self.folder / "samples" / frame.stop / f"{frame.scene}.png", content)

    def _split(self) -> tuple[list[Any], list[Any]]:
        """Examples to learn from, and those of the works that are held out to measure on."""
        examples, count = self.examples(), self.recipe.train.held_out
        works = list(dict.fromkeys(row["object_id"] for _, row in examples))
        if count >= len(works):
            raise RecipeError(f"train.held_out: {count} of {self.name}'s {len(works)} works leave none to learn from")
        order = torch.randperm(
            len(works), generator=torch.Generator().manual_seed(seed_of(self.recipe.seed, self.name))
        )
        held = {works[int(k)] for k in order[:count]}
        parts: tuple[list[Any], list[Any]] = ([], [])
        for example in examples:
            parts[example[1]["object_id"] in held].append(example)
        return parts

    def finish(self, base: diffusion.Base, share: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Save the adapter that is on the base, prove the file, write the cards; `card.json` comes last."""
        weights = self.folder / adapters.WEIGHTS_FILE
        adapters.save(base.pipeline.unet, self.name, weights)
        ledger = self.space.read_ledger()
        card = cards.card(
            self.name,
            self.recipe,
            self.artists,
            [row for _, row in self.examples()],
            ledger,
            base=base.card,
            trainable=share,
            environment=cards.environment(self.machine.device.type, self.machine.precision),
            metrics={**metrics, "identity": digest(self.identity(base)), "weights": sha256_of(weights)},
        )
        write_text(self.folder / "README.md", cards.model_card(card, ledger))
        write_json(self.folder / "card.json", plain(card))
        self.checkpoints(base).clear()

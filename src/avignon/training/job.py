"""One adapter to train: all that its weights depend on, what it learns from, and what is left in the end."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image

from avignon.adapters import cards, files
from avignon.adapters.formats.diffusers import WEIGHTS_FILE
from avignon.core import png
from avignon.core.errors import RecipeError
from avignon.core.events import Reporter
from avignon.core.files import digest, json_text, json_value, read_json, sha256_of, write_bytes, write_json, write_text
from avignon.core.records import Card, Frame, frame_record, plain
from avignon.core.workspace import AdapterFolder, Workspace
from avignon.generation import png_info
from avignon.generation.sampler import ImageSampler
from avignon.models.base import DiffusionBase
from avignon.models.runtime import DTYPES
from avignon.recipe.schema import SCHEMA, Artist, Recipe, Train
from avignon.training import sharing
from avignon.training.checkpoints import Checkpoints
from avignon.training.dataset import Example, LatentDataset, encode, fit_captions, framings, seed_of, shape_of
from avignon.training.prior import paint_prior, without_trigger
from avignon.training.setup import RuntimeConfig
from avignon.training.validation import ValidationMetric, ValidationSampler

NOT_IDENTITY = {
    "attention",
    "checkpoint_every",
    "compile",
    "gradient_checkpointing",
    "keep_checkpoints",
    "memory",
    "micro_batch",
    "offload",
    "together",
    "eval_every",
}
"""Settings that change how a training is carried out but not what it learns, up to rounding."""


@dataclass(frozen=True)
class TrainingSets:
    """What a job learns from, must not forget, and is measured on."""

    train: LatentDataset
    prior: LatentDataset | None
    validation: LatentDataset | None


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train, and where it goes."""

    name: str
    artists: tuple[Artist, ...]
    recipe: Recipe
    space: Workspace
    reporter: Reporter
    runtime: RuntimeConfig
    accelerator: Accelerator

    @property
    def folder(self) -> AdapterFolder:
        """Where everything about this adapter is written."""
        return AdapterFolder(self.space.adapter(self.name))

    @property
    def _triggers(self) -> dict[str, str]:
        """By the folder of an artist's images, the phrase in its captions."""
        return {artist.slug: artist.trigger for artist in self.artists}

    def examples(self) -> list[Example]:
        """The prepared images of all the job's artists."""
        return [
            (self.space.metadata(artist.slug).with_name(row["file_name"]), row)
            for artist in self.artists
            for row in self.space.read_metadata(artist.slug)
        ]

    def identity(self, base: DiffusionBase) -> dict[str, str]:
        """All that the weights depend on, under names that a user knows.

        Settings count where they differ from the defaults, so that one which is new, at its default, changes nothing.
        """
        settings = self.recipe.train
        ignored = NOT_IDENTITY | {"precision", "steps"} | (set() if settings.is_judged else {"sample_every"})
        chosen = [SCHEMA, self.name, self.recipe.seed, settings.chosen(exclude=ignored), self._painted_for(settings)]
        return {
            "number of steps": str(settings.steps),
            "settings": digest([*chosen, self.runtime.precision]),
            **self._learned_from(),
            **self._told_of_sizes(base),
            **{f"{part} of the base": hashed for part, hashed in base.parts.items()},
        }

    def _told_of_sizes(self, base: DiffusionBase) -> dict[str, str]:
        """What the base is told of where the images were cut from; nothing of a family that is not told."""
        told = base.size_conditioning(framings(base, self.examples(), flip=False), torch.device("cpu")).tensors
        return {"sizes of the images": digest([t.tolist() for t in told.values()])} if told else {}

    def _painted_for(self, settings: Train) -> list[Any]:
        """What pictures depend on that are painted for a training: the base's own, and the samples it is judged by."""
        if not settings.is_judged:
            return [self.recipe.painted_in_training]
        # Samples are judged by the works of all artists.
        rows = [row for artist in self.recipe.artists for row in self.space.read_metadata(artist.slug)]
        return [self.recipe.painted_in_training, [row["sha256"] for row in rows]]

    def _identities_in_schema_1(self, base: DiffusionBase) -> set[str]:
        """Hashes by which avignon 0.1.0 may have known this job."""
        settings = self.recipe.train.as_in_schema_1(exclude=NOT_IDENTITY)
        if self.recipe.train.is_judged:
            settings["judged_by"] = self.recipe.generate.as_in_schema_1(exclude={"extra_seeds"})
        else:
            del settings["sample_every"]
        chosen = {"settings": digest([self.name, self.recipe.seed, settings, self.runtime.precision])}
        return {digest({**chosen, **self._learned_from(), "base": name}) for name in base.earlier_identities}

    def _learned_from(self) -> dict[str, str]:
        return {
            "artists": digest([[artist.name, artist.trigger, artist.rights] for artist in self.artists]),
            "dataset": digest([[row["sha256"], row["captions"]] for _, row in self.examples()]),
        }

    def is_done(self, base: DiffusionBase) -> bool:
        """Whether this very adapter is finished: by an earlier run that was interrupted later on, or long ago."""
        metrics = finished(self.folder.root)
        if "job" in metrics:
            return bool(metrics["job"] == self.identity(base))
        return metrics.get("identity") in self._identities_in_schema_1(base)

    def restate(self, base: DiffusionBase) -> None:
        """Write anew what a finished adapter's folder says beside its weights, where something else is known now.

        That is the rights of its images, and what earlier versions did not write: works, the file for other programs.
        """
        held = read_json(self.folder.card)
        about = {key: base.card[key] for key in ("architecture", "prediction_type", "resolution")}
        card = Card(**{**held, "base": {**held["base"], **about, **held["base"]}, **self._sources()})
        if json_value(json_text(plain(card))) != held:
            write_text(self.folder.model_card, cards.model_card(card))
            write_json(self.folder.card, plain(card))
        sharing.share(card, self.folder, self.captions(), self.space)

    def _sources(self) -> dict[str, Any]:
        """What a card says of the works and their rights."""
        ledger, names = self.space.read_ledger(), tuple(artist.name for artist in self.artists)
        return {"rights": cards.rights_of(self.artists, ledger), "works": tuple(cards.work_records(names, ledger))}

    def captions(self) -> dict[str, list[str]]:
        """What the job learns to read, by the folder of an artist's images."""
        found: dict[str, list[str]] = {artist.slug: [] for artist in self.artists}
        for path, row in self.examples():
            found[path.parent.name] += row["captions"]
        return found

    def checkpoints(self, base: DiffusionBase) -> Checkpoints:
        """Where an interrupted training goes on, or a finished one of which more steps are wanted."""
        job, settings = self.identity(base), self.recipe.train
        if settings.is_open_ended:
            del job["number of steps"]
        return Checkpoints(self.folder.checkpoints, job, settings.keep_checkpoints, settings.steps)

    def set_aside(self, base: DiffusionBase) -> None:
        """Keep what is finished here, before another job of this name takes its place; and say so."""
        metrics = finished(self.folder.root)
        if not metrics:
            return
        place = self.space.set_aside(self.folder.root, leave={self.folder.checkpoints.name})
        wanted, known = self.identity(base), metrics.get("job", {})
        others = [f"different {name}" for name in wanted if known and wanted[name] != known.get(name)]
        finished_with = ", ".join(others) or "different settings"
        self.reporter.warn(f"{self.name}: was finished with {finished_with}; that adapter is kept in {place}")
        if others == ["different number of steps"] and self.checkpoints(base).newest()[0] is None:
            self.reporter.warn(f"{self.name}: it begins anew, because {_why_anew(self.recipe.train)}")

    def sets(self, base: DiffusionBase, painter: ImageSampler) -> TrainingSets:
        """Everything that the training reads, encoded once; the denoiser must be without adapters."""
        settings, device = self.recipe.train, self.runtime.device
        kept, held = (fit_captions(base, part, self._triggers, self.reporter) for part in self._split())
        return TrainingSets(
            train=encode(base, kept, settings, device, self.reporter),
            prior=self._prior(base, kept, painter) if settings.prior_images else None,
            validation=encode(base, held, settings, device, self.reporter) if held else None,
        )

    def _prior(self, base: DiffusionBase, kept: list[Example], painter: ImageSampler) -> LatentDataset:
        """What the base itself paints of the works' captions; the first process paints, the others read."""
        pairs = [(caption, self._triggers[path.parent.name]) for path, row in kept for caption in row["captions"]]
        captions = list(dict.fromkeys(without_trigger(*pair) for pair in pairs))
        shapes, file = [shape_of(base, row) for _, row in kept], self.folder.prior
        with self.accelerator.main_process_first():
            return paint_prior(base, self.recipe, captions, shapes, file, self.runtime, painter, self.reporter)

    def preview(self, base: DiffusionBase) -> Frame:
        """The picture that will show the finished adapter."""
        return sharing.preview(self.name, self.artists, base, self.recipe, self.runtime)

    def sampler(self, base: DiffusionBase, painter: ImageSampler) -> ValidationSampler | None:
        """What paints on the way, where that is wanted and this is the process that paints."""
        if not self.recipe.train.sample_every or not self.accelerator.is_main_process:
            return None
        own, kept = [artist.slug for artist in self.artists], [path for path, _ in self._split()[0]]
        others = [artist.slug for artist in self.recipe.artists if artist not in self.artists]
        works = {name: self.space.training_images(name) for name in others}
        works |= {name: [path for path in kept if path.parent.name == name] for name in own}
        metric = ValidationMetric.over(works, own)
        return ValidationSampler(self.name, base, self.recipe, metric, DTYPES[self.runtime.precision], painter)

    def keep_samples(self, pictures: list[tuple[Frame, Image.Image]]) -> None:
        """Write pictures that were painted on the way, each with its frame and its rights."""
        rights = cards.notice_from(cards.rights_of(self.artists, self.space.read_ledger()))
        for frame, image in pictures:
            content = png.png_bytes(image, png_info.text(frame), frame_record(frame), rights)
            write_bytes(self.folder.samples / frame.stop / f"{frame.scene}.png", content)

    def _split(self) -> tuple[list[Example], list[Example]]:
        """Examples to learn from, and those of the works that are held out to measure on."""
        examples, count = self.examples(), self.recipe.train.validation_works
        works = list(dict.fromkeys(row["object_id"] for _, row in examples))
        if count >= len(works):
            share = f"{count} of {self.name}'s {len(works)} works"
            raise RecipeError(f"train.validation_works: {share} leave none to learn from")
        generator = torch.Generator().manual_seed(seed_of(self.recipe.seed, self.name))
        held = {works[int(k)] for k in torch.randperm(len(works), generator=generator)[:count]}
        kept = [example for example in examples if example[1]["object_id"] not in held]
        return kept, [example for example in examples if example[1]["object_id"] in held]

    def finish(
        self, base: DiffusionBase, share: dict[str, Any], metrics: dict[str, Any], painter: ImageSampler
    ) -> None:
        """Save the adapter that is on the base, verify its files, write the cards; `card.json` comes last."""
        weights, sources = self.folder.root / WEIGHTS_FILE, self._sources()
        files.save(base.denoiser, base.targets, self.name, weights)
        counts = {"images": len(self.examples()), "works": len(sources["works"])}
        card = Card(
            name=self.name,
            artists=tuple(artist.name for artist in self.artists),
            triggers=tuple(artist.trigger for artist in self.artists),
            base=base.card,
            dataset={**counts, "hash": self._learned_from()["dataset"]},
            trainable=share,
            recipe=self.recipe.model_dump(mode="json"),
            environment=cards.environment(self.runtime.device.type, self.runtime.precision) | self.runtime.chosen,
            metrics={**metrics, "job": self.identity(base), "weights": sha256_of(weights)},
            date=datetime.now(UTC).date().isoformat(),
            **sources,
        )
        sharing.paint(card, self.folder, self.preview(base), base, painter, self.reporter)
        sharing.share(card, self.folder, self.captions(), self.space)
        write_text(self.folder.model_card, cards.model_card(card))
        write_json(self.folder.card, plain(card))
        self.checkpoints(base).clear(keep_last=self.recipe.train.is_open_ended)


def finished(folder: Path) -> dict[str, Any]:
    """What the card of a finished adapter measured; empty where none is, or its weights are not those of the card."""
    card, weights = AdapterFolder(folder).card, folder / WEIGHTS_FILE
    if not (card.exists() and weights.exists()):
        return {}
    metrics = read_json(card, "metrics")["metrics"]
    is_whole = isinstance(metrics, dict) and metrics.get("weights") == sha256_of(weights)
    return metrics if is_whole else {}


def _why_anew(settings: Train) -> str:
    if settings.is_judged:
        return "what is kept was judged at the last step"
    if settings.is_open_ended:
        return f"no state is there to go on from that is of at most {settings.steps} steps"
    return f"the learning rate falls towards the last step (train.lr_schedule = {settings.lr_schedule!r})"

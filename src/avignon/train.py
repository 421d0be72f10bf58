"""train: prepared images → LoRA adapters on a frozen Stable Diffusion.

Reads `dataset/`; writes `adapters/<name>/`: weights, card, model card, metrics. What does not change is computed once
(`batches`); the loop then asks the device for nothing until it reports. `accelerate launch -m avignon train RECIPE`
spreads each batch over several processes, of which the first one alone writes.
"""

import gc
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from avignon import adapters, cards, diffusion, imaging, processes, studies
from avignon.batches import Data, Draw, draw, draw_with_prior, encode, held_out_draws, seed_of
from avignon.checkpoints import Checkpoints
from avignon.errors import AvignonError, RecipeError
from avignon.objective import denoising_losses, min_snr_weights
from avignon.recipe import Artist, Recipe, Train
from avignon.records import Frame, Voice, plain
from avignon.updates import GRADIENT, LOSS, Factors, Fault, Updates
from avignon.workspace import Workspace, digest, read_json, sha256_of, write_bytes, write_json, write_text

REPORT_EVERY = 20
"""Steps between two looks at what a device has computed; on a CPU looking costs nothing, so it is every step there."""

NOT_IDENTITY = {
    "attention",
    "checkpoint_every",
    "compile",
    "gradient_checkpointing",
    "keep_checkpoints",
    "micro_batch",
    "watch_every",
}
"""Settings that change how a training is carried out but not what it learns, except in the last digits."""


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Train every adapter of the recipe that is not finished yet.

    Raises:
        InputError: a base, precision, optimizer or attention backend that cannot be had here.
        AvignonError: the loss or a gradient is no longer a number; the last good weights are kept.
    """
    settings = recipe.train
    company = Accelerator(mixed_precision="no", cpu=diffusion.device().type == "cpu")
    if settings.batch % company.num_processes:
        raise RecipeError(f"train.batch: {settings.batch} cannot be shared evenly by {company.num_processes} processes")
    machine = Machine.of(recipe, company.device)
    voice.note(f"training on {machine.describe(company.num_processes)}")
    jobs = _jobs(recipe)
    with _deterministic(settings.deterministic):
        for name, artists in jobs.items():
            base = diffusion.load(recipe, torch.float32, voice)
            job = Job(name, artists, recipe, space, voice, machine, company)
            done = job.is_done(base)
            company.wait_for_everyone()  # All have read the card before the first process takes it away.
            if not done:
                job.train(base)
    if company.is_main_process:
        space.sweep(space.adapters, {p for name in jobs for p in space.adapter(name).rglob("*") if p.is_file()})


def _jobs(recipe: Recipe) -> dict[str, tuple[Artist, ...]]:
    """The artists that each adapter learns from."""
    if recipe.train.mode == "joint":
        return {"joint": recipe.artists}
    return {artist.slug: (artist,) for artist in recipe.artists}


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits each time; a GPU is slower with them, a CPU is so anyway.

    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


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

    def train(self, base: diffusion.Base) -> None:
        """Learn, save, prove, and write the cards; `card.json` comes last."""
        settings, unet = self.recipe.train, base.pipeline.unet
        if self.company.is_main_process:
            (self.folder / "card.json").unlink(missing_ok=True)
        kept, held = self._split()
        data = encode(base, kept, settings, self.machine.device, self.voice)
        unseen = encode(base, held, settings, self.machine.device, self.voice) if held else None
        prior = self._prior(base, kept) if settings.prior_images else None
        parameters = prepare_unet(unet, self.name, self.recipe, self.machine)
        share = adapters.trainable(unet, parameters, settings.ranks)
        self.voice.note(
            f"{self.name}: {share['parameters']:,} of {share['unet_parameters']:,} parameters are trained "
            f"({share['share']:.3%}), {len(data.mean)} images"
        )
        sampler = self._sampler(base, kept) if settings.sample_every and self.company.is_main_process else None
        metrics = Training(self, base, Lessons(data, prior, unseen), parameters, sampler).run()
        if self.company.is_main_process:
            self._finish(base, share, metrics)
        self.company.wait_for_everyone()

    def _prior(self, base: diffusion.Base, kept: list[Any]) -> Data:
        """What the base itself paints of the works' captions; the first process paints, the others read."""
        trigger = {artist.slug: artist.trigger for artist in self.artists}
        captions = [
            studies.untriggered(caption, trigger[path.parent.name]) for path, row in kept for caption in row["captions"]
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

    def _sampler(self, base: diffusion.Base, kept: list[Any]) -> studies.Sampler:
        works = {
            artist.slug: self.space.training_images(artist.slug)
            for artist in self.recipe.artists
            if artist not in self.artists
        }
        for artist in self.artists:
            works[artist.slug] = [path for path, _ in kept if path.parent.name == artist.slug]
        judge = studies.Judge.of(works, [artist.slug for artist in self.artists])
        return studies.Sampler(self.name, base, self.recipe, judge, self.machine.device, self.voice)

    def keep_samples(self, pictures: list[tuple[Frame, Image.Image]]) -> None:
        """Write pictures that were painted on the way, each with its frame and its rights."""
        works = cards.works_of([artist.name for artist in self.artists], self.space.read_ledger())
        rights = cards.notice_from(cards.rights_of(self.artists, works))
        for frame, image in pictures:
            content = imaging.png_bytes(image, frame.prompt, plain(frame), rights)
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

    def _finish(self, base: diffusion.Base, share: dict[str, Any], metrics: dict[str, Any]) -> None:
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
        Checkpoints(self.folder / "checkpoints", {}, 0).clear()


def prepare_unet(unet: Any, name: str, recipe: Recipe, machine: Machine) -> list[torch.nn.Parameter]:
    """Put a new adapter on the UNet and make it ready to train on this machine; returns what is to be trained."""
    settings = recipe.train
    dtype = diffusion.DTYPES[machine.precision]
    diffusion.place(unet, machine.device, dtype, memory_format=torch.channels_last)
    diffusion.use_attention(unet, machine.attention)
    seed = seed_of(recipe.seed, name)
    parameters = adapters.add(unet, name, settings.ranks, settings.alpha, seed, dora=settings.dora)
    unet.train()
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if machine.compiled:
        unet.compile_repeated_blocks()
    return parameters


@dataclass(frozen=True)
class Lessons:
    """What a job learns from, must not forget, and is measured on."""

    works: Data
    prior: Data | None
    unseen: Data | None


class Training:
    """The loop of one job: draws, passes, updates; checkpoints, reports, and the way down when memory runs out."""

    def __init__(
        self,
        job: Job,
        base: diffusion.Base,
        lessons: Lessons,
        parameters: list[torch.nn.Parameter],
        sampler: studies.Sampler | None,
    ) -> None:
        self._job, self._lessons, self._sampler = job, lessons, sampler
        self._settings, self._company, self._voice = job.recipe.train, job.company, job.voice
        self._unet = base.pipeline.unet
        self._schedule = DDPMScheduler.from_config(base.pipeline.scheduler.config)
        self._seed = seed_of(job.recipe.seed, job.name)
        # A magnitude is a factor on all of a weight: rounded to bf16, it would be off by as much as a style moves it.
        self._factors = Factors(
            parameters, torch.float32 if self._settings.dora else diffusion.DTYPES[job.machine.precision]
        )
        lengths = adapters.magnitudes(self._unet, job.name).values()
        self._updates = Updates(
            self._factors,
            self._settings,
            scaled=job.machine.precision == "fp16",
            magnitudes=sum(length.numel() for length in lengths),
        )
        self._checkpoints = Checkpoints(job.folder / "checkpoints", job.identity(base), self._settings.keep_checkpoints)
        samples = self._settings.batch * (2 if lessons.prior else 1)
        self._share = samples // self._company.num_processes
        self._ladder = Ladder(self._unet, self._settings, self._share)
        self._choice = studies.Choice(self._settings.patience)

    def run(self) -> dict[str, Any]:
        """Train to the last step, and leave the result in the adapter's parameters; returns what to say of it."""
        settings, first = self._settings, self._restore()
        done = first
        beat = 1 if self._factors.master.device.type == "cpu" else REPORT_EVERY
        pending: list[Step] = []
        with (
            Log(self._job.folder, first, writes=self._company.is_main_process) as log,
            deferred_interrupt() as stopping,
        ):
            while done < settings.steps and not self._choice.is_over:
                pending.append(self._step(done))
                done += 1
                found = self._looked_at(done, log)
                saving = done % settings.checkpoint_every == 0 or self._is_last(done)
                if len(pending) == beat or saving or found:
                    self._report(pending, log, found)
                stop = stopping()
                if saving or stop:
                    self._report(pending, log, {})
                    self._save(done)
                if stop:
                    break
        weights, of_step, measured = self._kept(done, log)
        self._factors.release(weights)
        return {
            "steps": done,
            "kept_step": of_step,
            "final_loss": log.recent,
            "seconds": round(log.seconds, 1),
            **measured,
        }

    def _kept(self, done: int, log: "Log") -> tuple[torch.Tensor, int, dict[str, float]]:
        """The weights to save, the step they are of, and what was measured on them."""
        best = self._choice
        if self._settings.keep == "last" or best.weights is None:
            return self._updates.result, done, log.last_watched
        with self._factors.wearing(best.weights):
            return best.weights, best.step, {**best.found, **self._watch()}

    def _looked_at(self, done: int, log: "Log") -> dict[str, float]:
        """What is measured after so many steps, if it is time for that; each measure is taken at the end as well."""
        settings, last, found = self._settings, done == self._settings.steps, {}
        if settings.sample_every and (last or done % settings.sample_every == 0):
            found = self._sample(done, log)
        if self._is_last(done) or (settings.watch_every and done % settings.watch_every == 0):
            found = found | self._watch()
        return found

    def _is_last(self, done: int) -> bool:
        return done == self._settings.steps or self._choice.is_over

    def _restore(self) -> int:
        """Go back to the newest sound checkpoint of this very job; returns the steps done, 0 without one."""
        state, told = self._checkpoints.newest() if self._company.is_main_process else (None, [])
        state = processes.agree(state)
        for line in told:
            self._voice.warn(line)
        if state is None:
            return 0
        if state["software"] != _software():
            self._voice.warn(
                f"{self._job.name}: going on from {state['software']} with {_software()}: the end may differ"
            )
        self._updates.load_state_dict(state["updates"])
        self._choice.load_state_dict(state["choice"])
        self._voice.note(f"{self._job.name}: going on at step {state['step']} of {self._settings.steps}")
        return int(state["step"])

    def _save(self, step: int) -> None:
        if self._company.is_main_process:
            state = {"updates": self._updates.state_dict(), "choice": self._choice.state_dict()}
            self._checkpoints.save(step, {**state, "software": _software()})

    def _draw(self, number: int) -> Draw:
        times, lessons = self._schedule.config.num_train_timesteps, self._lessons
        if lessons.prior:
            return draw_with_prior(lessons.works, lessons.prior, self._settings, times, self._seed, number)
        return draw(lessons.works, self._settings, times, self._seed, number)

    def _step(self, number: int) -> "Step":
        """One optimizer step; nothing here waits for the device."""
        loss = self._ladder.climb(lambda size: self._passes(number, size), self._start_over)
        if self._company.num_processes > 1:
            loss = self._company.reduce(loss, "sum")
            gradient = self._factors.gather()
            gradient.copy_(self._company.reduce(gradient, "sum"))
        rate = learning_rate(self._settings, number)
        norm = self._updates.apply(number, loss, rate)
        return Step(number + 1, rate, loss, norm)

    def _passes(self, number: int, size: int) -> torch.Tensor:
        """Losses and gradients of this process's share of a batch, in passes of `size` images; the loss's sum."""
        total = torch.zeros((), device=self._factors.master.device)
        shares = list(self._draw(number).parts(self._share))
        for part in shares[self._company.process_index].parts(size):
            loss = self._loss(part)
            (loss * self._updates.scale).backward()  # type: ignore[no-untyped-call]
            self._factors.gather()
            total += loss.detach()
        return total

    def _loss(self, part: Draw) -> torch.Tensor:
        losses = denoising_losses(self._unet, self._schedule, part) * part.weight
        if self._settings.min_snr_gamma:
            losses = losses * min_snr_weights(self._schedule, part.timesteps, self._settings.min_snr_gamma)
        return losses.sum() / self._settings.batch

    def _start_over(self, line: str) -> None:
        self._voice.warn(f"{self._job.name}: {line}")
        self._factors.forget()

    @torch.no_grad()
    def _watch(self) -> dict[str, float]:
        """Loss on the works held out, at fixed times and noises, so that two steps can be compared."""
        if self._lessons.unseen is None:
            return {}
        draws = held_out_draws(self._lessons.unseen, self._schedule.config.num_train_timesteps)
        losses = [denoising_losses(self._unet, self._schedule, part) for part in draws.parts(self._ladder.size)]
        return {"held_out_loss": float(torch.cat(losses).mean())}

    def _sample(self, step: int, log: "Log") -> dict[str, float]:
        """Pictures of the adapter as it is, and what they say of it; the first process paints, all know the result."""
        found: dict[str, float] = {}
        if self._sampler:
            with self._factors.wearing(self._updates.result):
                pictures, found = self._sampler.paint(step, self._updates.result)
            self._job.keep_samples(pictures)
            log.show(step, pictures)
        found = processes.agree(found)
        self._choice.see(step, found, self._updates.result)
        return found

    def _report(self, pending: list["Step"], log: "Log", watched: dict[str, float]) -> None:
        """Look at what was computed; stop at the first step that failed."""
        fault = self._updates.first_fault()
        for step in pending:
            if fault and step.number > fault.step:
                self._save(fault.step)
                raise AvignonError(self._explain(fault, float(step.loss)))
            extra = watched if step is pending[-1] else {}
            loss = log.write(step, extra)
            self._voice.progress(
                step.number, self._settings.steps, f"{self._job.name}: loss {log.recent:.4f}", loss=loss
            )
        pending.clear()
        self._ladder.look(self._voice)

    def _explain(self, fault: Fault, loss: float) -> str:
        drawn = self._draw(fault.step)
        shown = [data for data in (self._lessons.works, self._lessons.prior) if data]
        files = [file for data in shown for file in data.files]
        texts = [captions for data in shown for captions in data.captions]
        images = [files[i] for i in drawn.index.tolist()]
        captions = [
            texts[i][c] if c >= 0 else "" for i, c in zip(drawn.index.tolist(), drawn.caption.tolist(), strict=True)
        ]
        return (
            f"{self._job.name}: at step {fault.step + 1} {_reason(fault, loss)} (images {', '.join(images)}; captions "
            f"{'; '.join(map(repr, captions))}; timesteps {drawn.timesteps.tolist()}); the weights of step "
            f"{fault.step} are kept in {self._job.folder / 'checkpoints'}; {_advice(fault)}"
        )


def _reason(fault: Fault, loss: float) -> str:
    if fault.reason == LOSS:
        return f"the loss is {loss}"
    if fault.reason == GRADIENT:
        return "a gradient is not a finite number"
    return "gradients overflow fp16 even at a loss scale of 1"


def _advice(fault: Fault) -> str:
    if fault.reason in (LOSS, GRADIENT):
        return "lower train.learning_rate, or set train.precision to bf16 or fp32, and run again"
    return "set train.precision to bf16 or fp32, and run again"


def _software() -> str:
    return f"torch {torch.__version__}"


@dataclass(frozen=True)
class Step:
    """What one step gave; loss and norm may still be on their way from the device."""

    number: int
    """Steps done, this one included."""
    rate: float
    loss: torch.Tensor
    norm: torch.Tensor


@dataclass
class Ladder:
    """How a step is fitted into memory: whole, with checkpointing, then in ever smaller passes.

    Checkpointing gives the same bits. Passes of another size differ in rounding only; as memory runs out at the first
    step or never, a run that steps down there ends as if it had begun there.
    """

    unet: Any
    settings: Train
    share: int
    """Images of a step that are this process's."""
    size: int = field(init=False)
    """Images per pass."""
    warned: bool = False

    def __post_init__(self) -> None:
        self.size = min(self.settings.micro_batch or self.share, self.share)

    def climb(self, passes: Callable[[int], torch.Tensor], start_over: Callable[[str], None]) -> torch.Tensor:
        """Do a step's passes; where memory runs out, say so, step down and do them again."""
        while True:
            try:
                return passes(self.size)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as failed:
                if not _is_out_of_memory(failed) or not self._has_a_rung():
                    raise
            start_over(self._down())  # Outside the handler: the error's traceback holds the tensors.

    def _has_a_rung(self) -> bool:
        return self.size > 1 or not self.unet.is_gradient_checkpointing

    def _down(self) -> str:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.unet.is_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            return "out of memory: going on with gradient checkpointing (train.gradient_checkpointing = true)"
        self.size = next(k for k in range(self.size // 2, 0, -1) if self.share % k == 0)
        return f"out of memory: going on with {self.size} images per pass (train.micro_batch = {self.size})"

    def look(self, voice: Voice) -> None:
        """Warn once where a GPU's memory is so full that a driver would move it to the system's."""
        if self.warned or not torch.cuda.is_available():
            return
        free, total = torch.cuda.mem_get_info()
        if will_spill(free, total):
            self.warned = True
            voice.warn(
                f"GPU memory is full ({free / 2**20:.0f} MiB of {total / 2**20:.0f} are free): some drivers now use "
                "the system's, many times slower; set train.gradient_checkpointing or a smaller train.micro_batch"
            )


def will_spill(free: int, total: int) -> bool:
    """Whether so few bytes are free that the next allocation may go to system memory."""
    return free < 0.02 * total


def _is_out_of_memory(failed: BaseException) -> bool:
    """PyTorch has an error of its own for GPUs; on the CPU it says so in words."""
    return isinstance(failed, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(failed)


def learning_rate(settings: Train, step: int) -> float:
    """Linear warm-up from 0, then constant, or falling to 0 at the last step along a line or half a cosine."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / (settings.warmup + 1)
    t = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    factor = {"constant": 1.0, "linear": 1 - t, "cosine": (1 + math.cos(math.pi * t)) / 2}[settings.schedule]
    return settings.learning_rate * factor


_EVERY_STEP = {"step", "loss", "learning_rate", "gradient_norm", "seconds"}


class Log:
    """`metrics.jsonl` and TensorBoard; a resumed run drops the lines that it is about to write again."""

    def __init__(self, folder: Path, first: int, *, writes: bool) -> None:
        self._path, self._writes = folder / "metrics.jsonl", writes
        lines = self._path.read_text(encoding="utf-8").splitlines() if first and self._path.exists() else []
        records = [json.loads(line) for line in lines[:first]]
        self._losses = [record["loss"] for record in records]
        self.seconds = records[-1]["seconds"] if records else 0.0
        self.last_watched: dict[str, float] = {}
        for record in records:
            self.last_watched |= {name: value for name, value in record.items() if name not in _EVERY_STEP}
        if writes:
            if not first:
                for old in ("tensorboard", "samples"):
                    shutil.rmtree(folder / old, ignore_errors=True)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)
            write_text(self._path, "".join(line + "\n" for line in lines[:first]))
        self._clock = time.monotonic()

    def __enter__(self) -> "Log":
        if self._writes:
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._file.close()
            self._board.close()

    @property
    def recent(self) -> float:
        """Mean loss of the last 50 steps: a single step's loss says little, because its timesteps are random."""
        window = self._losses[-50:]
        return sum(window) / len(window) if window else math.nan

    def write(self, step: Step, watched: dict[str, float]) -> float:
        """Note one step, and what was measured after it; returns its loss."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        loss = float(step.loss)
        self._losses.append(loss)
        self.last_watched |= watched
        values = {"loss": loss, "learning_rate": step.rate, "gradient_norm": float(step.norm), **watched}
        if self._writes:
            self._file.write(json.dumps({"step": step.number, **values, "seconds": round(self.seconds, 3)}) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step.number)
        return loss

    def show(self, step: int, pictures: Sequence[tuple[Frame, Image.Image]]) -> None:
        """Samples, where TensorBoard shows images."""
        for frame, image in pictures:
            self._board.add_image(frame.scene, np.asarray(image), step, dataformats="HWC")


@contextmanager
def deferred_interrupt() -> Iterator[Any]:
    """Hold back the first Ctrl-C until the block is left; the value says whether one came. A second acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Signals are the main thread's.
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt

"""train: prepared images → LoRA adapters on a frozen Stable Diffusion.

Reads `dataset/`; writes `adapters/<name>/`: weights, card, model card, metrics. What does not change is computed once:
the latents (as mean and standard deviation, so that they are still resampled at each step) and the text embeddings.
Everything random in step n follows from the seed and n alone, so a resumed run draws what the first one would have.
"""

import hashlib
import itertools
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as nn
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler
from torch.utils.tensorboard import SummaryWriter

from avignon import adapters, cards, diffusion, imaging
from avignon.errors import AvignonError
from avignon.recipe import Artist, Recipe, Train
from avignon.records import Voice, plain
from avignon.workspace import Workspace, digest, read_json, replacing, sha256_of, write_json, write_text


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Train every adapter of the recipe that is not finished yet.

    Raises:
        InputError: a base, precision or attention backend that cannot be had here.
        AvignonError: the loss is no longer a number; the last checkpoint is kept.
    """
    device = diffusion.device()
    precision = diffusion.precision_for(recipe.train.precision, "train", device)
    attention = diffusion.attention_for(recipe.train.attention, device)
    accelerator = _accelerator(recipe.train, precision, device)
    voice.note(f"training on {device}, {precision}, attention {attention}")
    jobs = _jobs(recipe)
    for name, artists in jobs.items():
        # Loaded afresh for each adapter: accelerate wraps a model for good when it prepares it.
        base = diffusion.load(recipe, torch.float32, voice)
        job = Job(name, artists, recipe, space, voice, precision)
        if not job.is_done(base):
            job.train(base, accelerator, attention)
    space.sweep(space.adapters, {p for name in jobs for p in space.adapter(name).rglob("*") if p.is_file()})


def _jobs(recipe: Recipe) -> dict[str, tuple[Artist, ...]]:
    """The artists that each adapter learns from."""
    if recipe.train.mode == "joint":
        return {"joint": recipe.artists}
    return {artist.slug: (artist,) for artist in recipe.artists}


def _accelerator(settings: Train, precision: diffusion.Precision, device: torch.device) -> Accelerator:
    passes = settings.batch // (settings.micro_batch or settings.batch)
    mixed = "no" if precision == "fp32" else precision
    AcceleratorState._reset_state()  # It is the process's: without this a second run could not change the precision.
    return Accelerator(mixed_precision=mixed, gradient_accumulation_steps=passes, cpu=device.type == "cpu")


@dataclass(frozen=True)
class Job:
    """One adapter to train, and where it goes."""

    name: str
    artists: tuple[Artist, ...]
    recipe: Recipe
    space: Workspace
    voice: Voice
    precision: diffusion.Precision

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

    def identity(self, base: diffusion.Base) -> str:
        """Hash of all that the weights depend on; a checkpoint of another identity is not continued."""
        data = [[row["sha256"], row["captions"]] for _, row in self.examples()]
        settings = self.recipe.train.model_dump(exclude={"checkpoint_every"})
        artists = [[artist.name, artist.trigger, artist.rights] for artist in self.artists]
        return digest([self.name, artists, self.recipe.seed, settings, self.precision, base.fingerprint, data])

    def is_done(self, base: diffusion.Base) -> bool:
        """Whether this very adapter was finished by an earlier run that was interrupted later on."""
        card, weights = self.folder / "card.json", self.folder / adapters.WEIGHTS_FILE
        if not (card.exists() and weights.exists()):
            return False
        metrics = read_json(card)["metrics"]
        return bool(metrics["identity"] == self.identity(base) and metrics["weights"] == sha256_of(weights))

    def train(self, base: diffusion.Base, accelerator: Accelerator, attention: Any) -> None:
        """Learn, save, prove, and write the cards; `card.json` comes last."""
        settings, identity = self.recipe.train, self.identity(base)
        (self.folder / "card.json").unlink(missing_ok=True)
        data = encode(base, self.examples(), settings, accelerator.device, self.voice)
        unet = base.pipeline.unet.to(accelerator.device, diffusion.DTYPES[self.precision])
        if settings.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        diffusion.use_attention(unet, attention)
        parameters = adapters.add(unet, self.name, settings.ranks, settings.alpha, _seed(self.recipe.seed, self.name))
        share = adapters.trainable(unet, parameters, settings.ranks)
        self.voice.note(
            f"{self.name}: {share['parameters']:,} of {share['unet_parameters']:,} parameters are trained "
            f"({share['share']:.3%}), {len(data.mean)} images"
        )
        metrics = self._fit(base, accelerator, data, parameters, identity)
        weights = self.folder / adapters.WEIGHTS_FILE
        adapters.save(unet, self.name, weights)
        ledger = self.space.read_ledger()
        card = cards.card(
            self.name,
            self.recipe,
            self.artists,
            [row for _, row in self.examples()],
            ledger,
            base=base.card,
            trainable=share,
            environment=cards.environment(accelerator.device.type, self.precision),
            metrics={**metrics, "identity": identity, "weights": sha256_of(weights)},
        )
        write_text(self.folder / "README.md", cards.model_card(card, ledger))
        write_json(self.folder / "card.json", plain(card))
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def _fit(
        self,
        base: diffusion.Base,
        accelerator: Accelerator,
        data: "Data",
        parameters: list[torch.nn.Parameter],
        identity: str,
    ) -> dict[str, Any]:
        settings = self.recipe.train
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        unet, optimizer = accelerator.prepare(base.pipeline.unet, optimizer)
        noise_schedule = DDPMScheduler.from_config(base.pipeline.scheduler.config)
        state = State(self.folder / "checkpoint.pt", identity, parameters, optimizer, accelerator.scaler)
        first = state.restore()
        if first:
            self.voice.note(f"{self.name}: going on at step {first} of {settings.steps}")
        unet.train()
        with Log(self.folder, first) as log, deferred_interrupt() as interrupted:
            for step in range(first, settings.steps):
                rate = learning_rate(settings, step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                drawn = draw(
                    data, settings, noise_schedule.config.num_train_timesteps, _seed(self.recipe.seed, self.name), step
                )
                loss = optimizer_step(accelerator, unet, optimizer, parameters, noise_schedule, drawn, settings)
                _check_finite(loss, parameters, f"{self.name}: at step {step + 1}", drawn, data)
                log.write(step + 1, loss, rate)
                done = step + 1
                self.voice.progress(done, settings.steps, f"{self.name}: loss {log.recent:.4f}", loss=loss)
                stop = interrupted()
                if done == settings.steps or done % settings.checkpoint_every == 0 or stop:
                    state.save(done)
                if stop:
                    break
        accelerator.free_memory()
        return {"steps": settings.steps, "final_loss": log.recent, "seconds": round(log.seconds, 1)}


def _seed(seed: int, *names: str | int) -> int:
    """A seed for one purpose, independent of all others: 63 bits of a hash."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Data:
    """What training reads at every step, computed once. N images, F views (plain, mirrored), M captions."""

    mean: torch.Tensor
    """Of the VAE's posterior, scaled, shaped (N, F, C, H/8, W/8)."""
    std: torch.Tensor
    text: torch.Tensor
    """Embeddings of the captions, shaped (N, M, tokens, width)."""
    empty: torch.Tensor
    """Embedding of the empty prompt, shaped (tokens, width)."""
    files: tuple[str, ...]


@torch.no_grad()
def encode(
    base: diffusion.Base,
    examples: list[tuple[Path, dict[str, Any]]],
    settings: Train,
    device: torch.device,
    voice: Voice,
) -> Data:
    """Run the VAE over every image and the text encoder over every caption, in fp32, then let both go."""
    pipeline = base.pipeline
    vae = pipeline.vae.to(device, torch.float32)
    means, stds = [], []
    for path, _ in examples:
        pixels = (
            torch.from_numpy(imaging.pixels(imaging.load(path))).float().permute(2, 0, 1)[None] * 2 - 1
        )  # (1, 3, H, W)
        views = torch.cat([pixels, pixels.flip(-1)] if settings.flip else [pixels]).to(device)
        posterior = vae.encode(views).latent_dist
        means.append(posterior.mean * vae.config.scaling_factor)
        stds.append(posterior.std * vae.config.scaling_factor)
    count = max(len(row["captions"]) for _, row in examples)
    captions = [list(itertools.islice(itertools.cycle(row["captions"]), count)) for _, row in examples]
    every = diffusion.text_embeddings(base, [c for own in captions for c in own], device, voice)
    empty = diffusion.text_embeddings(base, [""], device, voice)[0]
    vae.to("cpu")
    pipeline.text_encoder.to("cpu")
    text = every.reshape(len(examples), count, *every.shape[1:])
    return Data(torch.stack(means), torch.stack(stds), text, empty, tuple(path.name for path, _ in examples))


@dataclass(frozen=True)
class Draw:
    """The random choices of one step, for a batch of B images."""

    index: torch.Tensor
    latents: torch.Tensor
    """(B, C, H/8, W/8)"""
    noise: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    """(B, tokens, width)"""

    def parts(self, size: int) -> Iterator["Draw"]:
        """The draw in micro-batches of `size`."""
        fields = (self.index, self.latents, self.noise, self.timesteps, self.text)
        return itertools.starmap(Draw, zip(*(torch.split(field, size) for field in fields), strict=True))


def draw(data: Data, settings: Train, timesteps: int, seed: int, step: int) -> Draw:
    """Step `step`'s images, captions, latents, noise and timesteps; on the CPU, so that every device draws the same."""
    images, views = data.mean.shape[:2]
    batch, device = settings.batch, data.mean.device
    random = torch.Generator().manual_seed(_seed(seed, step))
    index = torch.tensor([_nth_image(seed, images, step * batch + i) for i in range(batch)])
    view = torch.randint(views, (batch,), generator=random)
    caption = torch.randint(data.text.shape[1], (batch,), generator=random)
    dropped = torch.rand(batch, generator=random) < settings.caption_dropout
    shape = (batch, *data.mean.shape[2:])
    spread = torch.randn(shape, generator=random).to(device)
    noise = torch.randn(shape, generator=random).to(device)
    times = torch.randint(timesteps, (batch,), generator=random).to(device)
    text = torch.where(dropped.to(device)[:, None, None], data.empty, data.text[index, caption])
    return Draw(index, data.mean[index, view] + data.std[index, view] * spread, noise, times, text)


def _nth_image(seed: int, images: int, n: int) -> int:
    """The n-th image of an endless order in which every image comes once per epoch, newly shuffled each time."""
    epoch, place = divmod(n, images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(_seed(seed, "epoch", epoch)))
    return int(order[place])


def learning_rate(settings: Train, step: int) -> float:
    """Linear warm-up from 0, then constant, or falling to 0 at the last step along a line or half a cosine."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / (settings.warmup + 1)
    t = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    factor = {"constant": 1.0, "linear": 1 - t, "cosine": (1 + math.cos(math.pi * t)) / 2}[settings.schedule]
    return settings.learning_rate * factor


def optimizer_step(
    accelerator: Accelerator,
    unet: Any,
    optimizer: Any,
    parameters: list[torch.nn.Parameter],
    noise_schedule: Any,
    drawn: Draw,
    settings: Train,
) -> float:
    """One optimizer step over the batch in micro-batches; returns the mean loss."""
    total = 0.0
    for part in drawn.parts(settings.micro_batch or settings.batch):
        with accelerator.accumulate(unet):
            loss = denoising_loss(unet, noise_schedule, part)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        total += float(loss.detach()) * len(part.index) / settings.batch
    return total


def denoising_loss(unet: Any, noise_schedule: Any, drawn: Draw) -> torch.Tensor:
    """Mean squared error of the UNet's prediction, in what the base was trained to predict.

    epsilon: Ho et al., arXiv:2006.11239, eq. 14. v: Salimans & Ho, arXiv:2202.00512, section 4.
    """
    noisy = noise_schedule.add_noise(drawn.latents, drawn.noise, drawn.timesteps)  # (B, C, H/8, W/8)
    predicted = unet(noisy, drawn.timesteps, drawn.text).sample
    kind = noise_schedule.config.prediction_type
    if kind == "epsilon":
        target = drawn.noise
    elif kind == "v_prediction":
        target = noise_schedule.get_velocity(drawn.latents, drawn.noise, drawn.timesteps)
    elif kind == "sample":
        target = drawn.latents
    else:
        raise AvignonError(f"the base's scheduler predicts {kind!r}; epsilon, v_prediction and sample are understood")
    return nn.mse_loss(predicted.float(), target.float())


@torch.no_grad()
def _check_finite(loss: float, parameters: list[torch.nn.Parameter], where: str, drawn: Draw, data: Data) -> None:
    """Stop before ruined weights are saved. A sound loss may have had gradients that are not."""
    if math.isfinite(loss) and math.isfinite(float(torch.nn.utils.get_total_norm(parameters))):
        return
    what = "the weights are no longer finite" if math.isfinite(loss) else f"the loss is {loss}"
    images = ", ".join(data.files[i] for i in drawn.index.tolist())
    raise AvignonError(
        f"{where} {what} (images {images}; timesteps {drawn.timesteps.tolist()}); the last checkpoint is kept; "
        "lower train.learning_rate, or set train.precision to bf16 or fp32, and run again: the adapter starts afresh"
    )


@dataclass(frozen=True)
class State:
    """Checkpoints: everything that a run needs to go on as if it had never stopped."""

    path: Path
    identity: str
    parameters: list[torch.nn.Parameter]
    optimizer: Any
    scaler: Any

    def save(self, step: int) -> None:
        """Replace the checkpoint by the present state, after `step` steps."""
        state = {
            "identity": self.identity,
            "step": step,
            "parameters": [parameter.detach().cpu() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }
        with replacing(self.path) as scratch:
            torch.save(state, scratch)

    def restore(self) -> int:
        """Go back to the checkpoint if it belongs to this very job; returns the steps done, 0 without one."""
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError):
            return 0  # None there, or cut short by a dying disk: start afresh.
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            return 0
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        return int(state["step"])


class Log:
    """`metrics.jsonl` and TensorBoard; a resumed run drops the lines that it is about to write again."""

    def __init__(self, folder: Path, first: int) -> None:
        self._path = folder / "metrics.jsonl"
        if not first:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)
        lines = self._path.read_text(encoding="utf-8").splitlines() if first and self._path.exists() else []
        self._losses = [json.loads(line)["loss"] for line in lines[:first]]
        before = [json.loads(line)["seconds"] for line in lines[:first]]
        self.seconds = before[-1] if before else 0.0
        write_text(self._path, "".join(line + "\n" for line in lines[:first]))
        self._clock = time.monotonic()

    def __enter__(self) -> "Log":
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    @property
    def recent(self) -> float:
        """Mean loss of the last 50 steps: a single step's loss says little, because its timesteps are random."""
        window = self._losses[-50:]
        return sum(window) / len(window) if window else math.nan

    def write(self, step: int, loss: float, rate: float) -> None:
        """Note one step."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        self._losses.append(loss)
        line = {"step": step, "loss": loss, "learning_rate": rate, "seconds": round(self.seconds, 3)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._board.add_scalar("loss", loss, step)
        self._board.add_scalar("learning_rate", rate, step)


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

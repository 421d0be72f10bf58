"""The miniature against its ground truth: since programs paint the embedded world, any scene has its true pictures.

    python benchmarks/miniature.py [obedience vae style dialogue demo] [--samples 320] [--works 1000] [--scenes 24]
    python benchmarks/miniature.py --candidate FOLDER [--set train.steps=600 …]    another base beside the shipped one

Each figure is printed beside its goal. Two small networks judge, trained here on true pictures and never on samples:
the first, on neutral drawings alone, names the subjects of the base's samples; the second, on all three hands, names
the subjects of adapters' samples and gives the feature space of the Fréchet distances (its 64 features before the last
layer). Nothing that the miniature or an adapter learned was optimised in either. Sampling is the product's own, in
bf16.

With a candidate the same judges measure both bases on the same scenes and seeds. Each paints at its own size, and all
is compared at the shipped one's: what a larger base makes is reduced to it. A candidate replaces the shipped base only
if it is better in every row, within 60 MB, and its demo within 6 minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from avignon import pipeline
from avignon.adapters import files as adapter_files
from avignon.adapters import weights as blend
from avignon.core.events import Reporter
from avignon.core.files import read_json
from avignon.core.records import Frame
from avignon.core.workspace import Workspace
from avignon.demo import world
from avignon.demo.painters import PAINTERS
from avignon.generation import sampler as painting
from avignon.models import loading, registry, runtime
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
SILENT = Reporter("benchmark", lambda _: None)
SIZE = 192
"""Pixels of a side of the shipped base, at which all is compared."""
HANDS = ("neutral", *PAINTERS)
SUBJECTS = list(world.SUBJECTS)
BF16 = "generate.precision=bf16"
STOPS = 9
SEEDS = 8
"""Samples of one scene at one stop, and half of the true works it is compared with."""

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float64]


# --- Bases and their figures ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One figure of a base, and what makes it better: more, less, or only that it keeps within a limit."""

    what: str
    value: float
    goal: str = ""
    unit: str = "%"
    wanted: Literal["more", "less", "within", ""] = "more"
    limit: float = math.inf

    def number(self) -> str:
        """The value with its unit."""
        return f"{100 * self.value:.1f} %" if self.unit == "%" else f"{self.value:.2f} {self.unit}".rstrip()

    def verdict(self, shipped: Row) -> str:
        """How a candidate's figure stands to the shipped one's."""
        if self.wanted == "within":
            return "within" if self.value <= self.limit else "beyond"
        if not self.wanted or self.value == shipped.value:
            return "equal" if self.wanted else ""
        return "better" if (self.value > shipped.value) == (self.wanted == "more") else "worse"


@dataclass
class Base:
    """A base that is measured, as the demo's recipe names it."""

    folder: Path
    overrides: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Pixels of a side that it was trained on; the autoencoder reduces by 8."""
        return 8 * int(read_json(self.folder / "unet" / "config.json")["sample_size"])

    def recipe(self, *overrides: str) -> Recipe:
        """The demo's recipe with this base."""
        return load_recipe(ROOT / "recipes/demo.toml", [*self.overrides, *overrides])

    def row(self, *figure: Any, **how: Any) -> None:
        """Print a figure and keep it."""
        self.rows.append(Row(*figure, **how))
        show(self.rows[-1])


def show(row: Row) -> None:
    """One line of the table."""
    print(f"{row.what:<64} {row.number():>12}   {row.goal}", flush=True)


def compare(shipped: Base, candidate: Base) -> list[str]:
    """Both tables side by side with a verdict for each row, as lines; the last says whether the candidate is better."""
    lines, missed = [f"{'':<64} {'shipped':>12} {'candidate':>12}   verdict"], []
    for old, new in zip(shipped.rows, candidate.rows, strict=True):
        verdict = new.verdict(old)
        lines.append(f"{new.what:<64} {old.number():>12} {new.number():>12}   {verdict}".rstrip())
        if verdict not in ("better", "within", ""):
            missed.append(new.what)
    last = "better in every row" if not missed else f"the shipped one stays; not better in: {'; '.join(missed)}"
    return [*lines, last]


# --- True pictures ----------------------------------------------------------------------------------------------------


def scenes(purpose: str, count: int, *, validation_works: bool = False) -> list[world.Scene]:
    """Scenes drawn evenly from the grammar; only, or never, combinations that were kept from training."""
    rng = random.Random(f"benchmark/{purpose}")
    drawn: list[world.Scene] = []
    while len(drawn) < count:
        scene = world.sample(rng)
        if world.held_out(scene) is validation_works:
            drawn.append(scene)
    return drawn


def true_picture(task: tuple[str, world.Scene, int, int]) -> Pictures:
    """One scene by one hand, (size, size, 3); a painter's is reduced from a larger one, as a museum's pictures are."""
    hand, scene, seed, size = task
    if hand == "neutral":
        return np.asarray(world.render(scene, size))
    large = PAINTERS[hand](scene, (2 * size, 2 * size), seed)
    return np.asarray(large.resize((size, size), Image.Resampling.LANCZOS))


def true_pictures(hand: str, what: Sequence[world.Scene], first: int = 0, size: int = SIZE) -> Pictures:
    """Many scenes by one hand, (N, size, size, 3), on all cores."""
    tasks = [(hand, scene, first + k, size) for k, scene in enumerate(what)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return np.stack(list(pool.map(true_picture, tasks, chunksize=20)))


# --- The judges -------------------------------------------------------------------------------------------------------


class ValidationMetric(nn.Module):
    """A small convolutional network that names the subject of a picture and the hand that made it."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 24, 48, 96, 128, 160), []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 5 if before == 3 else 3, 2, padding=1), nn.BatchNorm2d(after)]
            layers += [nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(160, 160, 3, padding=1), nn.ReLU())
        self.features = nn.Sequential(nn.Linear(320, 64), nn.ReLU())
        self.heads = nn.Linear(64, len(SUBJECTS) + len(HANDS))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in -1..1 to features (B, 64) and logits of subjects and hands."""
        x = self.body(x)
        features = self.features(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1).float())
        return features, self.heads(features)

    @torch.no_grad()
    def look(self, pictures: Pictures) -> tuple[Floats, NDArray[np.int64]]:
        """Features (N, 64) and named subjects (N,)."""
        self.eval()
        parts = [self(tensor(part)) for part in np.array_split(pictures, math.ceil(len(pictures) / 64))]
        features, logits = (torch.cat(each) for each in zip(*parts, strict=True))
        return features.double().numpy(), logits[:, : len(SUBJECTS)].argmax(1).numpy()


def tensor(pictures: Pictures) -> Tensor:
    """(N, H, W, 3) bytes to (N, 3, H, W) in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def train_judge(pictures: Pictures, subjects: Sequence[int], hands: Sequence[int], epochs: int = 9) -> ValidationMetric:
    """Train a judge on true pictures, mirrored at random."""
    torch.manual_seed(0)
    judge, order = ValidationMetric().train(), np.random.default_rng(0)
    wanted, by = torch.tensor(subjects), torch.tensor(hands)
    steps = epochs * (len(pictures) // 64)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in np.split(order.permutation(len(pictures))[: len(pictures) // 64 * 64], len(pictures) // 64):
            x = tensor(pictures[chosen])
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
            with torch.autocast("cpu", torch.bfloat16):
                logits = judge(x.to(memory_format=torch.channels_last))[1].float()
            told, seen = logits[:, : len(SUBJECTS)], logits[:, len(SUBJECTS) :]
            loss = F.cross_entropy(told, wanted[chosen]) + F.cross_entropy(seen, by[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return judge.eval()


def right(named: NDArray[np.int64], what: Sequence[world.Scene]) -> float:
    """Share of pictures whose subject was named right."""
    return float(np.mean([SUBJECTS[int(k)] == scene.subject for k, scene in zip(named, what, strict=True)]))


def subjects_of(what: Sequence[world.Scene]) -> list[int]:
    """Subjects as numbers."""
    return [SUBJECTS.index(scene.subject) for scene in what]


def neutral_judge() -> ValidationMetric:
    """The judge of the base's samples; its accuracy on held-out drawings is printed."""
    what, test = scenes("judge", 8000), scenes("judge, test", 500) + scenes("judge, test", 500, validation_works=True)
    judge = train_judge(true_pictures("neutral", what), subjects_of(what), [0] * len(what))
    named = judge.look(true_pictures("neutral", test))[1]
    show(Row("judge's accuracy on held-out drawings", right(named, test), ">= 97 %"))
    return judge


def judge_of_hands() -> ValidationMetric:
    """The judge of adapters' samples, trained on all three hands."""
    what = scenes("judge of hands", 3000)
    pictures = np.concatenate([true_pictures(hand, what) for hand in HANDS])
    judge = train_judge(pictures, subjects_of(what) * 3, [k for k in range(3) for _ in what])
    test = scenes("judge of hands, test", 300)
    for hand in HANDS:
        named = judge.look(true_pictures(hand, test, first=50_000))[1]
        show(Row(f"second judge's accuracy, {hand}", right(named, test), "the most that samples can reach"))
    return judge


# --- Samples ----------------------------------------------------------------------------------------------------------


class Sampler:
    """The product's own way to pictures: its loading, its adapters, its painter."""

    def __init__(self, settings: Recipe, folders: dict[str, Path], size: int) -> None:
        self._settings, self._size = settings, size
        base = loading.load(settings.base, settings.generate, torch.bfloat16, SILENT)
        for name, folder in folders.items():
            adapter_files.load(base, name, folder)
        self._sampler = painting.ImageSampler(base, settings, runtime.best_device(), SILENT)

    def paint(self, what: Sequence[world.Scene], weights: dict[str, float], first: int = 0) -> Pictures:
        """One sample of each scene's caption, reduced or enlarged to (N, SIZE, SIZE, 3)."""
        frames = [self._frame(scene, first + k, weights) for k, scene in enumerate(what)]
        groups = [frames[k : k + 16] for k in range(0, len(frames), 16)]
        images = (image for group in groups for image in self._sampler.paint(group))
        return np.stack([np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for image in images])

    def _frame(self, scene: world.Scene, seed: int, weights: dict[str, float]) -> Frame:
        settings = self._settings.generate
        return Frame(
            scene="",
            stop="",
            prompt=world.caption(scene),
            negative_prompt="",
            seed=seed,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            scheduler=settings.scheduler,
            width=self._size,
            height=self._size,
            weights=weights,
            base="",
            adapters={},
            precision="bf16",
        )


# --- The figures ------------------------------------------------------------------------------------------------------


def obedience(arguments: argparse.Namespace, base: Base, judge: ValidationMetric) -> None:
    """How often the base paints the subject it was asked for."""
    sampler = Sampler(base.recipe(BF16), {}, base.size)
    for name, held, goal in (("seen combinations", False, ">= 90 %"), ("unseen combinations", True, ">= 80 %")):
        what = scenes(f"obedience, {name}", arguments.samples, validation_works=held)
        named = judge.look(sampler.paint(what, {}))[1]
        base.row(f"base obeys, {name} ({len(what)} samples)", right(named, what), goal)
        for distance in world.DISTANCES:
            part = [k for k, scene in enumerate(what) if scene.distance == distance and scene.number == 1]
            base.row(f"  of these one subject, {distance}", right(named[part], [what[k] for k in part]), wanted="")


@torch.no_grad()
def autoencoder(base: Base) -> None:
    """Peak signal-to-noise ratio of reconstructions, mean over pictures."""
    settings = base.recipe()
    loaded: Any = loading.load(settings.base, settings.generate, torch.float32, SILENT)
    vae = loaded.pipeline.vae
    what = scenes("autoencoder", 96)
    for hand in HANDS:
        true = tensor(true_pictures(hand, what, first=60_000, size=base.size))
        made = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in torch.split(true, 16)])
        difference = made.clamp(-1, 1) - true
        if base.size != SIZE:
            difference = F.interpolate(difference, SIZE, mode="bicubic", antialias=True)
        errors = (difference / 2).square().mean((1, 2, 3))
        base.row(f"autoencoder, {hand}", float((-10 * errors.log10()).mean()), ">= 28 dB", "dB")


def frechet(a: Floats, b: Floats) -> float:
    """Fréchet distance of two normal distributions fitted to features (N, 64) (Dowson & Landau 1982)."""
    mean = a.mean(0) - b.mean(0)
    one, other = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(mean @ mean + np.trace(one) + np.trace(other) - 2 * cross)


def trained(base: Base, folder: Path) -> Workspace:
    """A run of the demo with its adapters, and how many seconds they took to train."""
    settings = base.recipe(BF16)
    space = pipeline.run(settings, folder, lambda _: None, until="train")
    for name in settings.adapter_names:
        last = (space.adapter(name) / "metrics.jsonl").read_text().splitlines()[-1]
        base.row(f"training, {name}", json.loads(last)["seconds"], "<= 110 s", "s", "within", 110)
    return space


def style(arguments: argparse.Namespace, base: Base, judge: ValidationMetric, sampler: Sampler) -> None:
    """How much of the way from the base to a painter an adapter goes, in features of the second judge."""
    what = scenes("style", max(arguments.samples, arguments.works))
    asked, effective_steps = what[: arguments.samples], what[: arguments.works]
    plain = judge.look(sampler.paint(asked, {}))[0]
    for name, hand in zip(base.recipe().adapter_names, PAINTERS, strict=True):
        true = judge.look(true_pictures(hand, effective_steps, first=70_000))[0]
        made, named = judge.look(sampler.paint(asked, {name: 1.0}))
        before, after = frechet(plain, true), frechet(made, true)
        counts = f"{len(asked)} samples, {len(effective_steps)} works"
        base.row(f"{name}: Fréchet distance, base", before, counts, "", wanted="")
        base.row(f"{name}: Fréchet distance, adapter", after, unit="", wanted="less")
        base.row(f"{name}: share of the distance that is left", after / before, "<= 35 %", wanted="less")
        base.row(f"{name}: subject still named right", right(named, asked), ">= 75 %")


def stops_of(base: Base, folder: Path) -> list[dict[str, float]]:
    """The weights at the stops as the product places them: voices of equal effect, steps of equal style."""
    settings = base.recipe(BF16, f"generate.stops={STOPS}", "generate.spacing=even", "generate.equalize_adapters=true")
    space = pipeline.run(settings, folder, lambda _: None, until="generate")
    placing = read_json(space.placing)["placing"]
    strengths = {name: settings.generate.strength_of(name) for name in settings.path_adapters}
    path = blend.MixPath(settings.path_adapters, settings.generate.path, strengths=strengths, gains=placing["gains"])
    return [dict(path.at(place).weights) for place in placing["places"]]


def dialogue(
    arguments: argparse.Namespace,
    base: Base,
    judge: ValidationMetric,
    sampler: Sampler,
    stops: Sequence[dict[str, float]],
) -> None:
    """Whether every stop leads away from the first painter and towards the second, scene by scene."""
    what = [dataclasses.replace(scene, number=1) for scene in scenes("dialogue", arguments.scenes)]
    hands = [
        np.stack([judge.look(true_pictures(hand, [scene] * 2 * SEEDS, first=80_000))[0].mean(0) for scene in what])
        for hand in PAINTERS
    ]  # (scenes, 64) each
    repeated = [scene for scene in what for _ in range(SEEDS)]
    seen = [judge.look(sampler.paint(repeated, weights))[0].reshape(len(what), SEEDS, -1).mean(1) for weights in stops]
    away, near = (np.linalg.norm(np.stack(seen) - hand, axis=-1) for hand in hands)  # (stops, scenes)
    steps = np.stack([np.diff(away, axis=0) > 0, np.diff(near, axis=0) < 0])  # (2, stops - 1, scenes)
    base.row(f"dialogue: scenes with every step right ({len(what)} scenes)", float(steps.all((0, 1)).mean()), ">= 90 %")
    base.row("dialogue: steps in the right direction", float(steps.mean()))


def whole_demo(base: Base) -> None:
    """Bytes of the base, and how long the demo takes with it from nothing to the page."""
    size = sum(file.stat().st_size for file in base.folder.rglob("*") if file.is_file())
    base.row("size of the base", size / 1e6, "<= 60 MB", "MB", "within", 60)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        pipeline.run(base.recipe(), Path(scratch), lambda _: None)
        seconds = time.monotonic() - began
    base.row("the whole demo", seconds, "<= 360 s on two cores", "s", "within", 360)


def measure(arguments: argparse.Namespace, base: Base, folder: Path, judges: dict[str, ValidationMetric]) -> None:
    """The figures of one base in the parts asked for; `folder` is where the demo's adapters are or will be."""
    if "demo" in arguments.parts:
        whole_demo(base)
    if "vae" in arguments.parts:
        autoencoder(base)
    if "obedience" in arguments.parts:
        obedience(arguments, base, judges["neutral"])
    if not {"style", "dialogue"}.intersection(arguments.parts):
        return
    space = trained(base, folder)
    settings = base.recipe(BF16)
    sampler = Sampler(settings, {name: space.adapter(name) for name in settings.adapter_names}, base.size)
    if "style" in arguments.parts:
        style(arguments, base, judges["hands"], sampler)
    if "dialogue" in arguments.parts:
        dialogue(arguments, base, judges["hands"], sampler, stops_of(base, folder))


def main() -> None:
    """Print the figures of the parts asked for; with a candidate, of both bases, and then side by side."""
    arguments = parsed()
    judges = {}
    if "obedience" in arguments.parts:
        judges["neutral"] = neutral_judge()
    if {"style", "dialogue"}.intersection(arguments.parts):
        judges["hands"] = judge_of_hands()
    bases = [Base(registry.embedded_folder())]
    if arguments.candidate:
        candidate = Base(arguments.candidate.resolve())
        named = (f"base.model={candidate.folder}", f"base.resolution={candidate.size}")
        candidate.overrides = (*named, *arguments.set)
        bases.append(candidate)
    with tempfile.TemporaryDirectory() as scratch:
        for place, base in enumerate(bases):
            print(base.folder)
            folder = Path(scratch) / str(place)
            measure(arguments, base, folder if place else arguments.workspace or folder, judges)
    if arguments.candidate:
        print(*compare(*bases), sep="\n")


def parsed() -> argparse.Namespace:
    """What the command line says, checked."""
    parts = ("obedience", "vae", "style", "dialogue", "demo")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument(
        "--samples", type=int, default=1000, help="samples of base and adapters (obedience: 320 at most)"
    )
    parser.add_argument("--works", type=int, default=1000, help="true works of each painter")
    parser.add_argument("--scenes", type=int, default=24, help="scenes of the dialogue")
    parser.add_argument("--workspace", type=Path, help="a folder whose adapters of the demo are taken if up to date")
    parser.add_argument("--candidate", type=Path, help="folder of another base, in diffusers' format, to judge")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="values of the demo's recipe for the candidate"
    )
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or parts
    if unknown := set(arguments.parts).difference(parts):  # argparse's choices would refuse no part at all
        parser.error(f"no part {min(unknown)!r}; there are {', '.join(parts)}")
    if arguments.candidate and not (arguments.candidate / "unet" / "config.json").is_file():
        parser.error(
            f"--candidate: {arguments.candidate} holds no unet/config.json; a base in diffusers' format is wanted"
        )
    return arguments


if __name__ == "__main__":
    main()

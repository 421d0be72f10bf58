"""The miniature against its ground truth: since programs paint the embedded world, any scene has its true pictures.

    python benchmarks/miniature.py [obedience vae style dialogue] [--samples 320] [--works 1000] [--scenes 24]

Each figure is printed beside its goal. Two small networks judge, trained here on true pictures and never on samples:
the first, on neutral drawings alone, names the subjects of the base's samples; the second, on all three hands, names
the subjects of adapters' samples and gives the feature space of the Fréchet distances (its 64 features before the last
layer). Nothing that the miniature or an adapter learned was optimised in either. Sampling is the product's own, in
bf16.
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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

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
from avignon.models import loading, runtime
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
SILENT = Reporter("benchmark", lambda _: None)
SIZE = 192
HANDS = ("neutral", *PAINTERS)
SUBJECTS = list(world.SUBJECTS)
STOPS = 9
SEEDS = 8
"""Samples of one scene at one stop, and half of the true works it is compared with."""

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float64]


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


def true_picture(task: tuple[str, world.Scene, int]) -> Pictures:
    """One scene by one hand, (SIZE, SIZE, 3); a painter's is reduced from a larger one, as a museum's pictures are."""
    hand, scene, seed = task
    if hand == "neutral":
        return np.asarray(world.render(scene, SIZE))
    large = PAINTERS[hand](scene, (2 * SIZE, 2 * SIZE), seed)
    return np.asarray(large.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def true_pictures(hand: str, what: Sequence[world.Scene], first: int = 0) -> Pictures:
    """Many scenes by one hand, (N, SIZE, SIZE, 3), on all cores."""
    tasks = [(hand, scene, first + k) for k, scene in enumerate(what)]
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
    row("judge's accuracy on held-out drawings", right(judge.look(true_pictures("neutral", test))[1], test), ">= 97 %")
    return judge


def judge_of_hands() -> ValidationMetric:
    """The judge of adapters' samples, trained on all three hands."""
    what = scenes("judge of hands", 3000)
    pictures = np.concatenate([true_pictures(hand, what) for hand in HANDS])
    judge = train_judge(pictures, subjects_of(what) * 3, [k for k in range(3) for _ in what])
    test = scenes("judge of hands, test", 300)
    for hand in HANDS:
        named = judge.look(true_pictures(hand, test, first=50_000))[1]
        row(f"second judge's accuracy, {hand}", right(named, test), "the most that samples can reach")
    return judge


# --- Samples ----------------------------------------------------------------------------------------------------------


class Sampler:
    """The product's own way to pictures: its loading, its adapters, its painter."""

    def __init__(self, settings: Recipe, folders: dict[str, Path]) -> None:
        self._settings = settings
        base = loading.load(settings.base, settings.generate, torch.bfloat16, SILENT)
        for name, folder in folders.items():
            adapter_files.load(base, name, folder)
        self._sampler = painting.ImageSampler(base, settings, runtime.best_device(), SILENT)

    def paint(self, what: Sequence[world.Scene], weights: dict[str, float], first: int = 0) -> Pictures:
        """One sample of each scene's caption, (N, SIZE, SIZE, 3)."""
        frames = [self._frame(scene, first + k, weights) for k, scene in enumerate(what)]
        groups = [frames[k : k + 16] for k in range(0, len(frames), 16)]
        return np.stack([np.asarray(image) for group in groups for image in self._sampler.paint(group)])

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
            width=SIZE,
            height=SIZE,
            weights=weights,
            base="",
            adapters={},
            precision="bf16",
        )


def demo(*overrides: str) -> Recipe:
    """The demo's recipe."""
    return load_recipe(ROOT / "recipes/demo.toml", ["generate.precision=bf16", *overrides])


# --- The figures ------------------------------------------------------------------------------------------------------


def row(what: str, value: float, goal: str, unit: str = "%") -> None:
    """One line of the table."""
    number = f"{100 * value:8.1f} %" if unit == "%" else f"{value:8.2f} {unit}"
    print(f"{what:<64} {number:>12}   {goal}", flush=True)


def obedience(arguments: argparse.Namespace) -> None:
    """How often the base paints the subject it was asked for."""
    judge, sampler = neutral_judge(), Sampler(demo(), {})
    for name, held, goal in (("seen combinations", False, ">= 90 %"), ("unseen combinations", True, ">= 80 %")):
        what = scenes(f"obedience, {name}", arguments.samples, validation_works=held)
        named = judge.look(sampler.paint(what, {}))[1]
        row(f"base obeys, {name} ({len(what)} samples)", right(named, what), goal)
        for distance in world.DISTANCES:
            part = [k for k, scene in enumerate(what) if scene.distance == distance and scene.number == 1]
            row(f"  of these one subject, {distance}", right(named[part], [what[k] for k in part]), "")


@torch.no_grad()
def autoencoder(_: argparse.Namespace) -> None:
    """Peak signal-to-noise ratio of reconstructions, mean over pictures."""
    settings = demo()
    base: Any = loading.load(settings.base, settings.generate, torch.float32, SILENT)
    vae = base.pipeline.vae
    what = scenes("autoencoder", 96)
    for hand in HANDS:
        true = tensor(true_pictures(hand, what, first=60_000))
        made = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in torch.split(true, 16)])
        errors = ((made.clamp(-1, 1) - true) / 2).square().mean((1, 2, 3))
        row(f"autoencoder, {hand}", float((-10 * errors.log10()).mean()), ">= 28 dB", "dB")


def frechet(a: Floats, b: Floats) -> float:
    """Fréchet distance of two normal distributions fitted to features (N, 64) (Dowson & Landau 1982)."""
    mean = a.mean(0) - b.mean(0)
    one, other = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(mean @ mean + np.trace(one) + np.trace(other) - 2 * cross)


def trained(folder: Path, settings: Recipe) -> Workspace:
    """A run of the demo with its adapters, and how many seconds they took to train."""
    space = pipeline.run(settings, folder, lambda _: None, until="train")
    for name in settings.adapter_names:
        last = (space.adapter(name) / "metrics.jsonl").read_text().splitlines()[-1]
        row(f"training, {name}", json.loads(last)["seconds"], "<= 110 s", "s")
    return space


def style(arguments: argparse.Namespace, judge: ValidationMetric, sampler: Sampler, names: Sequence[str]) -> None:
    """How much of the way from the base to a painter an adapter goes, in features of the second judge."""
    what = scenes("style", max(arguments.samples, arguments.works))
    asked, effective_steps = what[: arguments.samples], what[: arguments.works]
    base = judge.look(sampler.paint(asked, {}))[0]
    for name, hand in zip(names, PAINTERS, strict=True):
        true = judge.look(true_pictures(hand, effective_steps, first=70_000))[0]
        made, named = judge.look(sampler.paint(asked, {name: 1.0}))
        before, after = frechet(base, true), frechet(made, true)
        row(f"{name}: Fréchet distance, base", before, f"{len(asked)} samples, {len(effective_steps)} works", "")
        row(f"{name}: Fréchet distance, adapter", after, "", "")
        row(f"{name}: share of the distance that is left", after / before, "<= 35 %")
        row(f"{name}: subject still named right", right(named, asked), ">= 75 %")


def stops_of(folder: Path) -> list[dict[str, float]]:
    """The weights at the stops as the product places them: voices of equal effect, steps of equal style."""
    settings = demo(f"generate.stops={STOPS}", "generate.spacing=even", "generate.equalize_adapters=true")
    space = pipeline.run(settings, folder, lambda _: None, until="generate")
    placing = read_json(space.placing)["placing"]
    strengths = {name: settings.generate.strength_of(name) for name in settings.path_adapters}
    path = blend.MixPath(settings.path_adapters, settings.generate.path, strengths=strengths, gains=placing["gains"])
    return [dict(path.at(place).weights) for place in placing["places"]]


def dialogue(
    arguments: argparse.Namespace, judge: ValidationMetric, sampler: Sampler, stops: Sequence[dict[str, float]]
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
    row(f"dialogue: scenes with every step right ({len(what)} scenes)", float(steps.all((0, 1)).mean()), ">= 90 %")
    row("dialogue: steps in the right direction", float(steps.mean()), "")


def main() -> None:
    """Print the figures of the parts asked for."""
    parts = ("obedience", "vae", "style", "dialogue")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument(
        "--samples", type=int, default=1000, help="samples of base and adapters (obedience: 320 at most)"
    )
    parser.add_argument("--works", type=int, default=1000, help="true works of each painter")
    parser.add_argument("--scenes", type=int, default=24, help="scenes of the dialogue")
    parser.add_argument("--workspace", type=Path, help="a folder whose adapters of the demo are taken if up to date")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or parts
    if unknown := set(arguments.parts).difference(parts):  # argparse's choices would refuse no part at all
        parser.error(f"no part {min(unknown)!r}; there are {', '.join(parts)}")
    if "vae" in arguments.parts:
        autoencoder(arguments)
    if "obedience" in arguments.parts:
        obedience(arguments)
    if not {"style", "dialogue"}.intersection(arguments.parts):
        return
    with tempfile.TemporaryDirectory() as scratch:
        settings = demo()
        folder = arguments.workspace or Path(scratch)
        space = trained(folder, settings)
        sampler = Sampler(settings, {name: space.adapter(name) for name in settings.adapter_names})
        judge = judge_of_hands()
        if "style" in arguments.parts:
            style(arguments, judge, sampler, settings.adapter_names)
        if "dialogue" in arguments.parts:
            dialogue(arguments, judge, sampler, stops_of(folder))


if __name__ == "__main__":
    main()

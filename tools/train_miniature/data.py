"""Training pictures, rendered once, and the captions that go with them."""

import os
import random
import string
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from avignon.demo import world
from avignon.demo.painters import PAINTERS
from tools.train_miniature import settings
from tools.train_miniature.settings import KINDS, SEED, Run

CAPTION_DROPOUT = 0.12
"""Share of captions replaced by the empty prompt, for classifier-free guidance (Ho & Salimans 2022)."""
TIME_OF_NEUTRAL = 0.4
"""Share of the time for rendering that the neutral pictures have; the painters have the rest in equal parts."""
CAPTIONS = 4
"""Captions of each picture that are made beforehand where a card would wait for them."""


def scene_of(kind: str, index: int) -> world.Scene:
    """The index-th training scene of a kind, every second one plain; held-out combinations never occur."""
    rng = random.Random(f"{SEED}/{kind}/{index}")
    while True:
        scene = world.sample(rng)
        if not world.held_out(scene) and (index % 2 == 0 or is_plain(scene)):
            return scene


def is_plain(scene: world.Scene) -> bool:
    """One subject, close by, in clear or cloudy daylight."""
    near = scene.number == 1 and scene.distance == "near"
    return near and scene.time != "night" and scene.weather in ("fine", "cloudy")


def picture(size: int, kind: str, index: int) -> NDArray[np.uint8]:
    """The index-th training picture of a kind, (size, size, 3)."""
    scene = scene_of(kind, index)
    if kind == "neutral":
        return np.asarray(world.render(scene, size))
    rng = random.Random(index)
    side = rng.choice((size, size, size * 3 // 2))  # some larger ones, cropped: fine strokes at another scale
    x, y = rng.randint(0, side - size), rng.randint(0, side - size)
    painted = PAINTERS[kind](scene, (2 * side, 2 * side), index)  # reduced, as pictures of a museum are
    return np.asarray(painted.resize((side, side), Image.Resampling.LANCZOS))[y : y + size, x : x + size]


def _pictures(size: int, kind: str, indices: Sequence[int]) -> bytes:
    return b"".join(picture(size, kind, k).tobytes() for k in indices)


def pictures(run: Run, kind: str) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The rendered pictures of a kind as a memory map (N, size, size, 3)."""
    flat = np.memmap(run.cache / f"{kind}_{run.size}.u8", np.uint8, "r")
    return flat.reshape(-1, run.size, run.size, 3)  # type: ignore[return-value]


def render(run: Run) -> None:
    """Render every kind once, a fixed number or what the time allows; a kind that is already rendered is skipped."""
    workers = os.cpu_count() or 1
    began, seconds = time.monotonic(), run.clock.left() if run.clock else 0.0
    with ProcessPoolExecutor(workers) as pool:
        for place, kind in enumerate(KINDS):
            done = run.cache / f"{kind}_{run.size}.done"
            if done.exists():
                continue
            count, chunk = (settings.NEUTRAL, 20) if kind == "neutral" else (settings.PAINTED, 10)
            least, until = count, 0.0
            if run.clock:
                share = TIME_OF_NEUTRAL + (1 - TIME_OF_NEUTRAL) * place / (len(KINDS) - 1)
                least, count, until = settings.CHECKS + 32, 2 * count, began + share * seconds
            tasks = [range(k, min(k + chunk, count)) for k in range(0, count, chunk)]
            with (run.cache / f"{kind}_{run.size}.u8").open("wb") as file:
                for part in _in_order(pool, partial(_pictures, run.size, kind), tasks, workers + 2, least, until):
                    file.write(part)
            done.touch()
            print(f"scenes: {len(pictures(run, kind))} {kind}", flush=True)


def _in_order(
    pool: Executor, make: partial[bytes], tasks: Sequence[range], most: int, least: int, until: float
) -> Iterator[bytes]:
    """Results of tasks in their order, at most `most` on the way; none is begun `until` that time and `least` items."""
    waiting: deque[Future[bytes]] = deque()
    for task in tasks:
        if task.start >= least and time.monotonic() > until:
            break
        waiting.append(pool.submit(make, task))
        if len(waiting) == most:
            yield waiting.popleft().result()
    for each in waiting:
        yield each.result()


def captions_of(index: int) -> list[str]:
    """Some captions of a neutral picture, made beforehand."""
    rng, scene = random.Random(f"{SEED}/captions/{index}"), scene_of("neutral", index)
    return [training_caption(scene, rng) for _ in range(CAPTIONS)]


def training_caption(scene: world.Scene, rng: random.Random) -> str:
    """The caption as a user might put it: parts left out or moved, unknown names added, sometimes nothing at all."""
    if rng.random() < CAPTION_DROPOUT:
        return ""
    what, *rest = world.phrases(scene)
    if rng.random() < 0.10:
        rest = []
    rest = [part for part in rest if rng.random() < 0.85]
    if rng.random() < 0.3:
        rng.shuffle(rest)
    joint = ", " if rng.random() < 0.6 else " "
    text = joint.join([what, *rest])
    if rng.random() < 0.15:
        text = rng.choice(("a painting of ", "a picture of ", "an oil painting of ", "a drawing of ")) + text
    if rng.random() < 0.30:
        name = " ".join(_unknown_word(rng) for _ in range(rng.randint(1, 3)))
        text = rng.choice((f"{text}, in the style of {name}", f"{name}, {text}", f"{text}, {name}", f"{name} {text}"))
    return text


def _unknown_word(rng: random.Random) -> str:
    """A word without a meaning, so that the model learns to ignore words that it does not know."""
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 9)))


def to_tensor(batch: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) floats in -1..1."""
    return scaled(torch.from_numpy(np.array(batch)))


def scaled(batch: Tensor) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) floats in -1..1."""
    return batch.permute(0, 3, 1, 2).float().div(127.5).sub(1)

"""Training pictures, rendered once, and the captions that go with them."""

import random
import string
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from avignon.demo import world
from avignon.demo.painters import PAINTERS
from tools.train_miniature import settings
from tools.train_miniature.settings import KINDS, SEED, SIZE

CAPTION_DROPOUT = 0.12
"""Share of captions replaced by the empty prompt, for classifier-free guidance (Ho & Salimans 2022)."""


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


def picture(kind: str, index: int) -> NDArray[np.uint8]:
    """The index-th training picture of a kind, (SIZE, SIZE, 3)."""
    scene = scene_of(kind, index)
    if kind == "neutral":
        return np.asarray(world.render(scene, SIZE))
    rng = random.Random(index)
    side = rng.choice((SIZE, SIZE, SIZE * 3 // 2))  # some larger ones, cropped: fine strokes at another scale
    x, y = rng.randint(0, side - SIZE), rng.randint(0, side - SIZE)
    painted = PAINTERS[kind](scene, (2 * side, 2 * side), index)  # reduced, as pictures of a museum are
    return np.asarray(painted.resize((side, side), Image.Resampling.LANCZOS))[y : y + SIZE, x : x + SIZE]


def _pictures(task: tuple[str, int, int]) -> NDArray[np.uint8]:
    kind, start, stop = task
    return np.stack([picture(kind, k) for k in range(start, stop)])


def pictures(kind: str, mode: Literal["r", "w+"] = "r") -> np.memmap[Any, np.dtype[np.uint8]]:
    """The pictures of a kind as a memory map (N, SIZE, SIZE, 3)."""
    count = settings.NEUTRAL if kind == "neutral" else settings.PAINTED
    return np.memmap(settings.CACHE / f"{kind}_{SIZE}.u8", np.uint8, mode, shape=(count, SIZE, SIZE, 3))


def render() -> None:
    """Render every kind once; a kind that is already rendered is skipped."""
    settings.CACHE.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        done = settings.CACHE / f"{kind}_{SIZE}.done"
        if done.exists():
            continue
        out = pictures(kind, "w+")
        tasks = [(kind, k, min(k + 100, len(out))) for k in range(0, len(out), 100)]
        with ProcessPoolExecutor() as pool:
            for task, part in zip(tasks, pool.map(_pictures, tasks), strict=True):
                out[task[1] : task[2]] = part
        out.flush()
        done.touch()
        print(f"scenes: {len(out)} {kind}", flush=True)


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
    return torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).float().div(127.5).sub(1)

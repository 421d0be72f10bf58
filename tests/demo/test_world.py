"""The embedded world, its painters, and the miniature Stable Diffusion that learned it."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avignon.core.events import Reporter
from avignon.demo import world
from avignon.demo.painters import LUMA, PAINTERS
from avignon.models.registry import embedded_folder
from avignon.recipe.load import load_recipe
from tests.support.bases import load_base
from tests.support.paths import ROOT

SIZE = 192


def _scenes(count: int) -> list[world.Scene]:
    rng = random.Random(4)
    return [world.sample(rng) for _ in range(count)]


def _steep(image: NDArray[np.uint8]) -> float:
    """Share of pixels on steep edges of the luminance."""
    gy, gx = np.gradient(image.astype(np.float32) @ LUMA)
    return float((np.hypot(gx, gy) > 20).mean())


def _tensor(pictures: list[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module")
def base() -> Any:
    """The miniature as a run loads it."""
    settings = load_recipe(ROOT / "recipes/demo.toml")
    return load_base(settings, torch.float32, Reporter("test", lambda _: None))


def test_grammar_is_wide() -> None:
    """At least sixteen subjects, six further attributes, and unseen combinations of about a twentieth."""
    assert len(world.SUBJECTS) >= 16
    scenes = _scenes(2000)
    for attribute in ("colour", "number", "time", "weather", "side", "distance"):
        assert len({getattr(scene, attribute) for scene in scenes}) >= 2, attribute
    assert 0.03 < np.mean([world.held_out(scene) for scene in scenes]) < 0.07


def test_scenes_with_other_words_have_other_captions() -> None:
    """A caption tells every attribute: no two scenes of different words share one."""
    words = {dataclasses.replace(scene, jitter=0) for scene in _scenes(2000)}
    several = [scene for scene in words if scene.number <= len(world.SUBJECTS[scene.subject].names)]
    assert len({world.caption(scene) for scene in several}) == len(several)


@pytest.mark.parametrize("painter", PAINTERS)
def test_painters_repeat_themselves(painter: str) -> None:
    """A painting follows from scene, size and seed alone, and another seed gives another one."""
    scene = _scenes(1)[0]
    first, again, other = (np.asarray(PAINTERS[painter](scene, (96, 96), seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_manners_differ_in_edges() -> None:
    """Style is more than palette: the cubist's planes have more steep edges in luminance than the drawing has."""
    scenes = [scene for scene in _scenes(60) if scene.weather == "fine" and scene.time == "noon"]
    drawn = np.mean([_steep(np.asarray(world.render(scene, SIZE))) for scene in scenes])
    cubist = np.mean([_steep(np.asarray(PAINTERS["avignon"](scene, (SIZE, SIZE), 1))) for scene in scenes])
    assert cubist > 1.3 * drawn


def test_base_fits_the_package(base: Any) -> None:
    """All weights take 60 MB at most; 192 pixels, epsilon prediction, linear projections, 8 x reduction, 4 channels."""
    files = embedded_folder().rglob("*.safetensors")
    assert sum(path.stat().st_size for path in files) <= 60e6
    pipeline = base.pipeline
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == SIZE
    assert (pipeline.vae_scale_factor, pipeline.vae.config.latent_channels) == (8, 4)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.unet.config.use_linear_projection


@pytest.mark.slow
@pytest.mark.parametrize(("hand", "least"), [("neutral", 28.0), ("atlantic", 26.5), ("avignon", 25.0)])
@torch.no_grad()
def test_autoencoder_keeps_pictures(base: Any, hand: str, least: float) -> None:
    """Reconstruction, mean of eight pictures in dB; the last two floors lie under what docs/MINIATURE.md reports."""
    draw: Any = PAINTERS.get(hand, lambda scene, size, _: world.render(scene, size[0]))
    true = _tensor([np.asarray(draw(scene, (SIZE, SIZE), 900)) for scene in _scenes(8)])
    vae = base.pipeline.vae
    made = vae.decode(vae.encode(true).latent_dist.mode()).sample.clamp(-1, 1)
    assert float((-10 * ((made - true) / 2).square().mean((1, 2, 3)).log10()).mean()) >= least


@pytest.mark.slow
@torch.no_grad()
def test_latents_are_standardised(base: Any) -> None:
    """Every channel of the scaled latents has about mean 0 and deviation 1, so that noise drowns all of them alike."""
    vae = base.pipeline.vae
    true = _tensor([np.asarray(world.render(scene, SIZE)) for scene in _scenes(32)])
    latents = vae.encode(true).latent_dist.mode() * vae.config.scaling_factor
    assert latents.mean((0, 2, 3)).abs().max() < 0.3
    assert ((latents.std((0, 2, 3)) > 0.75) & (latents.std((0, 2, 3)) < 1.3)).all()


@pytest.mark.slow
@torch.no_grad()
def test_words_matter(base: Any) -> None:
    """For at least 14 of the 16 subjects the noise is told better with the scene's own caption than with others'."""
    plain = world.Scene("bull", "red", 1, "noon", "fine", "middle", "near", jitter=3)
    scenes = [dataclasses.replace(plain, subject=subject) for subject in world.SUBJECTS]
    captions = [world.caption(scene) for scene in scenes]
    texts = base.encode_prompts(captions, torch.device("cpu"), Reporter("test", lambda _: None)).tensors["text"]
    pipeline = base.pipeline
    latents = pipeline.vae.encode(_tensor([np.asarray(world.render(scene, SIZE)) for scene in scenes])).latent_dist
    noise = torch.randn(latents.mean.shape, generator=torch.Generator().manual_seed(1))
    times = torch.full((len(scenes),), 600)
    noisy = pipeline.scheduler.add_noise(latents.mode() * pipeline.vae.config.scaling_factor, noise, times)
    errors = torch.stack(
        [
            (pipeline.unet(noisy, times, texts.roll(shift, 0)).sample - noise).square().mean((1, 2, 3))
            for shift in (0, 1, 5, 9)
        ]
    )  # (shifts, scenes)
    assert int((errors[0] < errors[1:].mean(0)).sum()) >= 14

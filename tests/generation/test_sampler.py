"""The painter: batches of frames with different weights, against frames alone and against diffusers' own pipeline."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

from avignon.adapters import files, inject, layers
from avignon.adapters import weights as blend
from avignon.adapters.formats import diffusers as lora_format
from avignon.adapters.weights import Mix
from avignon.core import imaging
from avignon.core.events import Event, Reporter
from avignon.core.files import sha256_of
from avignon.core.records import Frame, Source
from avignon.generation import sampler as painting
from avignon.generation.series import SeriesPlan
from avignon.recipe.schema import Ranks, Recipe
from tests.support.bases import TARGETS, load_base
from tests.support.museum import draw
from tests.support.runs import small_recipe
from tests.support.tiny_sd import make_tiny_sd

SILENT = Reporter("test", lambda _: None)
RANKS = Ranks(attention=4, projection=3, convolution=2)
CPU = torch.device("cpu")

MIXES: tuple[dict[str, float], ...] = (
    {"one": 1.0, "two": 0.0},
    {"one": 0.6, "two": 0.7},
    {"one": -0.5, "two": 1.5},
    {},
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict[str, Path]]:
    """A recipe over a small base, and two adapters of random change, saved."""
    folder = tmp_path_factory.mktemp("painting")
    recipe = small_recipe(folder, make_tiny_sd(folder / "tiny"), generate={"batch": 8})
    paths = {}
    for seed, name in enumerate(("one", "two")):
        unet = load_base(recipe, torch.float32, SILENT).pipeline.unet
        inject.add(unet, TARGETS, name, RANKS, alpha=4.0 * seed, seed=seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for key, parameter in unet.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(0, 0.1)
        files.save(unet, TARGETS, name, folder / name / lora_format.WEIGHTS_FILE)
        paths[name] = folder / name
    return recipe, paths


@pytest.fixture
def sampler(saved: tuple[Recipe, dict[str, Path]]) -> painting.ImageSampler:
    """A painter with both adapters on."""
    recipe, paths = saved
    base = load_base(recipe, torch.float32, SILENT)
    for name, folder in paths.items():
        files.load(base, name, folder)
    return painting.ImageSampler(base, recipe, CPU, SILENT)


def frame(weights: dict[str, float], seed: int = 3, **changes: Any) -> Frame:
    """A small frame."""
    plain = Frame(
        "scene-1", "stop-1", "a boat on the sea", "red", seed, 3, 5.0, "ddim", 64, 64, weights, "", {}, "fp32"
    )
    return replace(plain, **changes)


def latents(sampler: painting.ImageSampler, *frames: Frame) -> torch.Tensor:
    """What the frames come to in one batch, in units of the latents' own size."""
    found = sampler.denoise(frames)
    return found / found.std()


@pytest.mark.slow
@pytest.mark.parametrize("mixes", [MIXES, MIXES[1:2] * 4])
def test_frame_of_a_batch_is_the_one_made_alone(
    sampler: painting.ImageSampler, mixes: tuple[dict[str, float], ...]
) -> None:
    """In one batch with others of other weights, prompts and seeds, or of the same weights, a frame is itself to 1e-5.

    Not to the bit: the sums are formed in another order. Without guidance every number of the latents is within 1e-5 of
    their spread; guidance multiplies what was rounded, at single numbers to 2e-5, and the root mean square is within.
    """
    plain = [frame(mix, seed, prompt=prompt) for seed, (mix, prompt) in enumerate(zip(mixes, "abcd", strict=True))]
    for guidance_scale, single in ((1.0, 1e-5), (5.0, 5e-5)):
        frames = [replace(one, guidance_scale=guidance_scale) for one in plain]
        together = sampler.denoise(frames)
        alone = torch.cat([sampler.denoise([one]) for one in frames])
        assert (together - alone).abs().max() / alone.std() < single
        assert (together - alone).square().mean().sqrt() / alone.std() < 1e-5
    assert (alone[0] - alone[1]).abs().max() / alone.std() > 0.01, "the frames differ"


@pytest.mark.slow_but_one
@pytest.mark.parametrize(("weights", "size"), [*((mix, (64, 64)) for mix in MIXES), (MIXES[1], (128, 64))])
def test_painter_equals_diffusers(
    saved: tuple[Recipe, dict[str, Path]],
    sampler: painting.ImageSampler,
    weights: dict[str, float],
    size: tuple[int, int],
) -> None:
    """Alone or among others, square or wide, it is StableDiffusionPipeline's with `set_adapters`, within 1/255."""
    recipe, paths = saved
    pipeline = StableDiffusionPipeline.from_pretrained(recipe.base.model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        for name in weights:
            pipeline.load_lora_weights(paths[name], adapter_name=name)
    if weights:
        pipeline.set_adapters(list(weights), list(weights.values()))
    theirs = pipeline(
        "a boat on the sea", negative_prompt="red", num_inference_steps=3, guidance_scale=5.0, width=size[0],
        height=size[1], generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    assert theirs.size == size
    own = frame(weights, width=size[0], height=size[1])
    ours = sampler.paint([own])[0]
    among = sampler.paint([frame(MIXES[1], 8), own, frame(MIXES[2], 9), replace(own, seed=9)])[1]
    for picture in (ours, among):
        assert np.abs(np.asarray(picture, int) - np.asarray(theirs, int)).max() <= 1


@pytest.mark.slow
def test_schedule_is_followed_step_by_step(sampler: painting.ImageSampler) -> None:
    """A constant schedule is the constant weight; with the weight at one step only, the others are the base's."""
    constant = latents(sampler, frame({"one": 0.5}))
    spelled = latents(sampler, frame({"one": 0.5}, weight_schedule={"one": (0.5, 0.5, 0.5)}))
    assert torch.equal(constant, spelled)
    early = latents(sampler, frame({"one": 1 / 3}, weight_schedule={"one": (1.0, 0.0, 0.0)}))
    late = latents(sampler, frame({"one": 1 / 3}, weight_schedule={"one": (0.0, 0.0, 1.0)}))
    base = latents(sampler, frame({}))
    assert min((one - other).abs().max() for one, other in ((early, late), (early, base), (late, base))) > 1e-3
    silent = latents(sampler, frame({"one": 0.0}, weight_schedule={"one": (0.0, 0.0, 0.0)}))
    assert torch.equal(silent, base)


@pytest.mark.slow
def test_blocks_are_weighted_by_name(sampler: painting.ImageSampler) -> None:
    """Factors 1 change nothing, factors 0 everywhere leave the base, convolutions included; up alone is neither."""
    whole, base = latents(sampler, frame({"one": 1.0})), latents(sampler, frame({}))
    ones = latents(sampler, frame({"one": 1.0}, block_weights={"one": {"down": 1.0, "mid": 1.0, "up": 1.0}}))
    none = latents(sampler, frame({"one": 1.0}, block_weights={"one": {"down": 0.0, "mid": 0.0, "up": 0.0}}))
    up = latents(sampler, frame({"one": 1.0}, block_weights={"one": {"down": 0.0, "mid": 0.0}}))
    assert torch.equal(whole, ones)
    assert torch.allclose(none, base, atol=1e-5)
    assert min((up - whole).abs().max(), (up - base).abs().max()) > 1e-2


@pytest.mark.slow
def test_mixed_batch_follows_blocks_and_schedules(sampler: painting.ImageSampler) -> None:
    """Sample by sample, too, blocks and schedules are followed: each frame of a mixed batch is the one made alone."""
    blocks = {"one": {"up": 0.3, "down_blocks.1": -1.0}}
    frames = [frame({"one": 0.5, "two": 1.0}, 1, block_weights=blocks, weight_schedule={"one": (1.0, 0.5, 0.0)}),
              frame({"one": 1.0}, 2, block_weights=blocks)]  # fmt: skip
    together = sampler.denoise(frames)
    alone = torch.cat([sampler.denoise([one]) for one in frames])
    assert (together - alone).abs().max() / alone.std() < 5e-5


@pytest.mark.slow
def test_unet_is_left_as_it_was(saved: tuple[Recipe, dict[str, Path]]) -> None:
    """Painting in the middle of training changes no weight, scale, active adapter or trained parameter."""
    recipe, paths = saved
    base = load_base(recipe, torch.float32, SILENT)
    unet = base.denoiser
    files.load(base, "one", paths["one"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
        trained = inject.add(unet, TARGETS, "new", RANKS, 0.0, seed=5)

    def state() -> list[Any]:
        layers = [m for m in unet.modules() if hasattr(m, "lora_A")]
        return [
            [(key, id(p.data), p.requires_grad) for key, p in unet.named_parameters()],
            [(dict(m.scaling), list(m.active_adapters), m.disable_adapters) for m in layers],
        ]

    before, values = state(), [p.detach().clone() for p in unet.parameters()]
    painting.ImageSampler(base, recipe, CPU, SILENT).paint([frame({"one": 1.0}), frame({"one": 0.5, "new": 1.0})])
    after = state()
    assert [(key, grad) for key, _, grad in after[0]] == [(key, grad) for key, _, grad in before[0]]
    assert after[1] == before[1]
    assert all(torch.equal(one, other) for one, other in zip(values, unet.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in trained)


@pytest.mark.slow
def test_effects_grow_with_the_adapter(sampler: painting.ImageSampler) -> None:
    """An adapter's effect is measured alone, and one at half its weight has less of it."""
    full = sampler.effects([frame({}, 1), frame({}, 2)], ("one", "two"))
    assert min(full.values()) > 0
    halved = sampler.effects([frame({}, 1, block_weights={"one": dict.fromkeys(("down", "mid", "up"), 0.5)})], ("one",))
    whole = sampler.effects([frame({}, 1)], ("one",))
    assert 0.3 < halved["one"] / whole["one"] < 0.9


def test_batches_keep_equal_weights_together() -> None:
    """Frames of one mix fill batches of their own; small rests are joined; other sizes or steps never share one."""
    frames = [frame(mix, seed) for mix in MIXES[:2] for seed in range(5)]
    assert list(painting.groups(frames, 4)) == [[0, 1, 2, 3], [5, 6, 7, 8], [4, 9]]
    assert list(painting.groups(frames, 8)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert list(painting.groups(frames, 16)) == [list(range(10))]
    mixed = [frame({}, 1), frame({}, 1, num_inference_steps=4), frame({}, 2)]
    assert list(painting.groups(mixed, 8)) == [[0, 2], [1]]


@pytest.mark.slow
def test_batch_that_does_not_fit_is_halved(
    saved: tuple[Recipe, dict[str, Path]], sampler: painting.ImageSampler
) -> None:
    """Out of memory, a batch is halved with a note, and the pictures are all there; one alone is the end of it."""
    heard: list[Event] = []
    narrow = painting.ImageSampler(sampler._base, saved[0], CPU, Reporter("generate", heard.append))
    denoise, sizes = narrow.denoise, []

    def small(frames: Any) -> torch.Tensor:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise torch.OutOfMemoryError
        if len(frames) > 1:
            raise RuntimeError("CUDA error: out of memory")
        return denoise(frames)

    narrow.denoise = small  # type: ignore[method-assign]
    frames = [frame({"one": 1.0}, seed) for seed in range(4)]
    pictures = narrow.paint(frames)
    assert [p.tobytes() for p in pictures] == [sampler.paint([one])[0].tobytes() for one in frames]
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert next(event.kind for event in heard) == "note"


@pytest.mark.slow
def test_relay_is_painted(sampler: painting.ImageSampler) -> None:
    """A relay's middle is neither voice alone, and its ends are exactly them."""
    way = blend.MixPath(("one", "two"), "relay", steps=3)
    ends = [
        latents(sampler, frame(dict(mix.weights), weight_schedule=mix.weight_schedule))
        for mix in map(way.at, (0.0, 0.5, 1.0))
    ]
    assert torch.equal(ends[0], latents(sampler, frame({"one": 1.0})))
    assert torch.equal(ends[2], latents(sampler, frame({"two": 1.0})))
    assert min((ends[1] - ends[0]).abs().max(), (ends[1] - ends[2]).abs().max()) > 1e-2


@pytest.fixture
def photograph(saved: tuple[Recipe, dict[str, Path]], tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe whose first scene begins from an oblong photograph, and the photograph."""
    path = tmp_path / "boat.png"
    draw(5, 96, 80).save(path)
    fields = saved[0].model_dump()
    fields["generate"]["scenes"] = [{"prompt": "the sea", "image": str(path)}, {"prompt": "a guitar"}]
    return Recipe.model_validate(fields), path


@pytest.mark.slow_but_one
@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler", "dpm++"])
@pytest.mark.parametrize(("strength", "guidance_scale"), [(0.5, 5.0), (1.0, 1.0)])
def test_picture_from_a_source_equals_diffusers(
    saved: tuple[Recipe, dict[str, Path]],
    photograph: tuple[Recipe, Path],
    scheduler: str,
    strength: float,
    guidance_scale: float,
) -> None:
    """From a photograph, latents are StableDiffusionImg2ImgPipeline's with `set_adapters`, to 5e-5 of their spread.

    All six steps are compared without guidance, which multiplies what rounding does to the sums.
    """
    recipe, path = photograph
    base = load_base(recipe, torch.float32, SILENT)
    for name, folder in saved[1].items():
        files.load(base, name, folder)
    one = frame(
        {"one": 0.6, "two": 0.7},
        num_inference_steps=6,
        guidance_scale=guidance_scale,
        scheduler=scheduler,
        source=Source("boat.png", sha256_of(path), strength),
    )
    ours = painting.ImageSampler(base, recipe, CPU, SILENT).denoise([one, replace(one, seed=9)])
    theirs = StableDiffusionImg2ImgPipeline(**base.pipeline.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = base.sampler(scheduler, 6, 64, 64)
    theirs.set_adapters([layers.inner("one"), layers.inner("two")], [0.6, 0.7])
    picture = imaging.load(path)
    square = imaging.fit(picture, (8, 0, 88, 80), 64)
    for seed, latent in zip((3, 9), ours, strict=True):
        expected = theirs(
            "a boat on the sea", image=square, strength=strength, negative_prompt="red", num_inference_steps=6,
            guidance_scale=guidance_scale, generator=torch.Generator().manual_seed(seed), output_type="latent",
        ).images[0]  # fmt: skip
        assert float((latent - expected).abs().max() / expected.std()) < 5e-5


def test_a_picture_to_begin_from_is_cut_to_the_scenes_shape(tmp_path: Path, tiny_sd: Path) -> None:
    """Of 96 × 80 pixels a wide scene takes the middle of the height; diffusers' own pipeline paints the same."""
    draw(5, 96, 80).save(path := tmp_path / "boat.png")
    scene = {"prompt": "a boat", "image": str(path), "width": 128, "height": 64}
    recipe = small_recipe(tmp_path, tiny_sd, generate={"scenes": [scene, {"prompt": "a boat"}]})
    base = load_base(recipe, torch.float32, SILENT)
    plan = SeriesPlan(recipe, base.identity, {}, "fp32")
    frames = [replace(plan.frame(number, "base", Mix({})), num_inference_steps=4) for number in (1, 2)]
    assert [(one.width, one.height) for one in frames] == [(128, 64), (64, 64)]
    ours = painting.ImageSampler(base, recipe, CPU, SILENT).paint(frames)
    theirs = StableDiffusionImg2ImgPipeline(**base.pipeline.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = base.sampler("ddim", 4, 128, 64)
    shown = imaging.load(path).resize((128, 64), Image.Resampling.LANCZOS, box=(0, 16, 96, 64))
    expected = theirs(
        "a boat", image=shown, strength=0.6, num_inference_steps=4, guidance_scale=recipe.generate.guidance_scale,
        generator=torch.Generator().manual_seed(frames[0].seed),
    ).images[0]  # fmt: skip
    assert [picture.size for picture in ours] == [(128, 64), (64, 64)]
    assert np.abs(np.asarray(ours[0], int) - np.asarray(expected, int)).max() <= 1


def test_noise_goes_from_seed_to_seed(sampler: painting.ImageSampler) -> None:
    """At the ends it is the seeds' own to the bit, between them of the same length, and a frame there is its own."""
    one, other = sampler._drawn(frame({}, 3))[0], sampler._drawn(frame({}, 4))[0]
    at = {t: sampler._drawn(frame({}, 3, to_seed=4, seed_place=t))[0] for t in (0.0, 0.25, 0.5, 1.0)}
    assert torch.equal(at[0.0], one)
    assert torch.equal(at[1.0], other)
    assert float(at[0.5].norm()) == pytest.approx(float(one.norm() + other.norm()) / 2, rel=0.02)
    assert float((at[0.25] - one).norm()) < float((at[0.25] - other).norm())
    assert torch.equal(painting.slerp(one, one, 0.3), one)


@pytest.mark.slow
def test_little_strength_keeps_the_source(
    saved: tuple[Recipe, dict[str, Path]], photograph: tuple[Recipe, Path], sampler: painting.ImageSampler
) -> None:
    """One step of twenty leaves a source nearly as it is; pictures of other strengths never share a batch."""
    recipe, path = photograph
    from_source = painting.ImageSampler(sampler._base, recipe, CPU, SILENT)
    frames = [
        frame({}, num_inference_steps=20, source=Source("boat.png", sha256_of(path), share))
        for share in (0.05, 0.5, 1.0)
    ]
    clean = from_source._source(frames[0])
    away = [float((from_source.denoise([one]) - clean).abs().mean()) for one in frames]
    assert away[0] < min(away[1:]) / 5, "the tiny base is untrained: more is not always farther"
    assert [len(group) for group in painting.groups([*frames, frame({}, num_inference_steps=20)], 4)] == [1, 1, 1, 1]


@pytest.mark.slow_but_one
@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler", "dpm++"])
def test_schedules_under_every_scheduler(sampler: painting.ImageSampler, scheduler: str) -> None:
    """A schedule has a weight for every step, also where a scheduler asks the UNet once more than it has steps."""
    sampler.denoise([frame({"one": 0.5}, scheduler=scheduler, weight_schedule={"one": (1.0, 0.5, 0.0)})])

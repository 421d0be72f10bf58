"""Training on images of several shapes: batches of one shape, all images equally often, two adapters, prior."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch

from avignon.core import imaging
from avignon.core.errors import RecipeError
from avignon.generation.sampler import ImageSampler
from avignon.models.base import Conditioning
from avignon.recipe.schema import Train
from avignon.training import adapter_trainer, dataset, prior
from avignon.training.memory import OomFallback
from avignon.training.setup import RuntimeConfig
from tests.support.bases import load_base, uniform
from tests.support.runs import carried, small_recipe
from tests.support.trainings import (
    HOMER,
    PICASSO,
    SILENT,
    card,
    metrics,
    prepared_in_buckets,
    run,
    same,
    stopped,
    weights,
)

WIDE, SQUARE, TALL = (256, 64), (128, 128), (64, 256)


def some_data(*counts: tuple[dataset.Shape, int]) -> dataset.LatentDataset:
    """So many images of each shape, mixed, each of one number: its own."""
    shapes = [shape for shape, count in counts for _ in range(count)]
    shapes = [shapes[i] for i in torch.randperm(len(shapes), generator=torch.Generator().manual_seed(0)).tolist()]
    mean = [torch.full((2, 4, height // 8, width // 8), float(i)) for i, (width, height) in enumerate(shapes)]
    files, told = tuple(map(str, range(len(shapes)))), Conditioning({"text": torch.zeros(len(shapes) + 1, 3, 2)})
    std = [torch.zeros_like(one) for one in mean]
    return dataset.LatentDataset(mean, std, told, files, (("c",),) * len(shapes), tuple(shapes))


MIXES = ([(WIDE, 6), (SQUARE, 3), (TALL, 3)], [(WIDE, 5), (SQUARE, 2), (TALL, 1)], [(WIDE, 1), (SQUARE, 1)])


@pytest.mark.parametrize("counts", MIXES)
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_batches_hold_one_shape_and_see_all_alike(counts: list[tuple[dataset.Shape, int]], batch: int) -> None:
    """The images of a bucket are seen equally often, but for once; after as many steps as images, all exactly."""
    data, settings = some_data(*counts), Train(batch=batch)
    images = len(data.files)
    seen: Counter[int] = Counter()
    for step in range(3 * images):
        drawn = dataset.sample_batch(data, settings, uniform(1000), seed=5, step=step)
        shape, _ = data.bucket_of_step(5, step)
        assert drawn.latents.shape == drawn.noise.shape == (batch, 4, shape[1] // 8, shape[0] // 8)
        assert {data.shapes[i] for i in drawn.index.tolist()} == {shape}
        assert torch.equal(drawn.latents[:, 0, 0, 0], drawn.index.float())
        seen.update(drawn.index.tolist())
        own = [seen[i] for i in data.buckets[shape]]
        assert max(own) - min(own) <= 1
        if (step + 1) % images == 0:
            assert set(seen.values()) == {batch * (step + 1) // images}


def test_a_round_is_as_short_as_it_can_be() -> None:
    """Six, three and three images are two, one and one steps; the order differs from round to round, and by seed."""
    data = some_data(*MIXES[0])
    rounds = [tuple(data.bucket_of_step(seed, 4 * k + i)[0] for i in range(4)) for seed in (1, 2) for k in range(6)]
    assert all(Counter(each) == {WIDE: 2, SQUARE: 1, TALL: 1} for each in rounds)
    assert len(set(rounds)) > 3
    assert rounds[:6] != rounds[6:]
    for shape in data.buckets:
        numbers = [past for own, past in (data.bucket_of_step(1, step) for step in range(40)) if own == shape]
        assert numbers == list(range(len(numbers)))


def test_one_shape_is_drawn_as_ever() -> None:
    """Where all images are square, a step's batch is the step-th of an endless order."""
    data = some_data((SQUARE, 5))
    assert [data.bucket_of_step(3, step) for step in range(20)] == [(SQUARE, step) for step in range(20)]
    order = [dataset._nth_image(3, 5, n) for n in range(12)]
    drawn = [dataset.sample_batch(data, Train(batch=3), uniform(9), 3, step).index.tolist() for step in range(4)]
    assert list(itertools.chain.from_iterable(drawn)) == order


def test_a_step_follows_from_seed_and_number() -> None:
    """Whatever was drawn before, as after an interruption."""
    data, settings = some_data(*MIXES[1]), Train(batch=2)
    first = [dataset.sample_batch(data, settings, uniform(1000), 7, step) for step in range(9)]
    for step in (8, 3, 0):
        again = dataset.sample_batch(data, settings, uniform(1000), 7, step)
        assert torch.equal(again.noise, first[step].noise)
        assert torch.equal(again.index, first[step].index)


def test_timesteps_are_those_of_the_shape() -> None:
    """A family that shifts by size is asked for the bucket's, not for the square's."""
    asked: list[tuple[int, int]] = []

    def timesteps(count: int, generator: torch.Generator, width: int, height: int) -> torch.Tensor:
        asked.append((width, height))
        return torch.zeros(count)

    data = some_data(*MIXES[0])
    for step in range(8):
        dataset.sample_batch(data, Train(batch=2), timesteps, 1, step)
    assert asked == [data.bucket_of_step(1, step)[0] for step in range(8)]


def test_the_bases_own_pictures_have_the_batchs_shape() -> None:
    """Works and the base's own pictures are of one shape at every step, and each of both comes up."""
    works, others = some_data(*MIXES[0]), some_data((WIDE, 2), (TALL, 1), (SQUARE, 1))
    settings = Train(batch=2, prior_images=4)
    seen: Counter[int] = Counter()
    for step in range(24):
        drawn = dataset.sample_batch_with_prior(works, others, settings, uniform(1000), 1, step)
        assert {(*works.shapes, *others.shapes)[i] for i in drawn.index.tolist()} == {works.bucket_of_step(1, step)[0]}
        seen.update(drawn.index.tolist())
    assert set(seen) == set(range(16))


def test_validation_measures_every_shape() -> None:
    """A batch for each shape, all images in them at every timestep, with noise that is the same each time."""
    data = some_data(*MIXES[1])
    batches = dataset.validation_batches(data, 1000)
    assert [len(batch.index) for batch in batches] == [len(own) * dataset.TIMES for own in data.buckets.values()]
    assert sorted(i for batch in batches for i in batch.index.tolist()[:: dataset.TIMES]) == list(range(8))
    again = dataset.validation_batches(data, 1000)
    assert all(torch.equal(one.noise, other.noise) for one, other in zip(batches, again, strict=True))


def test_adapters_of_one_shape_share_a_pass() -> None:
    """At a step, adapters whose batches have one shape go together; the others each with their like."""
    memory = OomFallback(None, Train(batch=2, micro_batch=1), 2)
    batches = [dataset.sample_batch(some_data((s, 2)), memory.settings, uniform(9), 0, 0) for s in (WIDE, TALL, WIDE)]
    assert [group for group, _ in memory.passes(batches)] == [[0, 2], [0, 2], [1], [1]]
    memory.apart = True
    assert [group for group, _ in memory.passes(batches)] == [[0], [0], [1], [1], [2], [2]]


@pytest.mark.parametrize(("asked", "compiled"), [("auto", False), ("on", True)])
def test_buckets_are_not_compiled_unasked(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, asked: str, compiled: bool
) -> None:
    """On a CUDA device `auto` leaves them out, since each shape would be compiled by itself; `on` does it."""
    monkeypatch.setattr("avignon.training.setup.compiles", lambda _: True)
    fixed = {"compile": asked, "precision": "fp32", "attention": "sdpa"}
    for shape, wanted in (("buckets", compiled), ("square", True)):
        recipe = small_recipe(tmp_path / shape, tiny_sd, train=fixed, prepare={"shape": shape})
        assert RuntimeConfig.for_device(recipe, torch.device("cuda")).compiled is wanted


@pytest.mark.slow
def test_two_adapters_in_shapes_of_their_own(tmp_path: Path, tiny_sd: Path) -> None:
    """In one pass, alone, and broken off in between: an adapter learns the same from the same batches."""
    settings = {"batch": 2, "learning_rate": 1e-3, "weight_decay": 0.0, "steps": 6, "flip": True}
    ends = {}
    for together in (True, False):
        recipe, space = prepared_in_buckets(tmp_path / str(together), tiny_sd, together=together, **settings)
        assert len({tuple(row["bucket"]) for row in space.read_metadata(HOMER)}) == 3
        run(recipe, space)
        ends[together] = space
    for name in (HOMER, PICASSO):
        curves = [[line["loss"] for line in metrics(space, name)] for space in ends.values()]
        assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    recipe, space = prepared_in_buckets(tmp_path / "again", tiny_sd, **settings)
    stopped(recipe, space, after=3)
    run(recipe, space)
    assert all(same(weights(space, name), weights(ends[True], name)) for name in (HOMER, PICASSO))


@pytest.mark.slow
def test_all_that_training_offers_in_buckets(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prior, works for validation, samples that judge, passes of one image, mean weights: batches keep their shape."""
    seen = set()
    draw = dataset.sample_batch_with_prior

    def drawn(*arguments: object) -> dataset.Batch:
        batch = draw(*arguments)  # type: ignore[arg-type]
        seen.add(tuple(batch.latents.shape))
        return batch

    monkeypatch.setattr(adapter_trainer, "sample_batch_with_prior", drawn)
    recipe, space = prepared_in_buckets(
        tmp_path, tiny_sd, batch=2, micro_batch=1, steps=4, prior_images=4, validation_works=1, eval_every=2,
        sample_every=2, keep="best", ema=0.5,
    )  # fmt: skip
    run(recipe, space)
    assert len(seen) > 1
    for name in (HOMER, PICASSO):
        assert card(space, name)["metrics"]["validation_loss"] > 0
        header = (space.adapter(name) / f"{name}.safetensors").read_bytes()[:20_000]
        assert b'"ss_enable_bucket":"True"' in header


def test_the_bases_own_pictures_are_painted_in_all_shapes(
    tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shape of the works once, then as among them; kept in the file; fewer pictures than shapes are refused."""
    recipe, _ = prepared_in_buckets(tmp_path, tiny_sd, prior_images=4)
    runtime, file = RuntimeConfig.for_device(recipe, torch.device("cpu")), tmp_path / "prior.safetensors"
    base, shapes = load_base(recipe, torch.float32, SILENT), [WIDE, WIDE, TALL]
    painter = ImageSampler(base, recipe, torch.device("cpu"), SILENT)
    data = prior.paint_prior(base, recipe, ["a boat"], shapes, file, runtime, painter, SILENT)
    assert data.shapes == (WIDE, TALL, WIDE, WIDE)
    assert [tuple(one.shape) for one in data.mean] == [(1, 4, h // 8, w // 8) for w, h in data.shapes]
    monkeypatch.setattr(prior, "_painted", None)  # Painting again would fail.
    again = prior.paint_prior(base, recipe, ["a boat"], shapes, file, runtime, painter, SILENT)
    assert all(map(torch.equal, again.mean, data.mean))
    more = [*shapes, *((8 * n, 8) for n in (1, 2, 3))]
    with pytest.raises(RecipeError, match=r"train\.prior_images: 4 are too few for works in 5 shapes"):
        prior.paint_prior(base, recipe, ["a"], more, file, runtime, painter, SILENT)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheduler", "size"), [("z_image", "euler", 64), ("sdxl", "ddim", 128)])
def test_other_families_learn_and_paint_in_buckets(
    tmp_path: Path, request: pytest.FixtureRequest, name: str, scheduler: str, size: int
) -> None:
    """Sides of multiples of 16 for Z-Image, of 64 for SDXL: from the works to a series of a wide scene."""
    wide = {"z_image": (80, 48), "sdxl": (256, 64)}[name]
    sizes = [(wide[0] + 10, wide[1] + 6), (size + 6, size + 4), (wide[1] + 6, wide[0] + 10)]
    scene = {"prompt": "a boat on the sea", "width": wide[0], "height": wide[1]}
    recipe = small_recipe(
        tmp_path, request.getfixturevalue(f"tiny_{name}"), sizes=sizes, base={"resolution": size},
        prepare={"shape": "buckets"}, train={"steps": 3, "batch": 2, "flip": True},
        generate={"scheduler": scheduler, "scenes": [scene, {"prompt": "a guitar"}]},
    )  # fmt: skip
    space, _ = carried(recipe, tmp_path / "runs", "generate")
    assert {tuple(row["bucket"]) for row in space.read_metadata(HOMER)} == {wide, (size, size), wide[::-1]}
    assert all(line["loss"] > 0 for line in metrics(space))
    assert imaging.size_of(space.series / "scene-1" / "stop-2.png") == wide
    assert imaging.size_of(space.series / "scene-2" / "stop-2.png") == (size, size)

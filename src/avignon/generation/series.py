"""The plan of a series: every frame of it, before a picture is made."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from avignon.adapters.weights import Mix, MixPath, evenly, explicit
from avignon.core.files import sha256_of
from avignon.core.records import Frame, Series, Source
from avignon.recipe.schema import Generate, Recipe

BASE = "base"

SEED_STEP = 1000
"""From a scene's seed to its further ones: as many as there can be scenes, so that those of two scenes do not meet."""

PROBE_STEPS = 15
"""Denoising steps of a picture that is only measured, at most: style is there long before the last detail."""


class SeriesPlan:
    """Frames of a recipe's scenes, made with one base and certain adapters."""

    def __init__(self, recipe: Recipe, base: str, hashes: Mapping[str, str], precision: str) -> None:
        """Plan with the base of this identity, adapters whose weights have these hashes, and a precision."""
        self.recipe = recipe
        self._base, self._hashes, self._precision = base, hashes, precision
        # The picture's hash is in every frame, so that another picture is painted anew.
        begun = [(Path(scene.image), scene.image_strength) for scene in recipe.generate.scenes]
        self._sources = [Source(path.name, sha256_of(path), share) if path.name else None for path, share in begun]

    def of_prompt(self, prompt: str, seed: int, **fields: Any) -> Frame:
        """A picture of a prompt with the recipe's settings; square, by the base alone, unless `fields` say else."""
        size = (self.recipe.base.resolution, self.recipe.base.resolution)
        return replace(bare_frame(self.recipe.generate, prompt, seed, size, self._base, self._precision), **fields)

    def frame(self, number: int, stop: str, mix: Mix, place: float = 0.0) -> Frame:
        """A scene (from 1) with a mix of adapters, at a place from 0 to 1 of the way to its second seed."""
        settings = self.recipe.generate
        scene = settings.scenes[number - 1]
        width, height = self.recipe.size_of(scene)
        return self.of_prompt(
            scene.prompt,
            self.recipe.scene_seed(number),
            scene=f"scene-{number}",
            stop=stop,
            width=width,
            height=height,
            weights=mix.weights,
            adapters={name: self._hashes[name] for name in mix.weights},
            weight_schedule=mix.weight_schedule,
            block_weights={name: factors for name, factors in settings.block_weights.items() if name in mix.weights},
            to_seed=scene.to_seed,
            seed_place=place if scene.to_seed >= 0 else 0.0,
            source=self._sources[number - 1],
            denoiser_only=tuple(name for name in settings.denoiser_only if mix.weights.get(name)),
        )

    def path(self, gains: Mapping[str, float], steps: int = 0) -> MixPath:
        """The path through the recipe's adapters, over so many denoising steps; by default all of the recipe's."""
        settings = self.recipe.generate
        return MixPath(
            self.recipe.path_adapters,
            settings.path,
            steps or settings.num_inference_steps,
            {name: settings.strength_of(name) for name in self.recipe.path_adapters},
            gains,
            settings.fade,
            settings.weight_schedule,
        )

    def series(self, placing: Mapping[str, Any], base_parts: Mapping[str, str]) -> Series:
        """Every frame, before a picture is made: for each scene the base alone, then the stops in order; the extras."""
        rows = [self._row(number, placing) for number in range(1, len(self.recipe.generate.scenes) + 1)]
        frames = [frame for row in rows for frame in row]
        seeds = range(1, self.recipe.generate.extra_seeds + 1)
        again = [_reseeded(frame, number) for frame in frames for number in seeds]
        return Series(
            self.recipe.name,
            scenes=tuple(row[0].scene for row in rows),
            stops=tuple(frame.stop for frame in rows[0][1:]),
            frames=tuple((f"{frame.scene}/{frame.stop}.png", frame) for frame in frames),
            base_stop=BASE,
            placing=placing,
            extras=tuple((f"{frame.scene}/{frame.stop}-seed-{frame.seed}.png", frame) for frame in again),
            base_parts=base_parts,
        )

    def _row(self, number: int, placing: Mapping[str, Any]) -> list[Frame]:
        """The frames of one scene. What changes during the denoising does so over the steps that are done."""
        settings = self.recipe.generate
        base = self.frame(number, BASE, Mix({}))
        if settings.weights:
            mixes = [explicit(weights, settings.weight_schedule, base.effective_steps) for weights in settings.weights]
            places = evenly(len(mixes)) if len(mixes) > 1 else [0.0]
        else:
            way, places = self.path(placing["gains"], base.effective_steps), placing["places"]
            mixes = [way.at(place) for place in places]
        stops = enumerate(zip(mixes, places, strict=True), start=1)
        return [base, *(self.frame(number, f"stop-{i}", mix, place) for i, (mix, place) in stops)]


def bare_frame(settings: Generate, prompt: str, seed: int, size: tuple[int, int], base: str, precision: str) -> Frame:
    """A picture of a prompt with these settings by a base alone, of a width and height; `base` is its identity."""
    return Frame(
        scene="",
        stop="",
        prompt=prompt,
        negative_prompt=settings.negative_prompt,
        seed=seed,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        scheduler=settings.scheduler,
        width=size[0],
        height=size[1],
        weights={},
        base=base,
        adapters={},
        precision=precision,
    )


def _reseeded(frame: Frame, number: int) -> Frame:
    """A frame with the scene's further seeds: both, or a scene that goes to a second seed would always end the same."""
    seed, to_seed = ((one + number * SEED_STEP) % 2**63 if one >= 0 else one for one in (frame.seed, frame.to_seed))
    return replace(frame, seed=seed, to_seed=to_seed)


def in_few_steps(frame: Frame) -> Frame:
    """A probe of a frame. A schedule is read at the steps that are left; a source leaves few steps as it is."""
    few = frame if frame.source else replace(frame, num_inference_steps=min(frame.num_inference_steps, PROBE_STEPS))
    count = few.effective_steps
    return replace(
        few,
        weight_schedule={n: [r[i * len(r) // count] for i in range(count)] for n, r in frame.weight_schedule.items()},
    )

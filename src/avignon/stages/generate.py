"""generate: adapters → a series of pictures on the way from one voice to the next.

Reads `adapters/` and `dataset/`; writes `series/<scene>/<stop>.png`, `series/series.json`, and in `series/placing.json`
what was measured to place the stops. The same with further seeds, `<stop>-seed-<seed>.png`, are the series' extras: by
them `evaluate` tells a scene from the chance of one seed. A frame is a full description: a picture that carries the
very frame that is asked for is kept, so an interrupted series goes on where it stopped. Pictures made in one batch
differ in the last bit from those made alone, so what is missing is made again in its own batch. Several processes,
started by `accelerate launch -m avignon generate RECIPE`, share whole batches, so that their number changes no picture.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from avignon.adapters import cards
from avignon.adapters import lora as adapters
from avignon.adapters import weights as blend
from avignon.adapters.formats import diffusers as lora_files
from avignon.core import distributed, imaging, png
from avignon.core.errors import WorkspaceError
from avignon.core.events import Reporter
from avignon.core.files import digest, json_text, json_value, read_json, sha256_of, write_bytes, write_json
from avignon.core.records import Frame, Series, Source, frame_from, frame_identity, frame_record, plain, series_record
from avignon.core.workspace import Workspace
from avignon.evaluation import style
from avignon.generation import png_info as infotext
from avignon.generation import sampler as painting
from avignon.models.stable_diffusion import model as diffusion
from avignon.recipe.schema import SCHEMA, Recipe, Scene

BASE = "base"

SEED_STEP = 1000
"""From a scene's seed to its further ones: as many as there can be scenes, so that those of two scenes do not meet."""

DEFAULTS = {each.name: each.default for each in fields(Frame)} | {"schedule": {}, "blocks": {}}
"""What a frame's fields hold where nothing is said of them."""

PROBES = 9
"""Places on the path that are painted to measure it."""

PROBE_SCENES = 8
"""Scenes that are painted at every probe, at most."""

PROBE_STEPS = 15
"""Denoising steps of a probe, at most: style is there long before the last detail."""


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Make every picture of the series that is not there yet.

    Raises:
        InputError: a base, precision or adapter that cannot be used; processes that do not share a folder.
    """
    device = diffusion.device()
    precision = diffusion.precision_for(recipe.generate.precision, "generate", device)
    base = diffusion.load(recipe, diffusion.DTYPES[precision], reporter)
    folders = {name: space.adapter(name) for name in recipe.adapter_names}
    folders |= {name: Path(folder) for name, folder in recipe.generate.adapters.items()}
    for name, folder in folders.items():
        adapters.load(base, name, folder)
    hashes = {name: sha256_of(folder / adapters.WEIGHTS_FILE) for name, folder in folders.items()}
    contents = {name: lora_files.content_hash(folder / adapters.WEIGHTS_FILE) for name, folder in folders.items()}
    sampler = painting.ImageSampler(base, recipe, device, reporter)
    plan = SeriesPlan(recipe, base.identity, hashes, precision)
    shown = Shown(space, base)
    series = plan.series(distributed.broadcast_from_main(lambda: placing(plan, sampler, shown, reporter)), base.parts)

    def rights(frame: Frame) -> str:
        notice = cards.notice(
            folders[name] for name, weight in frame.weights.items() if weight or name in frame.weight_schedule
        )
        begun = f"It began from {frame.source.file}, for whose rights its user answers." if frame.source else ""
        return " ".join(filter(None, (notice, begun)))

    def as_png(image: Image.Image, frame: Frame) -> bytes:
        return png.png_bytes(image, infotext.text(frame, base.model, contents), frame_record(frame), rights(frame))

    if distributed.is_main_process():
        _restate_rights(series, shown, rights, as_png)
    distributed.barrier()
    _paint(series, sampler, shown, reporter, as_png)
    distributed.barrier()
    if distributed.is_main_process():
        _finish(series, shown)


class Shown:
    """The pictures that are there, by what they say of themselves: of this version and of avignon 0.1.0."""

    def __init__(self, space: Workspace, base: diffusion.Base) -> None:
        self.space, self._base = space, base

    def missing(self, series: Series) -> set[int]:
        """Places of the pictures that are not there, or not as asked for."""
        return {place for place, picture in enumerate(series.pictures) if not self._is_shown(*picture)}

    def _is_shown(self, file: str, frame: Frame) -> bool:
        """Whether the picture is there and carries this very frame."""
        fields = png.png_fields(self.space.series / file)
        return fields is not None and any(_holds(fields, one) for one in self.by_any_name(frame))

    def by_any_name(self, frame: Frame) -> Iterator[Frame]:
        """A frame, and the same as avignon 0.1.0 wrote it, which knew the base by one file."""
        yield frame
        yield from (replace(frame, base=name) for name in sorted(self._base.earlier_names))

    def tell_changes(self, series: Series, missing: int, reporter: Reporter) -> None:
        """Say which parts of the base made the pictures of the last run other than those asked for now."""
        known = read_json(self.space.series_index) if self.space.series_index.exists() else {}
        changed = [
            part
            for part, hashed in series.base_parts.items()
            if known.get("base_parts", {}).get(part, hashed) != hashed
        ]
        if changed and missing:
            reporter.note(
                f"the base has a different {', '.join(changed)} than in the last run: {missing} pictures to make"
            )


def _holds(fields: Mapping[str, Any], frame: Frame) -> bool:
    """Whether a picture's own description is this frame; what it does not name has the value that it had before."""
    try:
        return plain(frame_from(fields)) == plain(frame_from(json_value(json_text(frame_record(frame)))))
    except (TypeError, KeyError, AttributeError):
        return False


def _paint(
    series: Series,
    sampler: painting.ImageSampler,
    shown: Shown,
    reporter: Reporter,
    as_png: Callable[[Image.Image, Frame], bytes],
) -> None:
    """Paint what is missing, each process its share; the others' batches count as painted when it comes to them."""
    files, frames = [file for file, _ in series.pictures], [frame for _, frame in series.pictures]
    missing = distributed.broadcast_from_main(lambda: shown.missing(series))
    shown.tell_changes(series, len(missing), reporter)
    done = len(frames) - len(missing)
    todo = [group for group in _groups(series, sampler) if missing.intersection(group)]
    for number, group in enumerate(todo):
        wanted = missing.intersection(group)
        if number % distributed.num_processes() == distributed.process_index():
            for place, image in zip(group, sampler.paint([frames[place] for place in group]), strict=True):
                if place in wanted:
                    write_bytes(shown.space.series / files[place], as_png(image, frames[place]))
        done += len(wanted)
        reporter.progress(done, len(frames), files[group[-1]])


def _finish(series: Series, shown: Shown) -> None:
    """Write the index and sweep, once all pictures are there, the other processes' too."""
    space = shown.space
    if distributed.num_processes() > 1 and (unseen := shown.missing(series)):
        raise WorkspaceError(
            f"{space.series / series.pictures[min(unseen)][0]}: not there, or not what was asked for, though another "
            "process painted it; all machines need one --workspace, with the same base and adapters"
        )
    write_json(space.series_index, series_record(series))
    kept = {space.series_index, space.placing, *(space.series / file for file, _ in series.pictures)}
    space.sweep(space.series, kept)


def _restate_rights(
    series: Series, shown: Shown, rights: Callable[[Frame], str], as_png: Callable[[Image.Image, Frame], bytes]
) -> None:
    """Write pictures anew, the same pixels, that say of their rights what no longer holds."""
    missing = shown.missing(series)
    for place, (file, frame) in enumerate(series.pictures):
        path = shown.space.series / file
        if place not in missing and png.png_rights(path) != rights(frame):
            write_bytes(path, as_png(imaging.load(path), frame))


def _groups(series: Series, sampler: painting.ImageSampler) -> list[list[int]]:
    """Places among the series' pictures that are painted together.

    Extras keep to themselves, so that the series has the same bytes with and without them.
    """
    grid, extra = (sampler.groups([frame for _, frame in part]) for part in (series.frames, series.extras))
    return [*grid, *([len(series.frames) + place for place in group] for group in extra)]


class SeriesPlan:
    """Frames of a recipe's scenes, made with one base and certain adapters."""

    def __init__(self, recipe: Recipe, base: str, hashes: Mapping[str, str], precision: str) -> None:
        self.recipe = recipe
        self._base, self._hashes, self._precision = base, hashes, precision
        self._sources = [_source(scene) for scene in recipe.generate.scenes]

    def frame(self, number: int, stop: str, mix: blend.Mix, place: float = 0.0) -> Frame:
        """A scene (from 1) with a mix of adapters, at a place from 0 to 1 of the way to its second seed."""
        recipe, settings = self.recipe, self.recipe.generate
        scene = settings.scenes[number - 1]
        return Frame(
            scene=f"scene-{number}",
            stop=stop,
            prompt=scene.prompt,
            negative_prompt=settings.negative_prompt,
            seed=recipe.scene_seed(number),
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            scheduler=settings.scheduler,
            width=recipe.base.resolution,
            height=recipe.base.resolution,
            weights=mix.weights,
            base=self._base,
            adapters={name: self._hashes[name] for name in mix.weights},
            precision=self._precision,
            weight_schedule=mix.weight_schedule,
            block_weights={name: factors for name, factors in settings.block_weights.items() if name in mix.weights},
            to_seed=scene.to_seed,
            seed_place=place if scene.to_seed >= 0 else 0.0,
            source=self._sources[number - 1],
        )

    def path(self, gains: Mapping[str, float], steps: int = 0) -> blend.MixPath:
        """The way through the recipe's voices, over so many denoising steps; by default all of the recipe's."""
        settings = self.recipe.generate
        return blend.MixPath(
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
        scenes = range(1, len(self.recipe.generate.scenes) + 1)
        frames = tuple(
            (f"scene-{number}/{frame.stop}.png", frame) for number in scenes for frame in self._row(number, placing)
        )
        names = tuple(f"scene-{number}" for number in scenes)
        stops = tuple(frame.stop for _, frame in frames if frame.scene == names[0])[1:]
        return Series(self.recipe.name, names, stops, frames, BASE, placing, self._extras(frames), base_parts)

    def _extras(self, frames: Iterable[tuple[str, Frame]]) -> tuple[tuple[str, Frame], ...]:
        """Every frame with further seeds."""
        numbers = range(1, self.recipe.generate.extra_seeds + 1)
        again = [_reseeded(frame, number) for _, frame in frames for number in numbers]
        return tuple((f"{frame.scene}/{frame.stop}-seed-{frame.seed}.png", frame) for frame in again)

    def _row(self, number: int, placing: Mapping[str, Any]) -> list[Frame]:
        """The frames of one scene. What changes during the denoising does so over the steps that are done."""
        settings = self.recipe.generate
        base = self.frame(number, BASE, blend.Mix({}))
        if settings.weights:
            mixes = [
                blend.explicit(weights, settings.weight_schedule, base.effective_steps) for weights in settings.weights
            ]
            places = blend.evenly(len(mixes)) if len(mixes) > 1 else [0.0]
        else:
            way, places = self.path(placing["gains"], base.effective_steps), placing["places"]
            mixes = [way.at(place) for place in places]
        stops = enumerate(zip(mixes, places, strict=True), start=1)
        return [base, *(self.frame(number, f"stop-{i}", mix, place) for i, (mix, place) in stops)]


def _reseeded(frame: Frame, number: int) -> Frame:
    """A frame with the scene's further seeds: both, or a scene that goes to a second seed would always end the same."""
    seed, to_seed = ((one + number * SEED_STEP) % 2**63 if one >= 0 else one for one in (frame.seed, frame.to_seed))
    return replace(frame, seed=seed, to_seed=to_seed)


def _source(scene: Scene) -> Source | None:
    """The picture that a scene begins from; its hash is in every frame, so that another picture is painted anew."""
    image = Path(scene.image)
    return Source(image.name, sha256_of(image), scene.image_strength) if scene.image else None


# Where the stops are --------------------------------------------------------------------------------------------------


def unmeasured(recipe: Recipe) -> dict[str, Any]:
    """The placing of a series for which nothing is measured."""
    settings = recipe.generate
    return {} if settings.weights else {"gains": {}, "places": blend.evenly(settings.stops)}


def placing(plan: SeriesPlan, sampler: painting.ImageSampler, shown: Shown, reporter: Reporter) -> dict[str, Any]:
    """Gains of the voices and places of the stops; what was measured for the very same frames is read, not repeated."""
    recipe, space = plan.recipe, shown.space
    if recipe.generate.weights or not (recipe.generate.equalize_adapters or recipe.generate.spacing == "even"):
        return unmeasured(recipe)
    probes = _probes(plan, plan.path({}))
    works = [_hashes(space, artist.slug) for artist in recipe.artists] if recipe.generate.spacing == "even" else []
    job = digest([SCHEMA, recipe.generate.chosen(exclude={"extra_seeds"}), *map(_described, probes), works])
    if space.placing.exists():
        known = read_json(space.placing, "job", "placing")
        if known["job"] == job or known["job"] in _jobs_in_schema_1(recipe, probes, shown):
            return dict(known["placing"])
    found = _measured(plan, sampler, space, reporter)
    write_json(space.placing, {"job": job, "placing": found})
    return found


def _described(frame: Frame) -> dict[str, Any]:
    """What sets a frame apart, without what is not said of it: a new field changes nothing where it says nothing."""
    return {name: value for name, value in frame_identity(frame).items() if value != DEFAULTS.get(name)}


def _jobs_in_schema_1(recipe: Recipe, probes: Sequence[Frame], shown: Shown) -> set[str]:
    """Hashes by which avignon 0.1.0 may have known what was measured."""
    settings = recipe.generate.as_in_schema_1(exclude={"extra_seeds"})
    alike = zip(*map(shown.by_any_name, probes), strict=True)
    return {digest([frame_identity(frame) for frame in frames] + [settings]) for frames in alike}


def _measured(plan: SeriesPlan, sampler: painting.ImageSampler, space: Workspace, reporter: Reporter) -> dict[str, Any]:
    settings, found = plan.recipe.generate, unmeasured(plan.recipe)
    names = plan.recipe.path_adapters
    if settings.equalize_adapters and len(names) > 1:
        frames = [
            replace(frame, weights={}, weight_schedule={}) for frame in _at(plan, blend.Mix(dict.fromkeys(names, 0.0)))
        ]
        found["effects"] = sampler.effects(frames[:4], names)
        found["gains"] = blend.equal_gains(found["effects"])
        if min(found["effects"].values()) <= 0:
            reporter.warn("an adapter changes nothing: the voices cannot be brought to equal effect")
    if settings.spacing == "even":
        found |= _even(plan, sampler, space, reporter, found["gains"])
    return found


def _even(
    plan: SeriesPlan, sampler: painting.ImageSampler, space: Workspace, reporter: Reporter, gains: Mapping[str, float]
) -> dict[str, Any]:
    """Stops between which the measured way in style is equally long."""
    recipe = plan.recipe
    measure = style.yardstick({artist.slug: _works(space, artist.slug) for artist in recipe.artists})
    frames = _probes(plan, plan.path(gains))
    each = len(frames) // PROBES
    reporter.note(f"measuring the path: {PROBES} places, {each} scenes each")
    seen = [style.traits(image) for image in sampler.paint(frames)]
    means = [style.mean(seen[i : i + each]) for i in range(0, len(seen), each)]
    distances = [measure.between(one, other)["combined"] for one, other in pairwise(means)]
    places = blend.evenly(PROBES)
    return {
        "places": blend.even_places(places, distances, recipe.generate.stops),
        "probes": places,
        "distances": distances,
    }


def _probes(plan: SeriesPlan, path: blend.MixPath) -> list[Frame]:
    return [frame for place in blend.evenly(PROBES) for frame in _at(plan, path.at(place), place)]


def _at(plan: SeriesPlan, mix: blend.Mix, place: float = 0.0) -> list[Frame]:
    """Some scenes with one mix, in fewer steps."""
    scenes = range(1, min(len(plan.recipe.generate.scenes), PROBE_SCENES) + 1)
    return [_in_few_steps(plan.frame(number, "probe", mix, place)) for number in scenes]


def _in_few_steps(frame: Frame) -> Frame:
    """A probe of a frame. A schedule is read at the steps that are left; a source leaves few steps as it is."""
    few = frame if frame.source else replace(frame, num_inference_steps=min(frame.num_inference_steps, PROBE_STEPS))
    count = few.effective_steps
    return replace(
        few,
        weight_schedule={n: [r[i * len(r) // count] for i in range(count)] for n, r in frame.weight_schedule.items()},
    )


def _hashes(space: Workspace, artist: str) -> list[str]:
    return [row["sha256"] for row in space.read_metadata(artist)]


def _works(space: Workspace, artist: str) -> Sequence[style.Traits]:
    """Traits of an artist's training images."""
    return [style.traits(imaging.load(file)) for file in space.training_images(artist)]

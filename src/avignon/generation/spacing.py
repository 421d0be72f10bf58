"""Where the stops of a series are, and how strong its adapters: what is measured on the path before it is painted."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from avignon.adapters.weights import Mix, MixPath, equal_gains, even_places, evenly
from avignon.core import imaging
from avignon.core.events import Reporter
from avignon.core.files import digest, read_json, write_json
from avignon.core.records import FORMER_NAMES, Frame, frame_identity
from avignon.core.workspace import Workspace
from avignon.evaluation import style
from avignon.generation.pictures import FinishedPictures
from avignon.generation.sampler import ImageSampler
from avignon.generation.series import SeriesPlan, in_few_steps
from avignon.recipe.schema import SCHEMA, Recipe

DEFAULTS = {FORMER_NAMES.get(each.name, each.name): each.default for each in fields(Frame)}
DEFAULTS |= {"schedule": {}, "blocks": {}}
"""What a frame's fields hold where nothing is said of them, by the names that hashes have for them."""

PROBES = 9
"""Places on the path that are painted to measure it."""

PROBE_SCENES = 8
"""Scenes that are painted at every probe, at most."""


def unmeasured(recipe: Recipe) -> dict[str, Any]:
    """The placing of a series for which nothing is measured."""
    settings = recipe.generate
    return {} if settings.weights else {"gains": {}, "places": evenly(settings.stops)}


def placing(plan: SeriesPlan, sampler: ImageSampler, finished: FinishedPictures, reporter: Reporter) -> dict[str, Any]:
    """Gains of the adapters and places of the stops; what was measured for the very same frames is read again."""
    recipe, space = plan.recipe, finished.space
    is_even = recipe.generate.spacing == "even"
    if recipe.generate.weights or not (recipe.generate.equalize_adapters or is_even):
        return unmeasured(recipe)
    probes = _probes(plan, plan.path({}))
    judges = recipe.artists if is_even else ()
    works = [[row["sha256"] for row in space.read_metadata(artist.slug)] for artist in judges]
    # What sets a frame apart, without what is not said of it: a new field changes nothing where it says nothing.
    described = [{k: v for k, v in frame_identity(one).items() if v != DEFAULTS.get(k)} for one in probes]
    job = digest([SCHEMA, recipe.generate.chosen(exclude={"extra_seeds"}), *described, works])
    if space.placing.exists():
        known = read_json(space.placing, "job", "placing")
        if known["job"] == job or known["job"] in _jobs_in_schema_1(recipe, probes, finished):
            return dict(known["placing"])
    found = _measured(plan, sampler, space, reporter)
    write_json(space.placing, {"job": job, "placing": found})
    return found


def _jobs_in_schema_1(recipe: Recipe, probes: Sequence[Frame], finished: FinishedPictures) -> set[str]:
    """Hashes by which avignon 0.1.0 may have known what was measured."""
    settings = recipe.generate.as_in_schema_1(exclude={"extra_seeds"})
    alike = zip(*map(finished.as_ever_named, probes), strict=True)
    return {digest([frame_identity(frame) for frame in frames] + [settings]) for frames in alike}


def _measured(plan: SeriesPlan, sampler: ImageSampler, space: Workspace, reporter: Reporter) -> dict[str, Any]:
    settings, names, found = plan.recipe.generate, plan.recipe.path_adapters, unmeasured(plan.recipe)
    if settings.equalize_adapters and len(names) > 1:
        frames = [replace(frame, weights={}, weight_schedule={}) for frame in _at(plan, Mix(dict.fromkeys(names, 0.0)))]
        alike = [frame for frame in frames if (frame.width, frame.height) == (frames[0].width, frames[0].height)]
        found["effects"] = sampler.effects(alike[:4], names)  # One batch, and so pictures of one size.
        found["gains"] = equal_gains(found["effects"])
        if min(found["effects"].values()) <= 0:
            reporter.warn("an adapter changes nothing: the adapters cannot be brought to equal effect")
    if settings.spacing == "even":  # Stops between which the measured way in style is equally long.
        distances, places = _distances(plan, sampler, space, reporter, found["gains"]), evenly(PROBES)
        found |= {"places": even_places(places, distances, settings.stops), "probes": places, "distances": distances}
    return found


def _distances(
    plan: SeriesPlan, sampler: ImageSampler, space: Workspace, reporter: Reporter, gains: Mapping[str, float]
) -> list[float]:
    """In style, from each probe of the path to the next."""
    works = {artist.slug: space.training_images(artist.slug) for artist in plan.recipe.artists}
    measure = style.yardstick({name: [style.traits(imaging.load(file)) for file in own] for name, own in works.items()})
    frames = _probes(plan, plan.path(gains))
    each = len(frames) // PROBES
    reporter.note(f"measuring the path: {PROBES} places, {each} scenes each")
    seen = [style.traits(image) for image in sampler.paint(frames)]
    means = [style.mean(seen[i : i + each]) for i in range(0, len(seen), each)]
    return [measure.between(one, other)["combined"] for one, other in pairwise(means)]


def _probes(plan: SeriesPlan, path: MixPath) -> list[Frame]:
    return [frame for place in evenly(PROBES) for frame in _at(plan, path.at(place), place)]


def _at(plan: SeriesPlan, mix: Mix, place: float = 0.0) -> list[Frame]:
    """Some scenes with one mix, in fewer steps."""
    scenes = range(1, min(len(plan.recipe.generate.scenes), PROBE_SCENES) + 1)
    return [in_few_steps(plan.frame(number, "probe", mix, place)) for number in scenes]

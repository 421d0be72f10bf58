"""generate: adapters → a series of pictures on the way from one voice to the next.

Reads `adapters/`; writes `series/<scene>/<stop>.png` and `series/series.json`. A frame is a full description: a picture
that carries the very frame that is asked for is kept, so an interrupted series goes on where it stopped. Pictures made
in one batch differ in the last bit from those made alone, so what is missing is made again in its own batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from avignon import adapters, blend, diffusion, imaging, painting
from avignon.recipe import Recipe
from avignon.records import Frame, Series, Voice, plain
from avignon.workspace import Workspace, sha256_of, write_bytes, write_json

BASE = "base"


def run(recipe: Recipe, space: Workspace, voice: Voice) -> None:
    """Make every picture of the series that is not there yet.

    Raises:
        InputError: a base, precision or adapter that cannot be used.
    """
    device = diffusion.device()
    precision = diffusion.precision_for(recipe.generate.precision, "generate", device)
    base = diffusion.load(recipe, diffusion.DTYPES[precision], voice)
    folders = {name: space.adapter(name) for name in recipe.adapter_names}
    folders |= {name: Path(folder) for name, folder in recipe.generate.adapters.items()}
    for name, folder in folders.items():
        adapters.load(base, name, folder)
    hashes = {name: sha256_of(folder / adapters.WEIGHTS_FILE) for name, folder in folders.items()}
    series = plan(recipe, base.fingerprint, hashes, precision)
    missing = {file for file, frame in series.frames if imaging.png_fields(space.series / file) != plain(frame)}
    done = len(series.frames) - len(missing)
    painter = painting.Painter(base, recipe, device, voice)
    for group in _groups(series.frames, recipe.generate.batch):
        wanted = missing.intersection(file for file, _ in group)
        if not wanted:
            continue
        for (file, frame), image in zip(group, painter.paint([frame for _, frame in group]), strict=True):
            if file in wanted:
                content = imaging.png_bytes(image, parameters_text(frame, base.model), plain(frame))
                write_bytes(space.series / file, content)
        done += len(wanted)
        voice.progress(done, len(series.frames), group[-1][0])
    write_json(space.series_index, plain(series))
    space.sweep(space.series, {space.series_index, *(space.series / file for file, _ in series.frames)})


def plan(recipe: Recipe, base: str, hashes: Mapping[str, str], precision: str) -> Series:
    """Every frame of the series, before a picture is made: for each scene the base alone, then the stops in order."""
    settings = recipe.generate
    names = recipe.adapter_names
    stops = list(settings.weights) or blend.path(names, settings.stops, settings.path, settings.strength)
    weights = {BASE: {}, **{f"stop-{i}": stop for i, stop in enumerate(stops, start=1)}}
    frames = [
        (
            f"scene-{number}/{stop}.png",
            Frame(
                scene=f"scene-{number}",
                stop=stop,
                prompt=scene.prompt,
                negative_prompt=settings.negative_prompt,
                seed=scene.seed if scene.seed >= 0 else recipe.seed + number,
                steps=settings.steps,
                guidance=settings.guidance,
                scheduler=settings.scheduler,
                width=recipe.base.resolution,
                height=recipe.base.resolution,
                weights=mix,
                base=base,
                adapters={name: hashes[name] for name in mix},
                precision=precision,
            ),
        )
        for number, scene in enumerate(settings.scenes, start=1)
        for stop, mix in weights.items()
    ]
    scenes = tuple(dict.fromkeys(frame.scene for _, frame in frames))
    return Series(recipe.name, scenes, tuple(weights)[1:], tuple(frames), BASE)


def _groups(frames: Sequence[tuple[str, Frame]], size: int) -> list[list[tuple[str, Frame]]]:
    """Frames that share their weights, at most `size` together: they can go through the UNet in one batch."""
    by_stop: dict[str, list[tuple[str, Frame]]] = {}
    for file, frame in frames:
        by_stop.setdefault(frame.stop, []).append((file, frame))
    return [group[i : i + size] for group in by_stop.values() for i in range(0, len(group), size)]


def parameters_text(frame: Frame, model: str) -> str:
    """A frame as the text that common image tools show: prompt, negative prompt, then named values in one line."""
    weights = ", ".join(f"{name}: {weight:g}" for name, weight in frame.weights.items()) or "none"
    values = {
        "Steps": frame.steps,
        "Sampler": frame.scheduler,
        "CFG scale": f"{frame.guidance:g}",
        "Seed": frame.seed,
        "Size": f"{frame.width}x{frame.height}",
        "Model": model,
        "Model hash": frame.base[:10],
        "Lora weights": f'"{weights}"',
    }
    lines = [frame.prompt, *([f"Negative prompt: {frame.negative_prompt}"] if frame.negative_prompt else [])]
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in values.items())])

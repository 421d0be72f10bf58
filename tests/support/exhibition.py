"""The folder of a finished run up to its report, small and full of markup, and a reader of its page."""

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from avignon.core.events import Reporter
from avignon.core.files import write_json, write_text
from avignon.core.records import Frame, Series, plain
from avignon.core.workspace import Workspace
from avignon.evaluation import report as reports
from avignon.evaluation.report import (
    Course,
    FrameReport,
    Nearest,
    Overall,
    OverSeeds,
    Report,
    SceneReport,
    SeedDifference,
)
from avignon.recipe.schema import Recipe
from avignon.stages import exhibit
from tests.support.images import truncated_jpeg

NASTY = "<script>alert(\"1\")</script> & 'son'"
SEA, TABLE = "The Sea Painter", f"Table {NASTY}"
BY = ("colour", "brushwork", "geometry", "combined")
STATEMENT = "2 of 3 training images are not known to be free to use."


class Reader(HTMLParser):
    """Collects a page's elements, and the text inside every element that has an id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the element, and that it is open."""
        fields = {name: value or "" for name, value in attrs}
        self.elements.append((tag, fields))
        if tag not in ("img", "meta", "br", "input"):
            self._open.append((tag, fields.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        """Close it; a page that is not well nested fails here."""
        opened = self._open.pop()
        assert opened[0] == tag, f"<{opened[0]} id={opened[1]!r}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        """Give the text to every open element with an id."""
        for _, name in self._open:
            if name:
                self.texts[name] = " ".join(f"{self.texts.get(name, '')}{data}".split(" "))

    def text(self, name: str) -> str:
        """The text of the element of this id, white space collapsed."""
        return " ".join(self.texts[name].split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of this kind."""
        return [fields for each, fields in self.elements if each == tag]


def recipe_of(**changes: Any) -> Recipe:
    """Two artists, two scenes, three stops."""
    fields = {
        "name": "small",
        "artists": [
            {"name": SEA, "works": 2, "trigger": "sea style"},
            {"name": TABLE, "works": 3, "trigger": "table style", "rights": "acknowledge-restricted"},
        ],
        "base": {"model": "embedded", "resolution": 64},
        "generate": {"scenes": [{"prompt": f"a boat {NASTY}"}, {"prompt": "a jug"}], "stops": 3},
        "exhibit": {"title": f"Sea & table {NASTY}", "introduction": "One.\n\nTwo <b>."},
    }
    return Recipe.model_validate({**fields, **changes})


def row(number: int, artist: str, **fields: str) -> dict[str, str]:
    """A line of the ledger: a kept, open work unless told otherwise."""
    usual = {
        "object_id": str(number),
        "title": f"Work {number}",
        "artist": artist,
        "year": "1873-1876",
        "width": "80",
        "height": "60",
        "sha256": "ab" * 32,
        "rights": "open",
        "evidence": f"openaccess=1; case {number}",
        "decision": "kept",
        "file": f"works/a/{number}.jpg",
        "capped": "false",
    }
    empty = dict.fromkeys(("museum", "accession", "image_url", "reason", "medium", "credit", "page"), "")
    return empty | usual | fields


def ledger(recipe: Recipe) -> list[dict[str, str]]:
    """Five works that hang, under all rights, and four that do not."""
    sea, table = (artist.name for artist in recipe.artists[:2])
    nothing = {"decision": "rejected", "file": ""}
    return [
        row(
            1,
            sea,
            by_hand="false",
            accession="1943.13.1",
            page="https://museum.test/1?a=1&b=2",
            medium="oil",
            credit="Gift of W. L.",
        ),
        row(2, sea, title=f"Title {NASTY}", page="javascript:alert(1)"),
        row(3, sea, **nothing, reason=f"not the artist's own: {NASTY}"),
        row(4, sea, decision="rejected", reason="truncated or damaged", file="works/a/broken.jpg"),
        row(5, table, accession="T.5", rights="restricted", capped="true"),
        row(6, table, accession="T.6", rights="unknown", evidence=""),
        row(
            7,
            table,
            accession="T.7",
            reason="kept by the curator: the best of them",
            by_hand="true",
            museum="artic",
            title="<i>Work</i> _7_ &amp; more",
        ),
        row(8, table, **nothing, rights="restricted", reason="rights are restricted: openaccess=0"),
        row(9, table, decision="rejected", reason="blurred: sharpness 8.1, at least 12 is needed"),
    ]


def card(recipe: Recipe, name: str) -> dict[str, Any]:
    """What training writes beside an adapter."""
    own = [artist for artist in recipe.artists if name in (artist.slug, "joint")]
    closed = [artist.name for artist in own if artist.rights != "open-only"]
    return {
        "name": name,
        "artists": [artist.name for artist in own],
        "triggers": [artist.trigger for artist in own],
        "base": {"model": "embedded", "revision": "", "fingerprint": "f0" * 32, "resolution": 64},
        "trainable": {"parameters": 589, "unet_parameters": 100_000, "share": 0.00589, "ranks": {"attention": 16}},
        "dataset": {"images": 7, "works": 3, "hash": "da7a" * 16},
        "rights": {
            "open": 1,
            "restricted": 1,
            "unknown": 1,
            "acknowledged": closed,
            "statement": STATEMENT if closed else "All are open.",
        },
        "recipe": recipe.model_dump(mode="json"),
        "environment": {"avignon": "0.1.0", "torch": "2.12.1", "device": "cpu", "precision": "fp32"},
        "metrics": {"steps": 1200, "final_loss": 0.0871, "seconds": 41.5, "identity": "1d" * 32},
    }


def series_of(recipe: Recipe) -> Series:
    """The grid that `generate` would write, seeds and all."""
    names = recipe.adapter_names
    mixes = list(recipe.generate.weights) or [
        {name: 1.0 if stop == place else 0.25 * (stop == 1) for place, name in zip((0, 2), names, strict=False)}
        for stop in range(3)
    ]
    stops = {"base": {}, **{f"stop-{i}": mix for i, mix in enumerate(mixes, start=1)}}
    frames = tuple(
        (f"scene-{number}/{stop}.png", frame(recipe, number, scene.prompt, stop, mix))
        for number, scene in enumerate(recipe.generate.scenes, start=1)
        for stop, mix in stops.items()
    )
    return Series(recipe.name, ("scene-1", "scene-2"), tuple(stops)[1:], frames)


def frame(recipe: Recipe, number: int, prompt: str, stop: str, mix: dict[str, float]) -> Frame:
    """One picture's description."""
    width, height = recipe.size_of(recipe.generate.scenes[number - 1])
    return Frame(
        scene=f"scene-{number}",
        stop=stop,
        prompt=prompt,
        negative_prompt="watermark",
        seed=4000 + number,
        num_inference_steps=30,
        guidance_scale=7.5,
        scheduler="dpm++",
        width=width,
        height=height,
        weights=mix,
        base="f0" * 32,
        adapters={name: f"{name}-sha256-of-the-weights" for name in mix},
        precision="bf16",
    )


def report_of(recipe: Recipe, series: Series) -> Report:
    """What `evaluate` would have measured."""
    stops = len(series.stops)
    distance = dict(zip(BY, (3.21, 2.5, 1.75, 2.6), strict=True))
    frames = tuple(
        FrameReport(
            file=file,
            scene=frame.scene,
            stop=frame.stop,
            seed=frame.seed,
            weights=frame.weights,
            source=None,
            change_from_base=12.34,
            composition_similarity=0.75,
            distance={artist.slug: distance for artist in recipe.artists},
            position=dict.fromkeys(BY, 0.25),
            nearest=Nearest(f"dataset/{recipe.artists[0].slug}/none.png", 0.31, is_copy=False),
        )
        for file, frame in series.frames
    )
    course = Course(
        distance={},
        position={**dict.fromkeys(BY, (0.25, 0.5, 0.45)[:stops]), "colour": (-2.0, 0.5, 3.0)[:stops]},
        monotone=dict.fromkeys(BY, False),
        neighbour_distance={},
        step_ratio=dict.fromkeys(BY, 1.5),
    )
    return Report(
        series=series.name,
        ends=(recipe.artists[0].slug, recipe.artists[-1].slug),
        units={},
        encoder=None,
        artist_position_std={},
        copy_threshold=0.5,
        copy_count=0,
        overall=Overall(course, 0.5, 0.5, (), {}, {}),
        scenes=tuple(SceneReport(s, (5.0, 7.5), course, {}, OverSeeds(1, 0, course)) for s in series.scenes),
        frames=frames,
        extras=(),
        placing={},
        notes=(f"A note {NASTY}",),
    )


def hang(recipe: Recipe, root: Path) -> Workspace:
    """The folder of a finished run, up to the exhibition."""
    space, series, rows = Workspace(root), series_of(recipe), ledger(recipe)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(space.ledger, text.getvalue())
    for each in rows:
        if each["file"]:
            save(space.root / each["file"], (80, 60))
    truncated_jpeg(space.root / "works/a", name="broken.jpg")
    for artist in recipe.artists:
        own = [each for each in rows if each["artist"] == artist.name and each["decision"] == "kept"]
        write_text(space.metadata(artist.slug), "".join(map(example, own)))
    for name in recipe.adapter_names:
        write_json(space.adapter(name) / "card.json", card(recipe, name))
    for file, frame in series.frames:
        save(space.series / file, (frame.width, frame.height))
    write_json(space.series_index, plain(series))
    reports.write(space.report, report_of(recipe, series))
    return space


def hang_all(recipe: Recipe, root: Path) -> Workspace:
    """The same with extras, one of which may be a copy, and two pictures that were held against a training image."""
    space, series = hang(recipe, root), series_of(recipe)
    seeds = (5001, 6001)
    extras = tuple((f"scene-1/base-seed-{seed}.png", replace(series.frames[0][1], seed=seed)) for seed in seeds)
    write_json(space.series_index, plain(replace(series, extras=extras)))
    original = space.metadata(recipe.artists[0].slug).with_name("1.png")
    save(original, (64, 64))
    report = report_of(recipe, series)
    scores = {"scene-1/stop-1.png": 0.7, "scene-1/stop-2.png": 0.2}
    difference = {"combined": 1.25, "composition": 0.5, "pixels": 40.0}
    full = SeedDifference(difference, dict.fromkeys(difference, 1.0))
    part = SeedDifference(difference, {"combined": None, "composition": 0.42, "pixels": 0.8})
    overall = replace(
        report.overall, monotone_row_share=1 / 3, seed_difference={"base": full, "stop-1": part, "stop-3": full}
    )
    scenes = tuple(replace(scene, over_seeds=replace(scene.over_seeds, seed_count=3)) for scene in report.scenes)
    frames = tuple(
        replace(one, nearest=Nearest(space.relative(original), scores[one.file], scores[one.file] >= 0.5))
        if one.file in scores
        else one
        for one in report.frames
    )
    measured = tuple(
        replace(report.frames[0], file=file, seed=seed, nearest=Nearest("", 9.0, seed == seeds[0]))
        for (file, _), seed in zip(extras, seeds, strict=True)
    )
    reports.write(space.report, replace(report, overall=overall, scenes=scenes, frames=frames, extras=measured))
    return space


def save(path: Path, size: tuple[int, int]) -> None:
    """A picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize(size).convert("RGB").save(path)


def example(work: dict[str, str]) -> str:
    """A work's line in `metadata.jsonl`."""
    captions = [f"caption of {work['object_id']}", NASTY]
    return (
        json.dumps(
            {
                "file_name": f"{work['object_id']}.png",
                "object_id": work["object_id"],
                "captions": captions,
                "box": [10, 0, 70, 60],
            }
        )
        + "\n"
    )


def shown(recipe: Recipe, root: Path) -> Reader:
    """The page of a run."""
    space = hang(recipe, root)
    exhibit.run(recipe, space, Reporter("exhibit", lambda event: None))
    return Reader(space.page.read_text(encoding="utf-8"))

"""An adapter from elsewhere in a run, from the recipe to the page."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from avignon.adapters.formats import registry
from avignon.cli.main import cli
from avignon.core import png
from avignon.core.errors import AdapterError
from avignon.core.events import Reporter, StageProgress
from avignon.core.files import read_json
from avignon.core.records import series_from
from avignon.core.workspace import Workspace
from avignon.recipe.schema import Recipe
from tests.support.adapters import layers_of, random_state
from tests.support.bases import load_base
from tests.support.runs import carried, small_recipe

HEADER = {"modelspec.author": "Ann <b>Other</b>", "modelspec.license": "CC-BY-4.0", "ss_num_train_images": "40"}


def foreign(base: Path, folder: Path, pattern: str) -> Path:
    """A kohya file of random changes of the tiny base's layers in whose names `pattern` is."""
    networks = load_base(small_recipe(folder, base), torch.float32, Reporter("test", lambda _: None)).networks
    shapes = {name: shape for name, shape in layers_of(networks).items() if pattern in name}
    path = folder / "their style.safetensors"
    registry.FORMATS["kohya"].write(path, random_state(shapes, 1, ranks=(1, 2)), HEADER)
    return path


def with_guest(folder: Path, model: Path, place: Path, **generate: Any) -> Recipe:
    """A recipe whose path leads from what it trains to a guest."""
    settings = {"adapters": {"guest": str(place)}, "path_adapters": ["winslow-homer", "guest"], **generate}
    return small_recipe(folder, model, train={"steps": 1}, generate=settings)


def pictures(space: Workspace) -> dict[str, bytes]:
    """The series' pictures as they lie on the disk."""
    return {path.relative_to(space.series).as_posix(): path.read_bytes() for path in space.series.rglob("*.png")}


@pytest.mark.slow
def test_adapter_from_elsewhere_on_the_path(tmp_path: Path, tiny_sd: Path) -> None:
    """It is told before training and as it is loaded, stands on the path, and pictures and page say what is known."""
    place = foreign(tiny_sd, tmp_path / "theirs", "attn")
    recipe = with_guest(tmp_path / "recipe", tiny_sd, place)
    space, events = carried(recipe, tmp_path / "runs", "exhibit")
    told = [(event.stage, event.text) for event in events if getattr(event, "text", "").startswith("guest: ")]
    assert [stage for stage, _ in told] == ["train", "generate"]
    assert "guest: their style.safetensors: kohya format, LoRA, " in told[0][1]
    first = next(
        place for place, event in enumerate(events) if isinstance(event, StageProgress) and "loss" in event.text
    )
    assert next(i for i, event in enumerate(events) if getattr(event, "text", "").startswith("guest: ")) < first
    series = series_from(read_json(space.series_index))
    origin = series.origins["guest"]
    assert (origin.author, origin.license, origin.training) == ("Ann <b>Other</b>", "CC-BY-4.0", "40 images")
    assert series.origins.keys() == {"guest"}
    for file, frame in series.frames:
        says = "their style.safetensors (SHA-256 " in png.png_rights(space.series / file)
        assert says is bool(frame.weights.get("guest"))
    rights = png.png_rights(space.series / "scene-1/stop-3.png")
    assert origin.sha256[:12] in rights
    assert "author: Ann <b>Other</b>; licence: CC-BY-4.0; trained: 40 images" in rights
    assert rights.endswith("rights of the training images: unknown.")
    page = space.page.read_text(encoding="utf-8")
    assert "their style.safetensors, kohya format" in page
    assert "Ann &lt;b&gt;Other&lt;/b&gt;" in page
    _, again = carried(recipe, tmp_path / "runs", "exhibit")
    assert {event.kind for event in again} == {"skipped"}


@pytest.mark.slow
def test_denoiser_only(tmp_path: Path, tiny_sd: Path) -> None:
    """The recipe's key leaves a text encoder's part out: other pictures, where the adapter is on, and no others."""
    place = foreign(tiny_sd, tmp_path / "theirs", "text_encoder.")
    runs = {}
    for name, only in (("with", []), ("without", ["guest"])):
        recipe = with_guest(tmp_path / name, tiny_sd, place, denoiser_only=only)
        runs[name] = pictures(carried(recipe, tmp_path / "runs" / name, "generate")[0])
    assert runs["with"].keys() == runs["without"].keys()
    same = {file for file in runs["with"] if runs["with"][file] == runs["without"][file]}
    assert same == {f"scene-{n}/{stop}.png" for n in (1, 2) for stop in ("base", "stop-1")}


@pytest.mark.slow
def test_unet_only(tmp_path: Path, tiny_sd: Path) -> None:
    """The option of `avignon sample` leaves a text encoder's part out: the base's own picture is left."""
    place = foreign(tiny_sd, tmp_path / "theirs", "text_encoder.")
    pixels = {}
    for name, options in (("base", ["--unet-only"]), ("with", [])):
        command = ["sample", f"{place}=1", "--prompt", "a boat", "--steps", "2", "--size", "64", "--base", str(tiny_sd)]
        done = CliRunner().invoke(cli, [*command, "--compare", "--to", str(tmp_path / name), *options])
        assert done.exit_code == 0, done.output
        pixels[name] = {path.name: Image.open(path).tobytes() for path in (tmp_path / name).glob("*-0.png")}
    assert len({*pixels["base"].values()}) == 1, "nothing is left of the adapter"
    assert len({*pixels["with"].values()}) == 2


def test_name_that_denoiser_only_has_not(tmp_path: Path, tiny_sd: Path) -> None:
    """A name that is no adapter's is refused with those that there are."""
    with pytest.raises(Exception, match=r"generate\.denoiser_only: no adapter 'other'"):
        with_guest(tmp_path, tiny_sd, tmp_path, denoiser_only=["other"])


def test_name_that_was_never_imported(tmp_path: Path, tiny_sd: Path) -> None:
    """It is told before anything else is done."""
    settings = {"adapters": {"guest": "mine"}, "path_adapters": ["winslow-homer", "guest"]}
    recipe = small_recipe(tmp_path / "recipe", tiny_sd, generate=settings)
    with pytest.raises(AdapterError, match="mine: neither a file nor an adapter that `avignon import` keeps"):
        carried(recipe, tmp_path / "runs", "generate")
    assert not (tmp_path / "runs").exists()

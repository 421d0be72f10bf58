"""Commands on saved adapters: write one for other programs, merge several, make a folder for a model hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from avignon.core.errors import InputError

if TYPE_CHECKING:
    from avignon.core.events import Reporter
    from avignon.recipe.schema import Base

PLACE = click.Path(path_type=Path)
FORMATS = click.Choice(("kohya", "diffusers", "peft"))
PRECISIONS = click.Choice(("fp32", "fp16", "bf16"))

ENDINGS = {"kohya": "-kohya.safetensors", "diffusers": "-diffusers.safetensors", "peft": "-peft"}
"""Of the file, or peft's folder, that is written where no other is named."""


def _free(place: Path) -> Path:
    """A place where nothing is yet."""
    import os

    if os.path.lexists(place):
        raise InputError(f"{place}: exists already, and is left as it is; name another place with --to")
    return place


def _file(place: Path) -> Path:
    """A place for an adapter's file, which other programs know by its ending."""
    if place.suffix != ".safetensors":
        raise InputError(f"--to {place}: an adapter's file ends in .safetensors; write {place.name}.safetensors")
    return _free(place)


@click.command()
@click.argument("adapter")
@click.option("--format", "kind", type=FORMATS, default="kohya", show_default=True, help="All programs read kohya.")
@click.option("--precision", type=PRECISIONS, help="Of its numbers; by default those that it has.")
@click.option("--to", type=PLACE, help="The file, or peft's folder; by default in this folder, by the adapter's name.")
def export(adapter: str, kind: str, precision: str | None, to: Path | None) -> None:
    """Write ADAPTER for other programs.

    ADAPTER is a folder, such as RUN/adapters/NAME, a file in any format that avignon reads, or what `avignon import`
    takes and keeps.
    """
    from avignon.adapters import export as exported

    source = exported.named(adapter, _told("export"))
    place = to or Path(source.name + ENDINGS[kind])
    place = _free(place) if kind == "peft" else _file(place)
    exported.write(place, source.state, kind, source.header(), precision or "")
    click.echo(place)


@click.command()
@click.argument("mix", nargs=-1, required=True, metavar="ADAPTER=WEIGHT… | RECIPE")
@click.option("--scene", metavar="S", help="With RECIPE: the scene of the run's series, from 1.")
@click.option("--stop", metavar="N", help="With RECIPE: the stop of the run's series, from 1.")
@click.option("--workspace", default="runs", type=PLACE, show_default=True, help="With RECIPE: folder of the runs.")
@click.option("--rank", type=click.IntRange(min=1), help="Truncate to this rank by an SVD; by default all is kept.")
@click.option("--base", metavar="NAME", help="The base that a DoRA belongs to; by default the one on its card.")
@click.option("--precision", type=PRECISIONS, help="Of the file's numbers; fp32 by default.")
@click.option("--to", type=PLACE, required=True, metavar="FILE", help="The file, in kohya's format.")
def merge(
    mix: tuple[str, ...],
    scene: str | None,
    stop: str | None,
    workspace: Path,
    rank: int | None,
    base: str | None,
    precision: str | None,
    to: Path,
) -> None:
    """Merge adapters into one: those named, or the mix of a stop.

    A stop is a picture of a series, with the weights that were measured for it.
    """
    from avignon.adapters import export as exported
    from avignon.adapters import mixture
    from avignon.core.workspace import Workspace
    from avignon.recipe.load import load_recipe

    settings: Base | str = base or ""
    heard = _told("merge")
    if scene or stop:
        if len(mix) != 1 or not (scene and stop):
            raise InputError("a mix of a series is RECIPE --scene S --stop N")
        recipe = load_recipe(mix[0])
        ingredients = mixture.of_stop(recipe, Workspace(workspace / recipe.name), scene, stop, heard)
        settings = base or recipe.base
    else:
        ingredients = mixture.of_places(mix, heard)
    place = _file(to)
    merged, header = mixture.merge(ingredients, place.stem, rank or 0, settings, heard)
    exported.write(place, merged.state, "kohya", header, precision or "")
    if merged.lost:
        worst = list(merged.errors.items())[:5]
        click.echo(f"relative error {merged.error:.3g} in all; the largest: " if worst else "relative error 0 in all")
        for layer, error in worst:
            click.echo(f"  {error:.3g}  {layer}")
    click.echo(place)


def _told(command: str) -> "Reporter":
    """Notes and warnings, on stderr."""
    from avignon.core.events import Reporter

    return Reporter(command, lambda event: click.echo(f"{command}: {event.text}", err=True))


@click.command()
@click.argument("adapter", type=PLACE)
@click.option("--to", type=PLACE, required=True, metavar="FOLDER", help="The folder to make.")
@click.option("--upload", metavar="OWNER/NAME", help="Also upload it to the hub, with your own token (hf auth login).")
def publish(adapter: Path, to: Path, upload: str | None) -> None:
    """Make a folder for a model hub of an ADAPTER that was trained here.

    Its README.md names every training work with accession number, link and rights.
    """
    from avignon.adapters import publication

    publication.make(_free(to), adapter)
    click.echo(to)
    if upload:
        from avignon.models import hub

        click.echo(hub.upload(to, upload))

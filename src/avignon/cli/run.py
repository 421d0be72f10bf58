"""Commands on a recipe: write one, list those that are shipped, run one, or run it up to a stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from avignon.cli.standalone import EvaluateCommand
from avignon.museums.registry import MUSEUMS
from avignon.pipeline import NAMES, STAGES, Stage

Command = Callable[..., Any]


def _run_options(command: Command) -> Command:
    folder = click.Path(path_type=Path)
    options = (
        click.argument("recipe"),
        click.option("--workspace", default="runs", type=folder, show_default=True, help="Folder of the runs."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, as train.steps=50."
        ),
        click.option("--quiet", is_flag=True, help="Print only warnings, errors and the page's path."),
        click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line, for programs."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_run_options
@click.option("--until", type=click.Choice(NAMES), default=NAMES[-1], help="Last stage to do.")
def run(recipe: str, workspace: Path, overrides: tuple[str, ...], quiet: bool, as_json: bool, until: str) -> None:
    """Carry RECIPE from the museum to the page. Stages that are up to date are skipped.

    RECIPE is a file, or the name of a recipe that is shipped with avignon (`avignon recipes` lists them).
    """
    from avignon import pipeline
    from avignon.cli.console import console
    from avignon.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    with console(quiet, as_json) as listener:
        space = pipeline.run(loaded, workspace, listener, until=until)
    if until == NAMES[-1] and not as_json:
        click.echo(space.page)


def _stage_command(stage: Stage) -> click.Command:
    kind = EvaluateCommand if stage.name == "evaluate" else click.Command

    @click.command(stage.name, cls=kind, help=f"{stage.help} Stages before it are done where they are not up to date.")
    @_run_options
    @click.pass_context
    def command(context: click.Context, /, **options: Any) -> None:
        context.invoke(run, **options, until=stage.name)

    return command


stages = tuple(map(_stage_command, STAGES))


@click.command()
def recipes() -> None:
    """List the shipped recipes, what they do and what they cost."""
    from avignon.cli.tables import print_table
    from avignon.recipe.shipped import shipped, summary

    rows = [(name, *(summary(path)[part] for part in ("What it does", "Cost"))) for name, path in shipped().items()]
    print_table("recipes: run one by its name, as `avignon run demo`", ("name", "what it does", "cost"), rows)


class _ManyArtists(click.Command):
    """Reads `--artists A B` as `--artists A --artists B`, which is what click understands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        expanded: list[str] = []
        within = False
        for arg in args:
            if arg.startswith("-"):
                within = arg.startswith("--artists")
            elif within and expanded[-1] != "--artists":
                expanded.append("--artists")
            expanded.append(arg)
        return super().parse_args(ctx, expanded)


@click.command(cls=_ManyArtists)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--artists", multiple=True, required=True, metavar='"A" "B" …', help="Two or more, as the museum has them."
)
@click.option("--museum", default="nga", show_default=True, help=", ".join(row.kind for row in MUSEUMS) + ".")
@click.option("--base", default="", metavar="NAME", help="A model on the hub, a directory, or `embedded`.")
def new(file: Path, artists: tuple[str, ...], museum: str, base: str) -> None:
    """Write a commented recipe to FILE, to edit."""
    from avignon.recipe.new import write_recipe

    write_recipe(file, artists, museum, base)
    click.echo(f"{file}: edit it, then: avignon run {file}")

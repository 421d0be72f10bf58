"""Commands on saved adapters that need no recipe: sample, and evaluate ADAPTER --against FOLDER."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avignon.core.errors import InputError
from avignon.models.registry import SAMPLERS

if TYPE_CHECKING:
    from avignon.core.events import Reporter
    from avignon.evaluation.adapter_report import AdapterReport
    from avignon.generation.standalone import SavedAdapter, StandaloneSampler

Command = Callable[..., Any]

SIDE = click.IntRange(32, 2048)

SEED = click.IntRange(0, 2**63 - 1)

_OPTIONS = {
    r"generate\.num_inference_steps": "--steps",
    r"generate\.scheduler": "--sampler",
    r"generate\.guidance_scale, generate\.strength": "--guidance",
    r"base\.model": "--base",
    r"base\.resolution": "--size",
    r"generate\.scenes\.\d+\.width": "--width",
    r"generate\.scenes\.\d+\.height": "--height",
    r"\w+\.precision": "--precision",
}
"""A recipe's fields, as messages name them, by the options that stand for them here."""


def _painting_options(command: Command) -> Command:
    options = (
        click.option("--negative-prompt", default="", help="What the pictures should not show."),
        click.option("--steps", type=click.IntRange(1, 1000), default=30, show_default=True, help="Denoising steps."),
        click.option(
            "--guidance", type=click.FloatRange(1, 50), default=7.5, show_default=True, help="Guidance scale; 1: none."
        ),
        click.option("--sampler", type=click.Choice(SAMPLERS), default="ddim", show_default=True, help="The sampler."),
        click.option(
            "--size", type=SIDE, help="Pixels of a side; by default what the adapter learned at."
        ),
        click.option("--base", default="", metavar="NAME", help="A model on the hub, a directory, or `embedded`; by "
                     "default the one that the adapter's card names."),
        click.option("--unet-only", "--denoiser-only", "denoiser_only", is_flag=True,
                     help="Leave out what the adapters change in text encoders."),
        click.option("--precision", type=click.Choice(("auto", "fp32", "bf16", "fp16")), default="auto",
                     show_default=True, help="What the denoiser computes in."),
        click.option("--quiet", is_flag=True, help="Print only warnings, errors and the result."),
        click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line, for programs."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def _reporting(stage: str, quiet: bool, as_json: bool) -> "Iterator[Reporter]":
    """A reporter whose events are shown; what an error says of a recipe's fields is said of options."""
    from avignon.cli.console import console
    from avignon.core.events import Reporter, StageDone, StageStarted

    with console(quiet, as_json) as listener:
        listener(StageStarted(stage))
        try:
            yield Reporter(stage, listener)
        except InputError as failed:
            text = str(failed)
            for field, option in _OPTIONS.items():
                text = re.sub(rf"\b{field}\b", option, text)
            raise type(failed)(text) from failed
        listener(StageDone(stage))


def _opened(
    adapters: "Sequence[SavedAdapter]",
    prompts: Sequence[str],
    folder: Path,
    reporter: "Reporter",
    width: int | None = None,
    height: int | None = None,
    **options: Any,
) -> "StandaloneSampler":
    """The adapters on their base, ready to paint as the options say."""
    from avignon.generation import standalone
    from avignon.recipe.schema import Generate, Scene

    settings = Generate(
        scenes=tuple(Scene(prompt=prompt, width=width or 0, height=height or 0) for prompt in prompts),
        negative_prompt=options["negative_prompt"],
        num_inference_steps=options["steps"],
        guidance_scale=options["guidance"],
        scheduler=options["sampler"],
        precision=options["precision"],
        denoiser_only=tuple(each.name for each in adapters) if options["denoiser_only"] else (),
    )
    standalone.tell_words(adapters, prompts, reporter)
    wanted = standalone.base_for(adapters, options["base"], options["size"] or 0)
    return standalone.StandaloneSampler(adapters, wanted, settings, folder, reporter)


@click.command()
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER[=WEIGHT]...")
@click.option("--prompt", required=True, help="What to paint, with the adapters' trigger phrases; used as it is.")
@click.option("--seed", "seeds", type=SEED, multiple=True, default=(0,), show_default=True, help="Repeatable.")
@click.option("--to", "folder", type=click.Path(path_type=Path), default="samples", show_default=True, help="A folder.")
@click.option("--width", type=SIDE, help="Pixels of the pictures; by default those of a side.")
@click.option("--height", type=SIDE, help="Likewise.")
@click.option("--compare", is_flag=True, help="Also the base and each adapter alone, and one sheet of all pictures.")
@_painting_options
def sample(
    adapters: tuple[str, ...], prompt: str, seeds: tuple[int, ...], folder: Path, compare: bool, **options: Any
) -> None:
    """Paint pictures with saved adapters, without a recipe.

    An ADAPTER is a folder, as RUN/adapters/NAME, a file, a name that `avignon import` gave, or OWNER/NAME on the hub.
    The base is the one that the adapter's card names. A picture that is there already is kept, and none is overwritten.
    """
    from avignon.generation import comparison, standalone

    with _reporting("sample", options["quiet"], options["as_json"]) as reporter:
        sampler = _opened(standalone.saved(adapters, reporter), [prompt], folder, reporter, **options)
        files = comparison.sample(sampler, prompt, tuple(dict.fromkeys(seeds)), compare=compare)
    if not options["as_json"]:
        click.echo("\n".join(map(str, files)))


class EvaluateCommand(click.Command):
    """`evaluate RECIPE`, the stage; where `--against` is among the arguments, `evaluate ADAPTER --against FOLDER`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the one command or the other, by the arguments."""
        if any(each.partition("=")[0] == "--against" for each in args):
            return evaluate_adapter.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say at the end of the help what else there is."""
        formatter.write_paragraph()
        formatter.write_text("An adapter by itself: avignon evaluate ADAPTER --against FOLDER (with --help, more).")
        super().format_epilog(ctx, formatter)


@click.command("evaluate")
@click.argument("adapter", metavar="ADAPTER[=WEIGHT]")
@click.option("--against", "works", type=click.Path(path_type=Path), required=True, help="A folder of works' pictures.")
@click.option("--prompt", "prompts", multiple=True, help="Repeatable; by default the scenes on the adapter's card.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The first seed.")
@click.option("--seeds", "count", type=click.IntRange(1, 1000), default=4, show_default=True, help="Of every prompt.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="A folder; by default evaluations/NAME.")
@_painting_options
def evaluate_adapter(
    adapter: str, works: Path, prompts: tuple[str, ...], seed: int, count: int, folder: Path | None, **options: Any
) -> None:
    """Measure a saved adapter against works: distance in style, copies, diversity.

    It paints every prompt with every seed, with the adapter and by the base alone, and writes FOLDER/evaluation.json.
    """
    from avignon.generation import standalone, trial

    with _reporting("evaluate", options["quiet"], options["as_json"]) as reporter:
        trial.pictures_in(works)
        (one,) = standalone.saved([adapter], reporter)
        texts = tuple(dict.fromkeys(prompts)) or trial.scenes_of(one)
        folder = folder or Path("evaluations", one.name)
        sampler = _opened([one], texts, folder, reporter, **options)
        prepared = trial.prepared(works, sampler.base.resolution, reporter)
        report = trial.evaluate(sampler, prepared, texts, range(seed, seed + count), reporter)
        path = trial.write(folder, report)
    if not options["as_json"]:
        _print_report(report, path, quiet=options["quiet"])


def _print_report(report: "AdapterReport", path: Path, *, quiet: bool) -> None:
    from avignon.cli.tables import print_table

    if not quiet:
        adapter, base, works = report.by_adapter, report.by_base, report.works
        gained = report.style_gained["combined"]
        rows = [
            *(
                (f"style distance, {by}", f"{adapter.style_distance[by]:.2f}", f"{base.style_distance[by]:.2f}",
                 _number(works.style_distance, by))
                for by in adapter.style_distance
            ),
            ("style gained, combined", "" if gained is None else f"{gained:.0%}", "", ""),
            ("copies", f"{adapter.copy_count} of {len(report.pictures)}", f"{base.copy_count}", ""),
            ("highest copy score", f"{adapter.max_copy_score:.2f}", f"{base.max_copy_score:.2f}", ""),
            *(
                (f"difference from seed to seed, {by}", _number(adapter.seed_difference, by),
                 _number(base.seed_difference, by), _number(works.difference, by))
                for by in ("composition", "combined")
            ),
            *(
                (f"difference from prompt to prompt, {by}", _number(adapter.prompt_difference, by),
                 _number(base.prompt_difference, by), _number(works.difference, by))
                for by in ("composition", "combined")
            ),
        ]  # fmt: skip
        title = f"{report.adapter['name']} against {len(works.images)} works in {works.folder}"
        print_table(f"{title}, {len(report.pictures)} pictures", ("measure", "adapter", "base", "works"), rows)
        click.echo()
    click.echo(path)


def _number(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.2f}" if name in values else "-"

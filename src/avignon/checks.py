"""What a run needs, checked before anything is fetched: hours of training may lead up to a file that is wrong."""

from pathlib import Path

from avignon.adapters import headers, sources
from avignon.adapters.formats import registry as formats
from avignon.core import imaging, prompts
from avignon.core.events import Reporter
from avignon.curation import decisions
from avignon.recipe.schema import Recipe


def check_files(recipe: Recipe) -> None:
    """Refuse what is wrong with the user's own files: pictures of scenes, external adapters, an encoder, decisions.

    Shapes are checked here, too, because they follow from the base's files.
    """
    _ = recipe.buckets
    for artist in recipe.artists:
        decisions.read(artist.decisions)
    for scene in recipe.generate.scenes:
        if scene.image:
            imaging.size_of(Path(scene.image))
    base = recipe.base.folder
    layers = headers.layers_in(base) if base and recipe.generate.adapters else {}
    for place in filter(None, map(sources.local, recipe.generate.adapters.values())):
        file = formats.find(place)
        if layers:  # Whether it fits a base that is yet to be fetched, `train` tells before it trains.
            headers.check_fit(file.path, file.layers, layers)
    encoder = Path(recipe.evaluate.encoder)
    if encoder.is_absolute():
        from avignon.models import hub  # Here, because the hub's client takes long to load.

        hub.described(encoder / "config.json", "no encoder in transformers' format")
        hub.check_weights(encoder, "model")


def warn_of_markup(recipe: Recipe, reporter: Reporter) -> None:
    """Say once, and early, what in the prompts is read as letters though other programs read more."""
    settings = recipe.generate
    texts = {f"generate.scenes.{number}.prompt": scene.prompt for number, scene in enumerate(settings.scenes)}
    texts |= {"generate.negative_prompt": settings.negative_prompt}
    texts |= {f"artists.{number}.trigger": artist.trigger for number, artist in enumerate(recipe.artists)}
    found = [f"{piece!r} ({field})" for field, text in texts.items() for piece in prompts.markup(text)]
    if found:
        reporter.warn(
            f"read as letters: {', '.join(found)}; prompts have no weights, adapters, alternatives or parts here: "
            "adapters are mixed by generate.weights or generate.path_adapters"
        )

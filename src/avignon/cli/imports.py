"""Commands on adapters from elsewhere: keep one under a name, list those that are kept."""

import click


@click.command("import")
@click.argument("source", metavar="FILE|HUB_ID")
@click.option("--as", "name", default="", metavar="NAME", help="What recipes call it; by default the file's name.")
def import_adapter(source: str, name: str) -> None:
    """Keep an adapter of any program in your cache, by a name.

    A recipe uses it by `adapters = { mine = "NAME" }` in its table `[generate]`.

    FILE is a safetensors file or a folder with one; HUB_ID is owner/name, owner/name@revision, or
    owner/name/file.safetensors.
    """
    from avignon.adapters import sources
    from avignon.core.events import Reporter

    def said(event: object) -> None:
        click.echo(getattr(event, "text", ""), err=True)

    kept, file = sources.keep(source, name, Reporter("import", said))
    click.echo(f"{kept}: {file.summary}")


@click.command()
def adapters() -> None:
    """List the adapters that `avignon import` keeps, by their names."""
    from avignon.adapters import sources
    from avignon.adapters.formats import registry
    from avignon.adapters.headers import family
    from avignon.cli.tables import print_table

    rows = []
    for name, folder in sources.imported().items():
        file = registry.find(folder)
        ranks = ", ".join(map(str, file.ranks))
        base = family(file.layers) or "not told"
        rows.append((name, file.format, base, str(len(file.layers)), ranks, sources.source_of(folder)))
    header = ("name", "format", "base", "layers", "ranks", "source")
    print_table(f"{len(rows)} adapters in {sources.collection()}", header, rows)

"""exhibit: everything the run has made → one page that opens from disk, with no network.

Reads all the stages' folders; writes `exhibition/index.html`, and the series as single files to `exhibition/films/`.
"""

from avignon.core import pages
from avignon.core.events import Reporter
from avignon.core.files import write_text
from avignon.core.workspace import Workspace
from avignon.exhibition import films
from avignon.exhibition.build import build
from avignon.recipe.schema import Recipe


def run(recipe: Recipe, space: Workspace, reporter: Reporter) -> None:
    """Hang the exhibition: one self-contained page.

    Raises:
        ImageError: a picture of the series, or a work that was trained on, cannot be read.
        WorkspaceError: a file of the run is damaged, or the report has another schema.
    """
    files = films.write(recipe, space)
    page = build(recipe, space, reporter, files)
    write_text(space.page, pages.rendered("avignon.exhibition", "page.html", page=page))
    space.sweep(space.exhibition, {space.page, *files})
    pictures, works = sum(len(scene.cells) for scene in page.scenes), sum(len(wall.hung) for wall in page.walls)
    reporter.note(f"{pictures} pictures and {works} works hang")

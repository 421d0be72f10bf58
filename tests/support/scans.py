"""Folders of one's own scans, and recipes on them: what a user starts from, in small."""

from pathlib import Path

from tests.support.museum import draw

BASE = 64
"""Resolution of the recipes here."""

RECIPE = """
seed = 7
museum = {{ kind = "folder", path = "scans" }}

[[artists]]
name = "Ann Other"
works = {works}
trigger = "in the style of ann other"

[[artists]]
name = "Bo Second"
works = {works}
trigger = "in the style of bo second"

[base]
model = "embedded"
resolution = {resolution}

[collect]
pause = 0
reserve = {reserve}

[curate]
min_sharpness = 0.0

[generate]
scenes = [{{ prompt = "a boat" }}]
"""


def scan(path: Path, seed: int, size: tuple[int, int] = (96, 64)) -> Path:
    """A picture that no other seed's is mistaken for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(seed, *size).save(path)
    return path


def scans(root: Path, count: int = 3) -> Path:
    """A subfolder for each of the recipe's artists with so many pictures, named as open by an index."""
    lines = ["file,artist,title,rights"]
    for place, name in enumerate(("Ann Other", "Bo Second")):
        for number in range(count):
            file = f"{name.split()[0].lower()}/work-{number}.png"
            scan(root / file, 100 * place + number)
            lines.append(f"{file},{name},Work {number} of {name},public domain")
    (root / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def recipe(folder: Path, *, works: int = 3, reserve: int = 4, more: str = "", name: str = "pair") -> Path:
    """A recipe on the folder `scans` beside it; `more` is added at its end."""
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(works=works, reserve=reserve, resolution=BASE) + more, encoding="utf-8")
    return path

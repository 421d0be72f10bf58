"""The whole job on real paintings in the public domain, in small; skipped where they are not at hand."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from avignon.core.workspace import Workspace
from tests.support.paths import SHARED_ART

RECIPE = """
[museum]
path = '{folder}'
[[artists]]
name = "Winslow Homer"
works = 7
trigger = "in the style of winslow homer"
[[artists]]
name = "The Cubists"
find = ["Juan Gris", "Robert Delaunay", "Albert Gleizes", "Francis Picabia", "Fernand Léger"]
works = 7
trigger = "in the style of the cubists"
[base]
model = "embedded"
resolution = 192
[train]
steps = 3
[generate]
stops = 2
num_inference_steps = 2
scenes = [{{ prompt = "a sailing boat on the left" }}]
"""


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_ART / "index.csv").exists(), reason="the paintings are not at hand")
def test_homer_and_the_cubists(tmp_path: Path) -> None:
    """Seven works by Homer and seven by five cubists go from a folder of scans to the page, all open."""
    recipe = tmp_path / "art.toml"
    recipe.write_text(RECIPE.format(folder=SHARED_ART), encoding="utf-8")
    command = [sys.executable, "-m", "avignon", "run", str(recipe), "--workspace", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    space = Workspace(tmp_path / "runs/art")
    rows = space.read_ledger()
    assert Counter((row["artist"], row["decision"], row["rights"]) for row in rows) == {
        ("Winslow Homer", "kept", "open"): 7,
        ("The Cubists", "kept", "open"): 7,
    }
    page = space.page.read_text(encoding="utf-8")
    assert "Breezing Up (A Fair Wind)" in page
    assert "Violin and Guitar" in page

"""Short names of bases: homes in their order, what was used, and its licence."""

import re
from pathlib import Path

import pytest
import torch

from avignon.core.errors import ModelError
from avignon.core.events import Event, Reporter
from avignon.models import loading
from avignon.models.base import DiffusionBase
from avignon.models.names import KNOWN, homes_of, licence_of
from avignon.models.registry import COMMON_MULTIPLE, FAMILIES
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import small_recipe
from tests.support.single_files import as_single_file

FIRST, SECOND, FORMER = KNOWN["sd-2.1-base"].homes


def load(folder: Path, model: str, heard: list[Event]) -> DiffusionBase:
    """The base of a small recipe."""
    recipe = small_recipe(folder, model, base={"mirrors": ["someone/own-mirror"]})
    return loading.load(recipe.base, recipe.generate, torch.float32, Reporter("train", heard.append))


def test_rows_are_repositories_with_a_licence_and_a_source() -> None:
    """Every row can be asked for, and says where that is from; no home is in two rows."""
    homes = [home for known in KNOWN.values() for home in known.homes]
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", home) for home in homes)
    assert len(set(homes)) == len(homes)
    for known in KNOWN.values():
        assert known.source.startswith("https://")
        assert "RAIL" in known.licence or known.licence in ("Apache-2.0", "FLUX Non-Commercial License")
        assert known.family in FAMILIES
        assert known.resolution in (512, 768, 1024)
    assert homes_of("someone/else") == ("someone/else",)
    assert licence_of("someone/else") == "unknown"
    assert licence_of("embedded") == "Apache-2.0"


def test_multiples_follow_from_what_is_told(tiny_sd: Path, tiny_z_image: Path, tmp_path: Path) -> None:
    """By a short name, a folder, or the small files of a checkpoint; else it is what all families have in common."""
    single = as_single_file(tiny_sd, tmp_path / "mix.safetensors")
    asked: dict[Path | str, int] = {
        "sdxl": 64,
        "z-image": 16,
        "embedded": 32,
        "someone/else": 64,
        tiny_sd: 64,
        tiny_z_image: 16,
        single: 64,
    }
    for number, (model, multiple) in enumerate(asked.items()):
        settings = {"config": str(tiny_sd)} if model == single else {}
        recipe = small_recipe(tmp_path / str(number), model, base=settings)
        assert loading.multiple_of(recipe.base) == multiple
    assert all(COMMON_MULTIPLE % family.multiple == 0 for family in FAMILIES.values())
    assert all(known.family in FAMILIES for known in KNOWN.values())


def test_homes_are_tried_in_order(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that the hub has is used and named on the card; the recipe's own mirrors come last."""
    with LocalHub() as hub:
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        heard: list[Event] = []
        with pytest.raises(ModelError) as refused:
            load(tmp_path / "none", "sd-2.1-base", heard)
        places = [str(refused.value).index(name) for name in (FIRST, SECOND, FORMER, "someone/own-mirror")]
        assert places == sorted(places)
        for home in ("someone/own-mirror", FORMER, SECOND, FIRST):
            hub.add(home, tiny_sd)
            base = load(tmp_path / home, "sd-2.1-base", heard)
            assert base.card["model"] == home
            assert base.card["revision"] == hub.commit(home)
            assert base.card["licence"] == ("unknown" if home == "someone/own-mirror" else "CreativeML Open RAIL++-M")


def test_a_home_in_the_cache_is_used_offline(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hub, the first home that the cache holds is the base."""
    with LocalHub() as hub:
        take_for_the_hub(hub, tmp_path / "cache", monkeypatch)
        hub.add(SECOND, tiny_sd)
        load(tmp_path / "online", "sd-2.1-base", [])
    assert load(tmp_path / "offline", "sd-2.1-base", []).card["model"] == SECOND

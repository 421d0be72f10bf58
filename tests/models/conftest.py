"""What tests of every family of bases share: each family in turn, with its tiny base."""

from pathlib import Path

import pytest

from tests.support.families import TINY, TinyFamily


@pytest.fixture(scope="module", params=TINY, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> TinyFamily:
    """Each family in turn."""
    found: TinyFamily = request.param
    return found


@pytest.fixture(scope="module")
def tiny(family: TinyFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tiny base."""
    return family.make(tmp_path_factory.mktemp("family") / "base")

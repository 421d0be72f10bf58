"""Fixtures shared by the tests: small bases, museums and recipes."""

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.museum import LocalMuseum, fill
from tests.support.patience import wait_elsewhere

# Models with adapters are millions of small objects: at its usual rhythm the collector takes a tenth of the time.
gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(tryfirst=True)  # Before cases are chosen by their marks.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is `slow_but_one` the first case stays in `make check`."""
    seen: set[str] = set()
    for item in items:
        if item.get_closest_marker("slow_but_one"):
            test = item.nodeid.partition("[")[0]
            if test in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(test)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths for homes, one after the other."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's caches, and none waits: for back-off, or out of politeness to itself."""
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setattr("avignon.museums.http.BACK_OFF", 0.01)
    monkeypatch.setattr("avignon.museums.http.Fetcher._wait_turn", wait_elsewhere)


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete Stable Diffusion of 0.1 M parameters with random weights, 64×64 pixels."""
    from tests.support.tiny_sd import make_tiny_sd  # Here, so that tests without a base do not wait for torch.

    return make_tiny_sd(tmp_path_factory.mktemp("bases") / "tiny-sd")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a Stable Diffusion XL."""
    from tests.support.tiny_sdxl import make_tiny_sdxl

    return make_tiny_sdxl(tmp_path_factory.mktemp("bases") / "tiny-sdxl")


@pytest.fixture(scope="session")
def tiny_z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a Z-Image."""
    from tests.support.tiny_z_image import make_tiny_z_image

    return make_tiny_z_image(tmp_path_factory.mktemp("bases") / "tiny-z-image")


@pytest.fixture(scope="session")
def tiny_flux2_klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a FLUX.2 klein."""
    from tests.support.tiny_flux2_klein import make_tiny_flux2_klein

    return make_tiny_flux2_klein(tmp_path_factory.mktemp("bases") / "tiny-flux2-klein")


@pytest.fixture(scope="session")
def museum() -> Iterator[LocalMuseum]:
    """The National Gallery's tables and images on 127.0.0.1: Homer, Picasso, Gris and some others."""
    with LocalMuseum() as server:
        fill(server)
        yield server

"""The Art Institute of Chicago through the same protocol: records become works or reasons, and works an adapter."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from avignon import cli, pipeline
from avignon.errors import FetchError, InputError
from avignon.fetch import USER_AGENT, Fetcher
from avignon.imaging import size_of
from avignon.museums.artic import Artic
from avignon.museums.iiif import Images
from avignon.museums.protocol import Name
from avignon.recipe import ArticMuseum, load
from avignon.records import Access, Found
from tests.support import Reply
from tests.support.artic import LocalArtic


@pytest.fixture
def server() -> Iterator[LocalArtic]:
    """The museum on 127.0.0.1."""
    with LocalArtic() as local:
        yield local


@pytest.fixture
def museum(server: LocalArtic) -> Iterator[Artic]:
    """The museum as avignon sees it in 2026."""
    with Fetcher(pause=0, timeout=5) as fetcher:
        yield Artic(server.api, Images(fetcher, 300), year=2026)


def by_id(found: list[Found]) -> dict[str, Found]:
    """Works by object id."""
    return {each.work.object_id: each for each in found}


@pytest.mark.parametrize("wanted", ["Winslow Homer", "homer, WINSLOW", "Wínslow Hömer"])
def test_artist_is_found_on_all_pages(museum: Artic, server: LocalArtic, wanted: str) -> None:
    """A name in any order, case and accents leads to the artist, and to the works of every page."""
    found = museum.find(Name(wanted))
    assert set(by_id(found)) == {"25800", "25801", "25802", "25803", "25810", "25811", "25812", "25813"}
    assert {asked.headers["aic-user-agent"] for asked in server.asked} == {USER_AGENT}


def test_record_becomes_a_work(museum: Artic, server: LocalArtic) -> None:
    """Title, number, dates, medium, class, terms, size, page and image are the museum's own."""
    work = by_id(museum.find(Name("Winslow Homer")))["25802"].work
    assert (work.title, work.accession, work.date) == ("After the Hurricane", "1933.802", "1882–86")
    assert (work.begin, work.end, work.medium, work.classification) == (1882, 1886, "Oil on canvas", "Painting")
    assert (work.terms, work.width, work.height) == (("seascapes", "boats"), 900, 600)
    assert work.page == "https://www.artic.edu/artworks/25802"
    assert work.image_url.startswith(f"{server.url}/iiif/2/00025802-")
    assert work.depicts == "A work made of oil on canvas."


def test_rights_are_the_museums_word_on_each_work(museum: Artic) -> None:
    """Public domain is open, what is not called so is restricted, and no word at all is unknown."""
    found = by_id(museum.find(Name("Winslow Homer")))
    assert found["25800"].work.rights.access is Access.OPEN
    assert found["25812"].work.rights.access is Access.RESTRICTED
    assert found["25813"].work.rights.access is Access.UNKNOWN
    assert found["25812"].work.rights.evidence == "is_public_domain=0; artist died 1910; made 1884"
    assert {f.work.rights.access for f in museum.find(Name("Picasso", find=(36198,)))} == {Access.RESTRICTED}


def test_what_is_not_usable_has_its_reason(museum: Artic) -> None:
    """Another hand, no image and another class are told; they are listed last."""
    found = museum.find(Name("Winslow Homer", classification=("Painting",)))
    reasons = {each.work.object_id: each.decision.reason for each in found if each.decision}
    assert reasons == {"25810": "attribution is 'After Winslow Homer'", "25811": "no image published"}
    assert {each.work.object_id for each in found[-2:]} == {"25810", "25811"}


def test_slips_and_namesakes_are_told(museum: Artic) -> None:
    """A slip suggests, two artists of one name need an id, and a fund is no artist."""
    with pytest.raises(InputError, match="no artist 'Winslow Homr'; nearest are Winslow Homer"):
        museum.find(Name("Winslow Homr"))
    with pytest.raises(
        InputError, match=r"names 2 artists: 2001 \(1885-1941\), 2002 \(1749-1814\); put the id into find"
    ):
        museum.find(Name("Robert Delaunay"))
    assert museum.find(Name("Delaunay", find=(2001,))) == []
    with pytest.raises(InputError, match="no artist 'Homer Fund'"):
        museum.find(Name("Homer Fund"))


def test_image_comes_at_the_size_asked_for(museum: Artic) -> None:
    """The image is asked for through the same IIIF rules."""
    work = by_id(museum.find(Name("Winslow Homer")))["25800"].work
    received = museum.receive(work)
    assert size_of(received.content) == (300, 200)
    assert not received.capped


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"data": [{"id": "x"}]}', b'{"data": 5, "config": 1}'])
def test_nonsense_for_an_answer_is_told(
    museum: Artic, server: LocalArtic, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """An answer of another shape is one line that names the address."""
    monkeypatch.setattr(server, "answer", lambda asked: Reply(200, body))
    with pytest.raises(FetchError, match=r"/agents/search.*: not an answer of the museum's API"):
        museum.find(Name("Winslow Homer"))


RECIPE = """
seed = 3
[museum]
kind = "artic"
api = "{api}"

[[artists]]
name = "Winslow Homer"
works = 3
classification = ["Painting"]
trigger = "in the style of winslow homer"

[[artists]]
name = "Mary Cassatt"
works = 3
trigger = "in the style of mary cassatt"

[base]
model = "{model}"
resolution = 64

[collect]
pause = 0
max_edge = 128

[curate]
min_sharpness = 0.0

[train]
steps = 2
batch = 2
precision = "fp32"

[generate]
stops = 2
steps = 1
scenes = [{{ prompt = "a boat" }}]
"""


def test_works_flow_through_to_an_adapter(server: LocalArtic, tiny_sd: Path, tmp_path: Path) -> None:
    """From the API to trained adapters whose cards name the museum's accession numbers and rights."""
    path = tmp_path / "chicago.toml"
    path.write_text(RECIPE.format(api=server.api, model=tiny_sd), encoding="utf-8")
    space = pipeline.run(load(path), tmp_path / "runs", lambda _: None, until="train")
    kept = [row for row in space.read_ledger() if row["decision"] == "kept"]
    assert {(row["museum"], row["rights"]) for row in kept} == {("artic", "open")}
    for name in ("winslow-homer", "mary-cassatt"):
        card = json.loads((space.adapter(name) / "card.json").read_text(encoding="utf-8"))
        assert card["rights"]["open"] == 3
        text = (space.adapter(name) / "README.md").read_text(encoding="utf-8")
        own = [row["accession"] for row in kept if row["artist"].lower().replace(" ", "-") == name]
        assert len(own) == 3
        assert all(number in text for number in own)
        assert (space.adapter(name) / "pytorch_lora_weights.safetensors").stat().st_size > 1000


def test_rights_gate_stands_before_this_museum_too(server: LocalArtic, tiny_sd: Path, tmp_path: Path) -> None:
    """Picasso's works, which the museum does not release, stop the run as they do elsewhere."""
    path = tmp_path / "chicago.toml"
    text = RECIPE.format(api=server.api, model=tiny_sd).replace("Mary Cassatt", "Pablo Picasso")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="only 0 of 3 images are open"):
        pipeline.run(load(path), tmp_path / "runs", lambda _: None, until="collect")


def test_works_lists_it(
    server: LocalArtic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`avignon works --artic` takes the same options."""
    monkeypatch.setattr("avignon.recipe.ArticMuseum", lambda kind: ArticMuseum(kind=kind, api=server.api, pause=0))
    with pytest.raises(SystemExit) as left:
        cli.main(["works", "Winslow Homer", "--artic", "--open-only", "--like", "herring", "--csv"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("25800,The Herring Net,1880–84,Oil on canvas,Painting,900,600,open,")

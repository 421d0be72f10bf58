"""The Art Institute of Chicago through the same protocol: records become works or reasons, and works an adapter."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from avignon import pipeline
from avignon.cli import main as cli
from avignon.core.errors import FetchError, InputError
from avignon.core.imaging import size_of
from avignon.core.records import Access, Found
from avignon.museums import http, registry
from avignon.museums.artic import Artic, ArticMuseum
from avignon.museums.http import USER_AGENT, Fetcher
from avignon.museums.iiif import Images
from avignon.museums.protocol import ArtistQuery, FetchSettings
from avignon.museums.settings import OnlineMuseum
from avignon.recipe.load import load_recipe
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
    found = museum.find(ArtistQuery(wanted))
    assert set(by_id(found)) == {"25800", "25801", "25802", "25803", "25810", "25811", "25812", "25813"}
    assert {asked.headers["aic-user-agent"] for asked in server.asked} == {USER_AGENT}


def test_record_becomes_a_work(museum: Artic, server: LocalArtic) -> None:
    """Title, number, dates, medium, class, terms, size, page and image are the museum's own."""
    work = by_id(museum.find(ArtistQuery("Winslow Homer")))["25802"].work
    assert (work.title, work.accession, work.date) == ("After the Hurricane", "1933.802", "1882–86")
    assert (work.begin, work.end, work.medium, work.classification) == (1882, 1886, "Oil on canvas", "Painting")
    assert (work.terms, work.width, work.height) == (("seascapes", "boats"), 900, 600)
    assert work.page == "https://www.artic.edu/artworks/25802"
    assert work.image_url.startswith(f"{server.url}/iiif/2/00025802-")
    assert work.depicts == "A work made of oil on canvas."


def test_displayed_date_stands_in_for_missing_years(museum: Artic) -> None:
    """A record without years of its own has those of the date that it displays."""
    found = by_id(museum.find(ArtistQuery("Winslow Homer")))
    assert (found["25813"].work.begin, found["25813"].work.end) == (1880, 1884)
    assert "made 1884" in found["25813"].work.rights.evidence


def test_rights_are_the_museums_word_on_each_work(museum: Artic) -> None:
    """Public domain is open, what is not called so is restricted, and no word at all is unknown."""
    found = by_id(museum.find(ArtistQuery("Winslow Homer")))
    assert found["25800"].work.rights.access is Access.OPEN
    assert found["25812"].work.rights.access is Access.RESTRICTED
    assert found["25813"].work.rights.access is Access.UNKNOWN
    assert found["25812"].work.rights.evidence == "is_public_domain=0; artist died 1910; made 1884"
    assert {f.work.rights.access for f in museum.find(ArtistQuery("Picasso", find=(36198,)))} == {Access.RESTRICTED}


def test_what_is_not_usable_has_its_reason(museum: Artic) -> None:
    """Another hand, no image and another class are told; they are listed last."""
    found = museum.find(ArtistQuery("Winslow Homer", classification=("Painting",)))
    reasons = {each.work.object_id: each.decision.reason for each in found if each.decision}
    assert reasons == {"25810": "attribution is 'After Winslow Homer'", "25811": "no image published"}
    assert {each.work.object_id for each in found[-2:]} == {"25810", "25811"}


def test_slips_and_namesakes_are_told(museum: Artic) -> None:
    """A slip suggests, two artists of one name need an id, and a fund is no artist."""
    with pytest.raises(InputError, match="no artist 'Winslow Homr'; nearest are Winslow Homer"):
        museum.find(ArtistQuery("Winslow Homr"))
    with pytest.raises(
        InputError, match=r"names 2 artists: 2001 \(1885-1941\), 2002 \(1749-1814\); put the id into find"
    ):
        museum.find(ArtistQuery("Robert Delaunay"))
    assert museum.find(ArtistQuery("Delaunay", find=(2001,))) == []
    with pytest.raises(InputError, match="no artist 'Homer Fund'"):
        museum.find(ArtistQuery("Homer Fund"))


def test_image_comes_at_the_size_asked_for(museum: Artic) -> None:
    """The image is asked for through the same IIIF rules."""
    work = by_id(museum.find(ArtistQuery("Winslow Homer")))["25800"].work
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
        museum.find(ArtistQuery("Winslow Homer"))


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
num_inference_steps = 1
scenes = [{{ prompt = "a boat" }}]
"""


@pytest.mark.slow
def test_works_flow_through_to_an_adapter(server: LocalArtic, tiny_sd: Path, tmp_path: Path) -> None:
    """From the API to trained adapters whose cards name the museum's accession numbers and rights."""
    path = tmp_path / "chicago.toml"
    path.write_text(RECIPE.format(api=server.api, model=tiny_sd), encoding="utf-8")
    space = pipeline.run(load_recipe(path), tmp_path / "runs", lambda _: None, until="train")
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
        pipeline.run(load_recipe(path), tmp_path / "runs", lambda _: None, until="collect")


def test_works_lists_it(
    server: LocalArtic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`avignon works --artic` takes the same options."""
    monkeypatch.setattr(
        "avignon.museums.artic.ArticMuseum", lambda kind: ArticMuseum(kind=kind, api=server.api, pause=0)
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["works", "Winslow Homer", "--artic", "--open-only", "--like", "herring", "--csv"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("25800,The Herring Net,1880–84,Oil on canvas,Painting,900,600,open,")


# Labels (issue 14, C): other scripts and brackets are part of a name, qualifiers are not


def labelled(server: LocalArtic, title: str, display: str | None, alt: list[str] | None = None) -> None:
    """One artist of a name with one work that is labelled so."""
    agent = {"id": 5, "title": title, "alt_titles": alt, "birth_date": 1760, "death_date": 1849, "is_artist": True}
    work = {**server.records["artworks"][0], "id": 50, "artist_id": 5, "artist_title": title, "artist_display": display}
    server.records = {"agents": [agent], "artworks": [work]}


@pytest.mark.parametrize(
    ("title", "display", "alt"),
    [
        ("Katsushika Hokusai", "Katsushika Hokusai 葛飾 北斎\nJapanese, 1760-1849\nPublisher: Hibino Yohachi", None),
        ("Katsushika Hokusai", "Katsushika Hokusai 葛飾 北斎 (Japanese, 1760–1849)", None),
        ("Katsushika Hokusai", "葛飾 北斎", ["葛飾 北斎"]),
        ("Katsushika Hokusai 葛飾 北斎", "Katsushika Hokusai\nJapanese, 1760-1849", None),
        (
            "Le Corbusier (Charles-Édouard Jeanneret)",
            "Le Corbusier (Charles-Édouard Jeanneret)\nFrench, 1887–1965",
            None,
        ),
        ("Le Corbusier (Charles-Édouard Jeanneret)", "Le Corbusier\nFrench, 1887–1965", None),
        ("Le Corbusier", "Le Corbusier (Charles-Édouard Jeanneret) (French, 1887–1965)", None),
        ("Brassaï (Gyula Halász)", "Brassaï (Gyula Halász)\nFrench, born Transylvania, 1899–1984", None),
        ("Brassaï", "Brassai (Gyula Halász, French, 1899–1984)", None),
        ("El Greco (Domenico Theotokópoulos)", "El Greco (Domenikos Theotokopoulos)\nGreek, 1541–1614", None),
        ("El Greco", "Doménikos Theotokópoulos\nGreek, 1541–1614", ["Theotokópoulos, Doménikos"]),
        ("Winslow Homer", "Winslow Homer (American, 1836–1910)", None),
        ("Winslow Homer", "Winslow Homer, American, 1836–1910", None),
        ("Winslow Homer", "Homer, Winslow", None),
        ("Winslow Homer", "Winslow Homer (American, died after 1910)", None),
        ("Winslow Homer", "Winslow Homer (American)", None),
        ("Winslow Homer", "Winslow Homer (American, 1836", None),
        ("Winslow Homer", "", None),
        ("Winslow Homer", None, None),
    ],
)
def test_label_that_names_the_artist_is_kept(
    museum: Artic, server: LocalArtic, title: str, display: str | None, alt: list[str] | None
) -> None:
    """A name in another script, in brackets, with dates or in another spelling is the artist's own."""
    labelled(server, title, display, alt)
    (found,) = museum.find(ArtistQuery("X", find=(5,)))
    assert found.decision is None


@pytest.mark.parametrize(
    "display",
    ["After Winslow Homer", "Attributed to Winslow Homer (American, 1836–1910)", "Winslow Homer (attributed to)",
     "Winslow Homer (American, 1836–1910) and workshop", "Winslow Homer ?", "Winslow Homer (?)",
     "School of Hokusai 葛飾", "Winslow Homer (follower of)", "John La Farge (American, 1835–1910)", "北斎"],
)  # fmt: skip
def test_label_that_doubts_is_not(museum: Artic, server: LocalArtic, display: str) -> None:
    """A qualifier before, behind or in brackets, and another's name, are the reason in the ledger."""
    labelled(server, "Winslow Homer", display)
    (found,) = museum.find(ArtistQuery("X", find=(5,)))
    assert found.decision is not None
    assert found.decision.reason == f"attribution is {display!r}"


@pytest.mark.parametrize(
    "wanted", ["Le Corbusier", "Charles-Édouard Jeanneret", "le corbusier (charles-edouard jeanneret)"]
)
def test_artist_is_found_by_each_part_of_the_name(museum: Artic, server: LocalArtic, wanted: str) -> None:
    """The name before the brackets, within them, and whole."""
    labelled(server, "Le Corbusier (Charles-Édouard Jeanneret)", None)
    server.records["agents"][0]["title"] = "Le Corbusier (Charles-Édouard Jeanneret)"
    assert len(museum.find(ArtistQuery(wanted))) == 1


# More records than a guest may page through (issue 14, C)


def many(server: LocalArtic, count: int) -> None:
    """So many works of Homer's, in no order of their ids."""
    first = server.records["artworks"][0]
    server.records["artworks"] = [{**first, "id": 1 + number * 7919 % 100_003} for number in range(count)]
    server.page_size = 100


def test_all_records_come_though_guests_page_through_a_thousand(museum: Artic, server: LocalArtic) -> None:
    """2,345 works are listed, each once, and the museum never sees a request beyond its 1,000th record."""
    many(server, 2345)
    found = museum.find(ArtistQuery("Winslow Homer"))
    assert len({each.work.object_id for each in found}) == len(found) == 2345
    assert len([asked for asked in server.asked if "artworks" in asked.path]) == 24


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 200])
def test_page_borders(museum: Artic, server: LocalArtic, count: int) -> None:
    """No work is lost or doubled where a page ends."""
    many(server, count)
    assert len(museum.find(ArtistQuery("Winslow Homer"))) == count


def test_records_that_do_not_come_are_told(server: LocalArtic) -> None:
    """A server that does not sort as asked gives what it gives, and a warning counts the others."""
    many(server, 300)
    server.sorts = False
    warnings: list[str] = []
    with Fetcher(pause=0) as fetcher:
        found = Artic(server.api, Images(fetcher, 300), warnings.append, year=2026).find(ArtistQuery("Winslow Homer"))
    assert 0 < len(found) < 300
    (text,) = warnings
    assert text == (f"{server.api}: Winslow Homer: {len(found)} of 300 records came; the others are not considered")


# What the museum asks of programs (issue 14, C): pace, widths, a contact


@pytest.mark.parametrize(
    ("table", "collect", "pause"),
    [
        ('kind = "artic"', "", 1.0),
        ('kind = "nga"', "", 0.2),
        ('kind = "artic"\npause = 3', "", 3.0),
        ('kind = "artic"', "pause = 0.5", 0.5),
        ('kind = "artic"\npause = 3', "pause = 0", 0.0),
        ('kind = "nga"', "pause = 2", 2.0),
    ],
)
def test_pace_is_the_museums_unless_the_recipe_sets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, collect: str, pause: float
) -> None:
    """A recipe that says nothing waits as the museum asks; `collect.pause` stands above it."""
    path = tmp_path / "a.toml"
    text = RECIPE.format(api="https://museum.test", model="embedded").replace("pause = 0\n", f"{collect}\n")
    text = text.replace('kind = "artic"\napi = "https://museum.test"', table)
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(path)
    assert isinstance(recipe.museum, OnlineMuseum)
    with http.client_of(recipe.museum, FetchSettings(pause=recipe.collect.pause)) as fetcher:
        assert fetcher._pause == pause
    again = tmp_path / "b.toml"
    again.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(again).collect.pause == recipe.collect.pause  # The run's own copy is as polite.


def test_contact_goes_to_the_museum_and_into_no_file(server: LocalArtic, tmp_path: Path) -> None:
    """The address of whoever runs it is in the User-Agent of every request; recipe, card and list do not have it."""
    path = tmp_path / "chicago.toml"
    text = RECIPE.format(api=server.api, model="embedded").replace("[museum]", '[museum]\ncontact = "me@museum.test"')
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(path)
    space = pipeline.run(recipe, tmp_path / "runs", lambda _: None, until="collect")
    assert all("me@museum.test" in asked.headers["user-agent"] for asked in server.asked)
    assert all(
        "me@museum.test" in asked.headers["aic-user-agent"] for asked in server.asked if asked.path.startswith("/api")
    )
    assert "me@museum.test" not in recipe.to_toml() + json.dumps(recipe.model_dump(mode="json"))
    files = [file for file in space.root.rglob("*") if file.is_file()]
    assert not [file for file in files if b"me@museum.test" in file.read_bytes()]


@pytest.mark.parametrize("contact", ["me@museum.test\\nX-Evil: 1", "Zoë", "a (b)"])
def test_contact_fits_into_a_header(tmp_path: Path, contact: str) -> None:
    """What cannot stand in a User-Agent is told with the recipe."""
    path = tmp_path / "chicago.toml"
    text = RECIPE.format(api="https://museum.test", model="embedded")
    path.write_text(text.replace("[museum]", f'[museum]\ncontact = "{contact}"'), encoding="utf-8")
    with pytest.raises(InputError, match=r"museum\.contact"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("true", "max_edge", "asked"),
    [
        ((4000, 3000), 2048, "1686,"),
        ((3000, 4000), 2048, "843,"),  # 1686 wide would be 2248 high.
        ((3000, 4000), 2400, "1686,"),
        ((4000, 3000), 1000, "843,"),
        ((1200, 800), 2048, "843,"),
        ((800, 600), 2048, "!800,600"),  # Never more than the true size.
        ((4000, 3000), 600, "!600,450"),
        ((1000, 1000), 1000, "843,"),
    ],
)
def test_cached_widths_are_asked_for(server: LocalArtic, true: tuple[int, int], max_edge: int, asked: str) -> None:
    """The largest of the museum's ready widths within the limit; another size only where none fits."""
    record = server.records["artworks"][0]
    record["thumbnail"] = {**record["thumbnail"], "width": true[0], "height": true[1]}
    museum = ArticMuseum(kind="artic", api=server.api)
    with registry.opened(museum, FetchSettings(pause=0, max_edge=max_edge), lambda _: None) as opened:
        work = by_id(opened.find(ArtistQuery("Winslow Homer")))["25800"].work
        received = opened.receive(work)
        assert "widths 843, 1686" in opened.source(work)
    assert server.asked[-1].path.endswith(f"/full/{asked}/0/default.jpg")
    assert max(size_of(received.content)) <= max_edge


def test_listing_tells_warnings(
    server: LocalArtic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`avignon works --artic` says what a listing lacks, beside the listing."""
    many(server, 300)
    server.sorts = False
    monkeypatch.setattr(
        "avignon.museums.artic.ArticMuseum", lambda kind: ArticMuseum(kind=kind, api=server.api, pause=0)
    )
    with pytest.raises(SystemExit):
        cli.main(["works", "Winslow Homer", "--artic", "--csv"])
    assert "of 300 records came" in capsys.readouterr().err


def test_model_card_names_museum_and_program(server: LocalArtic) -> None:
    """In an adapter's card a work without a page names its museum in words, and the program is name and version."""
    from avignon.adapters import cards

    row = {"accession": "1", "object_id": "2", "title": "<i>Sea</i> | _Sky_", "year": "1880", "rights": "open",
           "page": "", "museum": "artic"}  # fmt: skip
    assert cards._line(row) == "| 1 | Sea \\| Sky | 1880 | open | Art Institute of Chicago |"
    assert "{program}" in cards.MODEL_CARD

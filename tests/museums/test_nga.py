"""The National Gallery's tables and images: who made what, which picture, and whether all of it came."""

import csv
import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image

from avignon.core.errors import FetchError, ImageError, InputError
from avignon.core.imaging import size_of
from avignon.core.records import Access, Found
from avignon.museums import catalog
from avignon.museums.http import Fetcher
from avignon.museums.iiif import Images
from avignon.museums.nga import Nga
from avignon.museums.protocol import ArtistQuery
from tests.support.museum import COLUMNS, Fault, LocalMuseum, fill
from tests.support.paths import SHARED_TABLES
from tests.support.tables import FromFolder

"""Tables of the real museum, where they lie beside the checkout; few have them."""


@pytest.fixture
def own() -> Iterator[LocalMuseum]:
    """A museum of one's own, with nothing in it but Winslow Homer."""
    with LocalMuseum() as server:
        server.add_artist(1401, "Homer, Winslow", "Winslow Homer", begin=1836, end=1910)
        yield server


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    """A client without pauses."""
    with Fetcher(pause=0, timeout=5) as client:
        yield client


def nga(server: LocalMuseum, fetcher: Fetcher, *, max_edge: int = 2048) -> Nga:
    """The museum read as in 2026."""
    return at(f"{server.url}/data", fetcher, max_edge=max_edge)


def at(tables: str, fetcher: Fetcher, *, max_edge: int = 2048) -> Nga:
    """A museum by the address of its tables, read as in 2026."""
    return Nga(catalog.update(tables, fetcher, accept_fewer=True), Images(fetcher, max_edge), year=2026)


def artist(name: str = "Winslow Homer", *find: int | str, classification: tuple[str, ...] = ()) -> ArtistQuery:
    """An artist of a recipe."""
    return ArtistQuery(name, find, classification)


def usable(found: list[Found]) -> list[str]:
    """Ids of the works that no reason rules out."""
    return [each.work.object_id for each in found if each.decision is None]


def reason(found: list[Found], number: int) -> str:
    """Why a work is ruled out."""
    (decision,) = (each.decision for each in found if each.work.object_id == str(number))
    return decision.reason if decision else ""


@pytest.mark.parametrize("wanted", ["Winslow Homer", "Homer, Winslow", "WINSLOW homer", "Wínslow Hömer", 1401])
def test_artist_is_found(museum: LocalMuseum, fetcher: Fetcher, wanted: int | str) -> None:
    """By name in both orders, whatever case and accents, or by id: one and the same person's works."""
    found = nga(museum, fetcher).find(artist("The Sailor", wanted))
    assert len(usable(found)) == 15
    assert {each.work.artist for each in found} == {"The Sailor"}
    assert {each.work.attributed for each in found} == {"Winslow Homer"}


@pytest.mark.parametrize(("slip", "meant"), [("Winslow Homr", "Winslow Homer"), ("Gris", "Juan Gris")])
def test_unknown_artist_suggests(museum: LocalMuseum, fetcher: Fetcher, slip: str, meant: str) -> None:
    """A name that nobody bears is an error with the nearest names."""
    with pytest.raises(InputError, match=rf"no artist '{slip}'; nearest are {meant}"):
        nga(museum, fetcher).find(artist(slip))


def test_only_artists_are_found(museum: LocalMuseum, fetcher: Fetcher) -> None:
    """A donor is no artist, by name or by id; an id that nobody has is an error."""
    for wanted in ("Marina Picasso", 847, 123456):
        with pytest.raises(InputError, match=f"no artist '{wanted}'"):
            nga(museum, fetcher).find(artist("X", wanted))


def test_namesakes_are_not_merged(own: LocalMuseum, fetcher: Fetcher) -> None:
    """Two artists of one name are told apart by id, never taken for one."""
    own.add_artist(5, "Homer, Winslow", "Winslow Homer", begin=1700, end=1750, nationality="British")
    own.add_work(1, 1401, "One")
    own.add_work(2, 5, "Other")
    with pytest.raises(
        InputError, match=r"names 2 artists: 5 \(British, 1700 - 1750\), 1401 \(1836 - 1910\); put the id"
    ):
        nga(own, fetcher).find(artist())
    assert usable(nga(own, fetcher).find(artist("Homer", 5))) == ["2"]


@pytest.mark.parametrize("role", ["artist", "painter", "printmaker"])
def test_own_hand_is_accepted(own: LocalMuseum, fetcher: Fetcher, role: str) -> None:
    """Who is the work's artist, painter or printmaker made it."""
    own.add_work(1, 1401, "A Work", role=role)
    assert usable(nga(own, fetcher).find(artist())) == ["1"]


@pytest.mark.parametrize("role", ["artist after", "publisher", "related artist"])
def test_other_hands_are_rejected(own: LocalMuseum, fetcher: Fetcher, role: str) -> None:
    """A wood engraving cut after him by another is in the list with the reason, and not among his works."""
    own.add_work(1, 1401, "A Work", role=role)
    found = nga(own, fetcher).find(artist())
    assert usable(found) == []
    assert reason(found, 1) == f"role is {role!r}, not the artist's own hand"


@pytest.mark.parametrize(
    ("prefix", "doubt"),
    [("", ""), ("and", ""), (",", ""), ("Attributed to", "Attributed to"), ("Circle of ", "Circle of"), ("?", "?"),
     ("after", "after"), ("or", "or"), ("Probably", "Probably")],
)  # fmt: skip
def test_doubted_attribution_is_rejected(own: LocalMuseum, fetcher: Fetcher, prefix: str, doubt: str) -> None:
    """A prefix that joins names is none; one that doubts the authorship is the reason."""
    own.add_work(1, 1401, "A Work")
    own._rows["objects_constituents"][0]["prefix"] = prefix
    assert reason(nga(own, fetcher).find(artist()), 1) == (f"attribution is {doubt!r}" if doubt else "")


@pytest.mark.parametrize(
    ("displayed", "begin", "end", "years", "said"),
    [
        ("1880", 1873, 1876, (1873, 1876), "made 1876"),
        ("1929–35", None, None, (1929, 1935), "made 1935"),
        ("1929–35", 1929, None, (1929, 1935), "made 1935"),
        ("after 1890", 1890, None, (1890, None), "made in 1890 or later"),
        ("n.d.", None, None, (None, None), "not dated"),
        (
            "model 1880, this cast later",
            None,
            None,
            (None, None),
            "date 'model 1880, this cast later' is not understood",
        ),
    ],
)
def test_displayed_date_stands_in_for_missing_years(
    own: LocalMuseum,
    fetcher: Fetcher,
    displayed: str,
    begin: int | None,
    end: int | None,
    years: tuple[int | None, int | None],
    said: str,
) -> None:
    """The table's own years stand; where the last is missing, the displayed date is read, or it is said."""
    own.add_work(1, 1401, "A Work", displaydate=displayed, beginyear=begin, endyear=end)
    (found,) = nga(own, fetcher).find(artist())
    assert (found.work.begin, found.work.end) == years
    assert said in found.work.rights.evidence


def test_best_of_several_roles_counts(own: LocalMuseum, fetcher: Fetcher) -> None:
    """Who is named twice, once as the artist, made the work; rows of other kinds do not matter."""
    own.add_work(1, 1401, "A Work", role="artist after")
    own.add_role(1, 1401, role="artist")
    own.add_work(2, 1401, "Other", role="artist")
    own.add_role(2, 1401, role="artist after")
    own._rows["objects_constituents"][3]["displayorder"] = 0
    own.add_role(3, 1401, role="artist", roletype="donor")
    assert usable(nga(own, fetcher).find(artist())) == ["1", "2"]


@pytest.mark.parametrize("old", [False, True])
def test_older_and_newer_exports_serve(fetcher: Fetcher, old: bool) -> None:
    """With or without uuid and openaccess, works are found; rights come from what there is, and say so."""
    with LocalMuseum(old_columns=old) as server:
        fill(server)
        homer = [each.work for each in nga(server, fetcher).find(artist()) if each.decision is None]
        picasso = [each.work for each in nga(server, fetcher).find(artist("P", 1783))]
    assert {work.rights.access for work in homer} == {Access.OPEN}
    assert {work.rights.access for work in picasso} == {Access.RESTRICTED}
    assert all(("openaccess not in this export" in work.rights.evidence) is old for work in homer + picasso)
    first = next(work for work in homer if work.object_id == "30228")
    assert (first.title, first.accession, first.date) == ("Breezing Up (A Fair Wind)", "1943.13.1", "1873-1876")
    assert (first.width, first.height, first.terms) == (1200, 800, ("sea",))
    assert first.page.endswith("30228.html")


def test_primary_image_is_chosen(own: LocalMuseum, fetcher: Fetcher) -> None:
    """Of several images the primary one of the lowest sequence is the work's; text counts as last."""
    own.add_work(1, 1401, "A Work", viewtype="alternate")
    late, first, odd = (own.add_image(1, width=10 * n, height=10) for n in (2, 3, 4))
    for row, sequence in zip(own._rows["published_images"], ("0", "10", "2", "cover"), strict=True):
        row["sequence"] = sequence
    (found,) = nga(own, fetcher).find(artist())
    assert found.work.image_url == f"{own.url}/iiif/{first}"
    assert found.work.width == 30
    assert late != odd


def test_object_without_image_has_the_reason(own: LocalMuseum, fetcher: Fetcher) -> None:
    """An object of which no primary image is published is considered, and says so."""
    own.add_work(1, 1401, "A Work", viewtype="alternate")
    assert reason(nga(own, fetcher).find(artist()), 1) == "no image published"


def test_classification_is_asked_for(own: LocalMuseum, fetcher: Fetcher) -> None:
    """Works of another class than the recipe's are rejected; without a wish, paintings come first."""
    own.add_work(1, 1401, "Sheet", classification="Drawing")
    own.add_work(20, 1401, "Canvas")
    own.add_work(3, 1401, "Canvas")
    assert usable(nga(own, fetcher).find(artist())) == ["3", "20", "1"]
    found = nga(own, fetcher).find(artist(classification=("Painting",)))
    assert reason(found, 1) == "classification is Drawing; wanted Painting"


def test_titles_with_line_breaks_and_quotes(own: LocalMuseum, fetcher: Fetcher) -> None:
    """A title over two lines, with commas, quotes and strange line ends, is one line with its quotes."""
    own.add_work(1, 1401, 'The "Fog"\nWarning,\r\n  a\u2028sketch', medium="oil\non canvas", displaydate="1885\n")
    (found,) = nga(own, fetcher).find(artist())
    assert found.work.title == 'The "Fog" Warning, a sketch'
    assert (found.work.medium, found.work.date) == ("oil on canvas", "1885")


TABLES = {"objects": "title", "constituents": "endyear", "objects_constituents": "role",
          "published_images": "maxpixels", "objects_terms": "term"}  # fmt: skip


class Tampered(LocalMuseum):
    """A museum of which one table comes as given."""

    spoiled: tuple[str, str | bytes] = ("", "")

    def table(self, name: str) -> str:
        """The table, or what stands in for it; bytes travel as latin-1 until `answer` sends them."""
        text = self.spoiled[1] if name == self.spoiled[0] else super().table(name)
        return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


@pytest.fixture
def tampered() -> Iterator[Tampered]:
    """A stocked museum that can be tampered with."""
    with Tampered() as server:
        fill(server)
        yield server


@pytest.mark.parametrize(("table", "column"), TABLES.items())
def test_missing_column_is_named(tampered: Tampered, fetcher: Fetcher, table: str, column: str) -> None:
    """Each table is checked for the columns that are read: the error names the table and the column."""
    tampered.spoiled = table, re.sub(rf"\b{column}\b", "renamed", LocalMuseum.table(tampered, table), count=1)
    with pytest.raises(InputError) as caught:
        nga(tampered, fetcher).find(artist())
    lines = str(caught.value)
    assert lines.startswith(f"{tampered.url}/data/{table}.csv: column ")
    assert column in lines.partition(" is missing; there are: ")[0]


@pytest.mark.parametrize(
    ("spoil", "line", "expected"),
    [
        (lambda rows: [*rows[:3], rows[3] + ",more", *rows[4:]], 4, "as many fields as columns are needed"),
        (lambda rows: [*rows[:3], rows[3].rpartition(",")[0], *rows[4:]], 4, "as many fields as columns are needed"),
        (lambda rows: [*rows[:3], '"' + rows[3], *rows[4:]], 4, "not CSV: "),
        (lambda rows: [*rows[:3], '"1"' + rows[3], *rows[4:]], 4, "not CSV: ',' expected after"),
    ],
)
def test_broken_row_is_named_by_line(
    tampered: Tampered, fetcher: Fetcher, spoil: object, line: int, expected: str
) -> None:
    """Ragged rows and broken quotes are one error that names the table and the line where the row begins."""
    assert callable(spoil)
    rows = LocalMuseum.table(tampered, "objects").splitlines()
    tampered.spoiled = "objects", "\n".join(spoil(rows)) + "\n"
    with pytest.raises(InputError) as caught:
        nga(tampered, fetcher).find(artist())
    assert str(caught.value).startswith(f"{tampered.url}/data/objects.csv: line {line}: {expected}")


def test_wrong_encoding_is_named_by_line(tmp_path: Path) -> None:
    """A table that is not UTF-8 is an error at the very line, however far into the file it is."""
    rows = [",".join(COLUMNS["constituents"].split())] + ["1" + "," * 14] * 3000
    rows[2500] = "Léger" + "," * 14
    for table, columns in COLUMNS.items():
        (tmp_path / f"{table}.csv").write_text(",".join(columns.split()) + "\n")
    (tmp_path / "constituents.csv").write_bytes("\n".join(rows).encode("latin-1"))
    with pytest.raises(InputError, match=r"constituents\.csv: line 2501: not UTF-8"):
        at("https://museum.test/data", FromFolder(tmp_path)).find(artist())


def test_page_in_place_of_a_table_is_shown(museum: LocalMuseum, fetcher: Fetcher) -> None:
    """A sign-in page in place of a table is an error that shows what came."""
    museum.fault("/data/constituents", Fault.html())
    with pytest.raises(InputError, match=r"constituents\.csv: column .* is missing; there are: <!doctype html>"):
        nga(museum, fetcher).find(artist())


# Images


def homer(server: LocalMuseum, fetcher: Fetcher, number: str = "30228") -> Found:
    """One of Homer's works."""
    return next(f for f in nga(server, fetcher).find(artist()) if f.work.object_id == number)


@pytest.mark.parametrize(("max_edge", "size"), [(600, (600, 400)), (1200, (1200, 800)), (4096, (1200, 800))])
def test_no_more_than_the_true_size_is_asked_for(
    museum: LocalMuseum, fetcher: Fetcher, max_edge: int, size: tuple[int, int]
) -> None:
    """info.json is asked first, and then for the true size or the recipe's limit, whichever is less."""
    work = homer(museum, fetcher).work
    limited = nga(museum, fetcher, max_edge=max_edge)
    before = len(museum.requests)
    received = limited.receive(work)
    info, image = (path for _, path in museum.requests[before:])
    assert info.endswith("/info.json")
    assert image.endswith(f"/full/!{size[0]},{size[1]}/0/default.jpg")
    assert size_of(received.content) == size
    assert (received.suffix, received.capped) == (".jpg", False)


def test_table_may_lie_about_the_size(museum: LocalMuseum, fetcher: Fetcher) -> None:
    """The size asked for is info.json's, not the table's."""
    work = replace(homer(museum, fetcher).work, width=9999, height=9999)
    assert size_of(nga(museum, fetcher).receive(work).content) == (1200, 800)


def test_source_changes_with_the_size_asked_for(museum: LocalMuseum, fetcher: Fetcher) -> None:
    """What would be received is told apart by image and limit, so that a run knows what it has already."""
    work = homer(museum, fetcher).work
    asked = {nga(museum, fetcher, max_edge=edge).source(work) for edge in (600, 601, 600)}
    assert len(asked) == 2
    assert all(each.startswith(work.image_url) for each in asked)


@pytest.mark.parametrize("info_redirects", [False, True])
def test_capped_image_is_recognised(own: LocalMuseum, fetcher: Fetcher, info_redirects: bool) -> None:
    """An image that the museum answers with its small stand-in (303 to __900) is marked as capped."""
    own.info_redirects = info_redirects
    own.add_work(1, 1401, "A Work", openaccess=0, maxpixels=900, width=1400, height=1000)
    (found,) = nga(own, fetcher).find(artist())
    received = nga(own, fetcher).receive(found.work)
    assert received.capped
    assert found.work.rights.access is Access.RESTRICTED


def test_fewer_pixels_than_promised_are_an_error(own: LocalMuseum, fetcher: Fetcher) -> None:
    """An image smaller than info.json said is refused with both sizes."""
    small, large = Image.new("RGB", (600, 400)), Image.new("RGB", (300, 200))
    name = own.add_work(1, 1401, "A Work", image=small)
    (found,) = nga(own, fetcher).find(artist())
    jpeg = httpx.get(f"{own.url}/iiif/{own.add_work(2, 1401, 'B', image=large)}/full/max/0/default.jpg").content
    own.fault(f"{name}/full", Fault(body=jpeg), times=4)
    with pytest.raises(ImageError, match=r"300×200 pixels came where 600×400 were promised"):
        nga(own, fetcher).receive(found.work)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"width": 5}', b'{"width": 0, "height": 9}', b'{"width": Infinity, "height": 9}']
)
def test_nonsense_for_info_is_an_error(museum: LocalMuseum, fetcher: Fetcher, body: bytes) -> None:
    """What is no description of an image is refused by its address."""
    work = homer(museum, fetcher).work
    museum.fault("info.json", Fault(body=body), times=4)
    with pytest.raises(FetchError, match=r"info\.json: not a IIIF description with width and height"):
        nga(museum, fetcher).receive(work)


def test_image_that_is_not_there(museum: LocalMuseum, fetcher: Fetcher) -> None:
    """An unknown image, which the museum redirects to nowhere, is an error."""
    work = replace(homer(museum, fetcher).work, image_url=f"{museum.url}/iiif/no-such")
    with pytest.raises(FetchError, match="404"):
        nga(museum, fetcher).receive(work)


# The real tables


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real constituents and their parts in objects; objects made up for some, since that table is not here."""
    people, parts = SHARED_TABLES / "constituents.csv.gz", SHARED_TABLES / "objects_constituents.2021.csv.gz"
    if not (people.exists() and parts.exists()):
        pytest.skip("the real museum's tables are not here")
    folder = tmp_path_factory.mktemp("real")
    (folder / "constituents.csv").write_bytes(gzip.decompress(people.read_bytes()))
    (folder / "objects_constituents.csv").write_bytes(gzip.decompress(parts.read_bytes()))
    with (folder / "objects_constituents.csv").open(encoding="utf-8-sig", newline="") as file:
        numbers = {row["objectid"] for row in csv.DictReader(file) if row["constituentid"] in ("1401", "1783", "847")}
    for table, rows in {"objects": numbers, "published_images": (), "objects_terms": ()}.items():
        columns = COLUMNS[table].split()
        lines = [",".join(columns), *(number + "," * (len(columns) - 1) for number in sorted(rows))]
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("name", "forward", "works"),
    [
        ("Homer, Winslow", "Winslow Homer", 442),
        ("Pablo Picasso", "Pablo Picasso", 321),
        ("Picasso, Pablo", "Pablo Picasso", 321),
    ],
)
def test_real_tables_know_them(real: Path, name: str, forward: str, works: int) -> None:
    """In the real tables the names lead to the right people, and to all their rows of 2021."""
    museum = at("https://museum.test/data", FromFolder(real))
    assert {f.work.attributed for f in museum.find(artist(name))} == {forward}
    found = museum.find(artist(name))
    assert len(found) == works


@pytest.mark.slow
def test_real_engravings_after_homer_are_no_homers(real: Path) -> None:
    """Of Homer's 442 rows of 2021, 345 are 'artist after': other hands made them."""
    found = at("https://museum.test/data", FromFolder(real)).find(artist())
    reasons = [each.decision.reason if each.decision else "" for each in found]
    assert sum("'artist after'" in each for each in reasons) == 345
    assert sum(each == "no image published" for each in reasons) == 96
    assert [each for each in reasons if each.startswith("attribution")] == ["attribution is 'Circle of'"]


@pytest.mark.slow
def test_real_namesakes_are_told_apart(real: Path) -> None:
    """The museum has two painters named Robert Delaunay, 130 years apart."""
    with pytest.raises(
        InputError, match=r"names 2 artists: 1222 \(French, 1885 - 1941\), 3897 \(French, 1749 - 1814\)"
    ):
        at("https://museum.test/data", FromFolder(real)).find(artist("Robert Delaunay"))

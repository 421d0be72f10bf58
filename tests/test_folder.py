"""A directory of one's own scans, with an index and without."""

from collections import Counter
from pathlib import Path

import pytest

from avignon.errors import InputError
from avignon.museums.folder import Folder
from avignon.recipe import Artist
from avignon.records import Access, Found
from tests.conftest import SHARED_ART
from tests.support import images
from tests.support.scans import scan

CUBISTS = {"Juan Gris": 1, "Robert Delaunay": 1, "Albert Gleizes": 1, "Francis Picabia": 3, "Fernand Léger": 1}


def find(path: Path, name: str = "Ann Other", *find: str, classification: tuple[str, ...] = ()) -> list[Found]:
    """What the folder has of an artist, in 2026."""
    return Folder(path, year=2026).find(
        Artist(name=name, find=find, works=1, trigger="t", classification=classification)
    )


def ids(found: list[Found]) -> list[str]:
    """Ids of the works that can be used."""
    return [each.work.object_id for each in found if each.decision is None]


def index(path: Path, text: str, *, encoding: str = "utf-8") -> None:
    """Write the folder's index."""
    (path / "index.csv").write_bytes(text.encode(encoding))


def fault(path: Path, name: str = "Ann Other") -> str:
    """What asking says, without the name of the index it begins with."""
    with pytest.raises(InputError) as caught:
        find(path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path / 'index.csv'}: ").removeprefix(f"{path}: ")


def test_index_with_all_columns(tmp_path: Path) -> None:
    """Every column that is understood reaches the work; true sizes are read from the file."""
    scan(tmp_path / "in" / "a.png", 1, (50, 40))
    index(
        tmp_path,
        "file,artist,title,year,medium,classification,terms,rights,artist_died,credit,object_id,accession,width\n"
        'in/a.png,"Other, ANN","The ""Sea""\nat noon",1880,oil,Painting,sea; boat ;,CC0,1910,mine,77,1900.1,9999\n',
    )
    (found,) = find(tmp_path)
    work = found.work
    assert (work.object_id, work.accession, work.title) == ("77", "1900.1", 'The "Sea" at noon')
    assert (work.artist, work.attributed, work.date, work.medium) == ("Ann Other", "Other, ANN", "1880", "oil")
    assert (work.terms, work.credit, work.classification) == (("sea", "boat"), "mine", "Painting")
    assert (work.rights.access, work.width, work.height) == (Access.OPEN, 50, 40)
    assert Folder(tmp_path).receive(work).content == (tmp_path / "in" / "a.png").read_bytes()


def test_index_of_files_alone(tmp_path: Path) -> None:
    """Only `file` is needed, with a byte order mark or none; titles come from names, and rights are not assumed."""
    scan(tmp_path / "the_long-wave.png", 1)
    index(tmp_path, "file\nthe_long-wave.png\n", encoding="utf-8-sig")
    (found,) = find(tmp_path)
    assert (found.work.title, found.work.object_id) == ("the long wave", "the-long-wave")
    assert found.work.rights.access is Access.UNKNOWN


def test_rights_come_from_the_index(tmp_path: Path) -> None:
    """Each row's rights are those it states, or those of an artist long dead."""
    rows = ["file,rights,artist_died"]
    for number, said in enumerate(("CC0,", "in copyright,1910", ",1910", ",1990", ",c. 1900")):
        scan(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{said}")
    index(tmp_path, "\n".join(rows) + "\n")
    access = [each.work.rights.access.value for each in find(tmp_path)]
    assert access == ["open", "restricted", "open", "restricted", "unknown"]


@pytest.mark.parametrize(
    ("columns", "access", "years"),
    [
        # A range in short ends in its last year: 1931 is protected in the United States through 2026.
        ({"year": "1930-31", "artist_died": "1954"}, "unknown", (1930, 1931)),
        ({"year": "1929–35", "artist_died": "1954"}, "unknown", (1929, 1935)),
        ({"date": "1929–30", "artist_died": "1954"}, "open", (1929, 1930)),
        ({"year": "c. 1885", "artist_died": "1910"}, "open", (1880, 1890)),
        ({"year": "1885.0", "artist_died": "1910.0"}, "open", (1885, 1885)),
        ({"year": "", "date": "1890s", "artist_died": "1910"}, "open", (1890, 1899)),
        ({"year": "n.d.", "date": "1885", "artist_died": "March 1910"}, "open", (1885, 1885)),
        ({"year": "n.d.", "artist_died": "1910"}, "open", (None, None)),
        # Without a last year, the artist's death is the last; a later year speaks against that.
        ({"year": "after 1890", "artist_died": "1910"}, "open", (1890, None)),
        ({"year": "after 1890", "artist_died": "1955"}, "unknown", (1890, None)),
        ({"year": "after 1920", "artist_died": "1910"}, "unknown", (1920, None)),
        ({"year": "1885, cast 1990", "artist_died": "1910"}, "unknown", (1885, 1990)),
        ({"year": "after 1890"}, "unknown", (1890, None)),
        ({"year": "18th century"}, "open", (1701, 1800)),
        ({"year": "1800s"}, "unknown", (1800, 1899)),
        # Statements come before age, understood or not.
        ({"year": "1885", "artist_died": "1910", "rights": "(C) 2019 The Museum"}, "restricted", (1885, 1885)),
        ({"year": "1885", "artist_died": "1910", "rights": "ask the museum"}, "unknown", (1885, 1885)),
        ({"year": "1885", "artist_died": "1910", "rights": "  "}, "open", (1885, 1885)),
        ({"year": "1937", "artist_died": "1973", "rights": "Public domain from 2044"}, "restricted", (1937, 1937)),
        ({"year": "1925", "artist_died": "1973", "rights": "public domain (USA only)"}, "unknown", (1925, 1925)),
    ],
)
def test_dates_and_statements_of_an_index(
    tmp_path: Path, columns: dict[str, str], access: str, years: tuple[int | None, int | None]
) -> None:
    """What an index writes of years and rights gives the years that are meant, and never more freedom than it says."""
    scan(tmp_path / "a.png", 1)
    fields = ",".join(f'"{value}"' for value in columns.values())
    index(tmp_path, f"file,{','.join(columns)}\na.png,{fields}\n")
    (found,) = find(tmp_path)
    assert found.work.rights.access.value == access
    assert (found.work.begin, found.work.end) == years
    assert "not understood" not in found.work.rights.evidence or access != "open"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"year": "cast by the estate", "artist_died": "1910"},
            "not dated; date 'cast by the estate' is not understood",
        ),
        (
            {"year": "1885", "artist_died": "c. 1910"},
            "year of death unknown; made 1885; year of death 'c. 1910' is not",
        ),
        ({"year": "1885", "artist_died": "still alive"}, "year of death 'still alive' is not understood"),
        ({"year": "1885", "artist_died": "after 1910"}, "year of death 'after 1910' is not understood"),
        ({"artist_died": "1910", "rights": "CC BY 4.0, Jane Doe"}, "'CC BY 4.0, Jane Doe'; not understood: 'jane doe'"),
    ],
)
def test_what_an_index_says_and_nobody_reads_is_said(tmp_path: Path, columns: dict[str, str], said: str) -> None:
    """A date, year of death or statement that is not understood stands in the evidence, and age opens nothing."""
    scan(tmp_path / "a.png", 1)
    fields = ",".join(f'"{value}"' for value in columns.values())
    index(tmp_path, f"file,{','.join(columns)}\na.png,{fields}\n")
    (found,) = find(tmp_path)
    assert found.work.rights.access is Access.UNKNOWN
    assert said in found.work.rights.evidence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file\na.png\nmissing.png\n", "line 3: file: 'missing.png' does not exist"),
        ("file\n../secret.png\n", "line 2: file: '../secret.png' lies outside the folder"),
        ("file\n/etc/hostname\n", "line 2: file: '/etc/hostname' lies outside the folder"),
        ("file,title\n,Nothing\n", "line 2: file: '' does not exist"),
        ("name,title\na.png,A\n", "column file is missing; there are: name, title"),
        ("file;artist\na.png;Ann Other\n", "column file is missing; there are: file;artist"),
        ("", "column file is missing; there are: none"),
        ("file\n", "names no picture"),
        ("file,title\na.png,A,more\n", "line 2: as many fields as columns are needed"),
        ('file,title\na.png,"A\n', "line 2: not CSV: unexpected end of data"),
        ('file,title\na.png,"A"B\n', "line 2: not CSV: ',' expected after '\"'"),
        ("file\na.png\na.png\n", "line 3: object_id 'a' is there twice; each work needs its own"),
        ("file,object_id\na.png,1\nb.png,1\n", "line 3: object_id '1' is there twice; each work needs its own"),
    ],
)
def test_slips_in_the_index_are_named(tmp_path: Path, text: str, expected: str) -> None:
    """What is wrong with an index is told by file, line, field and value."""
    folder = tmp_path / "scans"
    for name in ("a", "b"):
        scan(folder / f"{name}.png", 1)
    scan(tmp_path / "secret.png", 2)
    index(folder, text)
    assert fault(folder) == expected


def test_index_in_another_encoding(tmp_path: Path) -> None:
    """An index that is not UTF-8 is told by line."""
    scan(tmp_path / "a.png", 1)
    index(tmp_path, "file,title\na.png,A\na.png,Léger\n", encoding="latin-1")
    assert fault(tmp_path).startswith("line 3: not UTF-8 (")


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link inside the folder to a file outside is outside."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").symlink_to(scan(tmp_path / "secret.png", 1))
    index(tmp_path / "scans", "file\na.png\n")
    assert fault(tmp_path / "scans") == "line 2: file: 'a.png' lies outside the folder"


def test_two_artists_may_share_a_picture(tmp_path: Path) -> None:
    """One file under two names is a work of each."""
    scan(tmp_path / "a.png", 1)
    index(tmp_path, "file,artist\na.png,Ann Other\na.png,Bo Second\n")
    assert ids(find(tmp_path)) == ids(find(tmp_path, "Bo Second")) == ["a"]


def test_subfolders_name_the_artists(tmp_path: Path) -> None:
    """Without an index, the pictures below a subfolder are its artist's, in whatever order the name is written."""
    for number, place in enumerate(("other_ann/1.png", "other_ann/early/2.png", "Bo Second/3.png")):
        scan(tmp_path / place, number)
    assert ids(find(tmp_path)) == ["other-ann-1", "other-ann-early-2"]
    assert ids(find(tmp_path, "Second, Bo")) == ["bo-second-3"]
    assert fault(tmp_path, "Ann Othr").startswith("no artist 'Ann Othr'; nearest are other_ann")


def test_flat_folder_is_the_artists(tmp_path: Path) -> None:
    """A folder without subfolders and index is all the artist's, each picture once for all of their names."""
    for number in range(3):
        scan(tmp_path / f"{number}.png", number)
    (tmp_path / "notes.txt").write_text("no picture")
    scan(tmp_path / ".hidden.png", 9)
    assert ids(find(tmp_path, "Ann Other", "Ann Other", "A. Other")) == ["0", "1", "2"]


def test_several_names_are_one_artist(tmp_path: Path) -> None:
    """Rows under any of the names in find are the artist's, each once; a name that nobody bears is an error."""
    for number, name in enumerate(("Ann Other", "A. Other", "Bo Second")):
        scan(tmp_path / name / f"{number}.png", number)
    assert len(ids(find(tmp_path, "Ann Other", "Ann Other", "Other, Ann", "A. Other"))) == 2
    with pytest.raises(InputError, match=r"no artist 'C\. Third'"):
        find(tmp_path, "Ann Other", "Ann Other", "C. Third")


def test_files_of_like_names_stay_apart(tmp_path: Path) -> None:
    """Names that look alike when plain, or have no plain letter at all, are works of their own."""
    names = ("a b.png", "a-b.png", "A_B.png", "富士.png", "神奈川.png", "plain.png")
    for number, name in enumerate(names):
        scan(tmp_path / name, number)
    found = ids(find(tmp_path))
    assert len(set(found)) == len(names)
    assert all(found)
    assert "plain" in found


@pytest.mark.parametrize(("content", "expected"), [(False, "no such folder"), (True, "no pictures here; allowed are")])
def test_folder_without_pictures(tmp_path: Path, content: bool, expected: str) -> None:
    """A folder that is not there, or holds no picture, is one clear line."""
    folder = tmp_path / "scans"
    if content:
        (folder / "deep").mkdir(parents=True)
        (folder / "notes.txt").write_text("no picture")
    assert fault(folder).startswith(expected)


def test_unknown_artist_suggests(tmp_path: Path) -> None:
    """A name that the index does not have is answered with the nearest."""
    scan(tmp_path / "a.png", 1)
    index(tmp_path, "file,artist\na.png,Winslow Homer\n")
    assert fault(tmp_path, "Winslow Homr") == "no artist 'Winslow Homr'; nearest are Winslow Homer"


def test_unreadable_pictures_carry_the_reason(tmp_path: Path) -> None:
    """A file that is no picture is in the list with the reason, behind those that can be used."""
    images.not_an_image(tmp_path, name="a.jpg")
    images.empty(tmp_path, name="b.jpg")
    scan(tmp_path / "c.png", 1)
    first, *rest = find(tmp_path)
    assert (first.work.object_id, first.decision) == ("c", None)
    assert [each.decision.reason.partition(";")[0] for each in rest if each.decision] == ["not a picture"] * 2


def test_classification_is_asked_for(tmp_path: Path) -> None:
    """The recipe's classification holds for one's own scans, too."""
    for name in ("a", "b"):
        scan(tmp_path / f"{name}.png", 1)
    index(tmp_path, "file,classification\na.png,Drawing\nb.png,Painting\n")
    found = find(tmp_path, classification=("Painting",))
    assert ids(found) == ["b"]
    assert [f.decision.reason for f in found if f.decision] == ["classification is Drawing; wanted Painting"]


def test_source_changes_with_the_file(tmp_path: Path) -> None:
    """A scan that was replaced is another source, so that a run takes the new one."""
    scan(tmp_path / "a.png", 1)
    (found,) = find(tmp_path)
    before = Folder(tmp_path).source(found.work)
    assert before == Folder(tmp_path).source(found.work)
    scan(tmp_path / "a.png", 2)
    assert before != Folder(tmp_path).source(found.work)


def test_real_scans_are_found_and_open() -> None:
    """Homer's seven and the cubists' seven, where they are here: all usable, all open."""
    if not (SHARED_ART / "index.csv").exists():
        pytest.skip("the real scans are not here")
    found = {name: find(SHARED_ART, name) for name in ("Winslow Homer", *CUBISTS)}
    assert {name: len(ids(works)) for name, works in found.items()} == {"Winslow Homer": 7, **CUBISTS}
    assert Counter(f.work.rights.access for works in found.values() for f in works) == {Access.OPEN: 14}

"""A directory of one's own scans, with an index and without."""

import errno
import json
import os
import shutil
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from avignon.core.errors import ImageError, InputError
from avignon.core.formats import SUFFIXES
from avignon.core.records import Access, Found, plain
from avignon.core.sheets import Columns
from avignon.museums.files import files_of, unread
from avignon.museums.folder import Folder
from avignon.museums.folder_index import columns
from avignon.museums.protocol import ArtistQuery
from tests.support import images
from tests.support.paths import SHARED_ART
from tests.support.scans import scan

CUBISTS = {"Juan Gris": 1, "Robert Delaunay": 1, "Albert Gleizes": 1, "Francis Picabia": 3, "Fernand Léger": 1}


def find(path: Path, name: str = "Ann Other", *find: str, classification: tuple[str, ...] = ()) -> list[Found]:
    """What the folder has of an artist, in 2026."""
    return Folder(path, year=2026).find(ArtistQuery(name, find, classification))


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
        # Two columns: the later end counts, and none where one of them is not understood or has none.
        ({"year": "1885", "date": "1885, cast 1970", "artist_died": "1917"}, "unknown", (1885, 1970)),
        ({"year": "1885", "date": "1985", "artist_died": "1917"}, "unknown", (1885, 1985)),
        ({"date": "1985", "year": "1885", "artist_died": "1917"}, "unknown", (1885, 1985)),
        ({"year": "1885", "date": "after 1930", "artist_died": "1917"}, "unknown", (1885, None)),
        ({"year": "1885", "date": "1885, cast posthumously", "artist_died": "1917"}, "unknown", (1885, None)),
        ({"year": "1885", "date": "by the estate", "artist_died": "1917"}, "unknown", (1885, 1885)),
        ({"year": "1885", "date": "c. 1885", "artist_died": "1917"}, "open", (1880, 1890)),
        ({"year": "1885", "date": "n.d.", "artist_died": "1917"}, "open", (1885, 1885)),
        # Casts and prints: the artist's death is no limit.
        ({"year": "modeled 1885, cast after 1919", "artist_died": "1917"}, "unknown", (1885, None)),
        ({"year": "before 1890, cast after 1932", "artist_died": "1917"}, "unknown", (None, None)),
        ({"year": "1885, später gegossen", "artist_died": "1917"}, "unknown", (1885, None)),
        ({"year": "1885, printed 70s", "artist_died": "1917"}, "unknown", (None, None)),
        ({"year": "cast after 1905", "artist_died": "1917"}, "unknown", (1905, None)),
        ({"medium": "bronze, posthumous cast 1998", "artist_died": "1917"}, "unknown", (1998, 1998)),
        ({"title": "The Thinker (cast 1998)", "artist_died": "1917"}, "unknown", (1998, 1998)),
        ({"title": "The Thinker (cast 1998)", "year": "1885", "artist_died": "1917"}, "unknown", (1885, 1998)),
        ({"medium": "Bronze, gegossen", "artist_died": "1917"}, "unknown", (None, None)),
        ({"medium": "Bronze, cast", "year": "1885", "artist_died": "1917"}, "open", (1885, 1885)),
        ({"year": "1925", "artist_died": "1873"}, "unknown", (1925, 1925)),
        ({"year": "1885", "artist_died": "gest. 1910"}, "open", (1885, 1885)),
        # A claim in any column of text.
        ({"credit": "© 2019 Fotograf Müller", "artist_died": "1910"}, "restricted", (None, None)),
        ({"credit": "Photo: Doe. All rights reserved", "artist_died": "1910"}, "restricted", (None, None)),
        ({"notes": "CC BY-NC", "rights": "CC0", "artist_died": "1910"}, "restricted", (None, None)),
        ({"Bemerkungen": "nicht gemeinfrei", "artist_died": "1910"}, "restricted", (None, None)),
        ({"comment": "by permission of the estate", "artist_died": "1910"}, "restricted", (None, None)),
        ({"source": "Tous droits réservés", "artist_died": "1910"}, "restricted", (None, None)),
        ({"terms": "sea; © Doe", "artist_died": "1910"}, "restricted", (None, None)),
        ({"title": "Protected", "credit": "Restricted gift of Jane Doe", "artist_died": "1910"}, "open", (None, None)),
        # Statements come before age, understood or not.
        ({"year": "1885", "artist_died": "1910", "rights": "n/a"}, "open", (1885, 1885)),
        ({"year": "1885", "artist_died": "1910", "rights": "Gemeinfrei (DE)"}, "unknown", (1885, 1885)),
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
        (
            {"year": "1885", "date": "1885 (Salon)", "artist_died": "1910"},
            "made in 1885 or later; date '1885 (Salon)' is",
        ),
        ({"year": "1925", "artist_died": "1873"}, "artist died 1873; made 1925, after the artist's death"),
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
        ("file,title\n,Nothing\n", "line 2: file is empty"),
        ("name,title\na.png,A\n", "column file is missing; there are: name, title"),
        ("", "column file is missing; there is none"),
        ("file\n", "names no picture"),
        (
            "file,title\na.png,A,more\n",
            "line 2: 'more' stands in column 3, which has no name; a value that holds the separator is put in quotes",
        ),
        ('file,title\na.png,"A\n', "line 2: not CSV: unexpected end of data"),
        ('file,title\na.png,"A"B\n', "line 2: not CSV: ',' expected after '\"'"),
        ("file\na.png\na.png\n", "line 3: file: 'a.png' is there twice (first in line 2); each work needs its own"),
        (
            "file,object_id\na.png,1\nb.png,1\n",
            "line 3: object_id '1' is there twice (first in line 2); each work needs its own",
        ),
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
    """An index that is not UTF-8 is told by line, with what to choose when saving."""
    scan(tmp_path / "a.png", 1)
    index(tmp_path, "file,title\na.png,A\na.png,Léger\n", encoding="latin-1")
    assert fault(tmp_path).startswith("line 3: not UTF-8 ('Léger', if it is Windows-1252); save it as \"CSV UTF-8\"")


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link inside the folder to a file outside is outside."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").symlink_to(scan(tmp_path / "secret.png", 1))
    index(tmp_path / "scans", "file\na.png\n")
    assert fault(tmp_path / "scans") == "line 2: file: 'a.png' lies outside the folder"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("a.png,Bo Second,2", "file: 'a.png' is there twice (first in line 2); each work needs its own"),
        ("a.png,Ann Other,2", "file: 'a.png' is there twice (first in line 2); each work needs its own"),
        ("./in/../a.png,Bo Second,2", "file: 'a.png' is there twice (first in line 2); each work needs its own"),
        ("b.png,Bo Second,2", "file: 'b.png' is there twice (first in line 2 as 'a.png'); each work needs its own"),
    ],
)
def test_no_file_is_two_works(tmp_path: Path, second: str, said: str) -> None:
    """One file under two artists or two ids is a line, whatever way leads to it; one id may be two artists'."""
    (tmp_path / "in").mkdir()
    (tmp_path / "b.png").symlink_to(scan(tmp_path / "a.png", 1))
    index(tmp_path, f"file,artist,object_id\na.png,Ann Other,1\n{second}\n")
    assert fault(tmp_path) == f"line 3: {said}"
    scan(tmp_path / "c.png", 2)
    index(tmp_path, "file,artist,object_id\na.png,Ann Other,1\nc.png,Bo Second,1\n")
    assert ids(find(tmp_path)) == ids(find(tmp_path, "Bo Second")) == ["1"]


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


HOMER = "Winslow Homer"


def told(path: Path, name: str = HOMER) -> tuple[dict[str, str], list[str]]:
    """By file, the reason of each picture that is listed, empty for one that can be used; and the warnings."""
    warned: list[str] = []
    found = Folder(path, year=2026, warn=warned.append).find(ArtistQuery(name))
    return {each.work.image_url: each.decision.reason if each.decision else "" for each in found}, warned


def reasons(path: Path, name: str = HOMER) -> dict[str, str]:
    """The first of these alone, where nothing is warned of."""
    listed, warned = told(path, name)
    assert warned == []
    return listed


def put(path: Path, *files: str) -> None:
    """Files by these names: a sound picture under each that is a PNG's."""
    for number, name in enumerate(files):
        if name.lower().endswith(".png"):
            scan(path / name, number)
        else:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(b"not a picture")


# A7: headers and the artist's column.


@pytest.mark.parametrize(
    "header",
    ["file,Artist", "File, ARTIST", "filename,creator", "Bild,Künstler/in", "fichier,peintre", "\ufefffile,maker"],
)
def test_header_in_other_words(tmp_path: Path, header: str) -> None:
    """A7: case, blanks and usual names of the columns change nothing: each artist has their own pictures."""
    put(tmp_path, "a.png", "b.png")
    index(tmp_path, f"{header}\na.png,Winslow Homer\nb.png,Bo Second\n")
    assert reasons(tmp_path) == {"a.png": ""}
    assert reasons(tmp_path, "Bo Second") == {"b.png": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,artits\na.png,Winslow Homer\n", "no such column 'artits'; did you mean 'artist'? One that is not"),
        ("file,rights note\na.png,CC0\n", "no such column 'rights note'; did you mean 'rights'? One that is not"),
        ("file,wer\na.png,Homer (after)\n", "line 2: column 'wer' says 'Homer (after)', but no column of that name is"),
        ("file,artist,how\na.png,Winslow Homer,Attributed to\n", "line 2: column 'how' says 'Attributed to', but no"),
        *(
            (
                f"file,artist,{name}\na.png,Winslow Homer,x\n",
                f"no such column {name!r}; did you mean 'rights'? One that",
            )
            for name in (
                *(
                    "Gemeinfrei",
                    "Is Public Domain",
                    "Nutzung",
                    "Nutzungsbedingungen",
                    "Lizenzhinweis",
                    "Bildrechtsstatus",
                ),
                *("Copyrightvermerk", "Urheberrechtsvermerk", "Verwendungshinweis", "licence_url", "image permissions"),
                *("Terms of use", "Conditions d'utilisation", "Droits image", "Condiciones de uso", "Diritti immagine"),
                *("Publiek domein", "Gebruiksvoorwaarden", "Freigabe", "openaccess", "Schutzfrist bis"),
            )
        ),
        *(
            (f"file,{name}\na.png,Winslow\n", f"no such column {name!r}; did you mean 'artist'? One that is not to be")
            for name in ("Vorname", "Nachname", "first name", "Last Name", "surname", "Prénom", "Apellidos", "cognome")
        ),
        *(
            (
                f"file,artist,info\na.png,Winslow Homer,{said}\n",
                f"line 2: column 'info' says {said!r}, but no column of",
            )
            for said in (
                *(
                    "(c) 2019 Fotograf Müller",
                    "All rights reserved",
                    "nur mit Genehmigung",
                    "CC BY-NC 4.0",
                    "CC BY 4.0",
                ),
                *("CC BY 4.0 Jane Doe", "public domain", "gemeinfrei", "nicht gemeinfrei", "Public domain from 2044"),
                *("droits réservés", "derechos reservados", "VG Bild-Kunst", "personal use only"),
                *("Kopie", "Werkstatt", "Kopie nach Homer", "Fälschungen", "zugeschrieben", "Nachahmer", "atelier"),
                *("attribué à Homer", "copia de Homer", "imitatore", "navolger van Homer", "after Winslow Homer"),
            )
        ),
        *(
            (f"file,artist,{name}\na.png,Winslow Homer,{said}\n", f"line 2: column {name!r} says {said!r}, but no")
            for name in ("Notes", "Bemerkung", "remarques")
            for said in ("attributed to", "Kopie nach Homer")
        ),
        ("file,artist\na.png,\nb.png, \n", "column artist names nobody; write each picture's artist into it, or take"),
        ("file,artist\nb.png,Bo\na.png,Homer\n", "no artist 'Winslow Homer'; nearest are Homer"),
    ],
)
def test_column_that_is_not_understood(tmp_path: Path, text: str, expected: str) -> None:
    """A7: a column that may say whose a work is, or what may be done with it, is never passed over."""
    put(tmp_path, "a.png", "b.png")
    index(tmp_path, text)
    assert fault(tmp_path, HOMER).startswith(expected)


def test_harmless_columns(tmp_path: Path) -> None:
    """A7: what is for people is passed over; a column that nobody knows is named."""
    put(tmp_path, "a.png")
    index(tmp_path, "file,artist,Notes,width,#rights\na.png,Winslow Homer,fine,9,no\n")
    assert reasons(tmp_path) == {"a.png": ""}
    index(tmp_path, "file,artist,department\na.png,Winslow Homer,prints\n")
    place = tmp_path / "index.csv"
    assert told(tmp_path)[1] == [f"{place}: columns that are not read: department; read: file, artist"]
    index(tmp_path, "file,artist,signed,shelf\na.png,Winslow Homer,non,after the storm\n")
    assert told(tmp_path)[0] == {"a.png": ""}
    index(tmp_path, "file,Notes\na.png,Winslow Homer; public domain\n")
    assert reasons(tmp_path) == {"a.png": ""}


def test_index_that_names_no_artist(tmp_path: Path) -> None:
    """Where no column is the artist's, but one is not read: every work counts as the wanted artist's, which is said."""
    put(tmp_path, "a.png")
    index(tmp_path, "file,Wer\na.png,Bo Second\n")
    (warned,) = told(tmp_path)[1]
    assert warned.endswith("read: file; none names an artist, so that all works count as those of whoever is asked for")
    index(tmp_path, "file,Hersteller\na.png,Bo Second\n")
    assert fault(tmp_path, HOMER).startswith("no artist 'Winslow Homer'")


def test_row_without_artist_is_nobodys(tmp_path: Path) -> None:
    """A7: where others are named, a picture that names nobody is rejected, with the reason, for whoever asks."""
    put(tmp_path, "a.png", "b.png")
    index(tmp_path, "file,artist\na.png,Winslow Homer\nb.png,\n")
    assert reasons(tmp_path) == {"a.png": "", "b.png": "index.csv names no artist for it"}


def test_no_name_stands_for_two_columns() -> None:
    """A7: all names of columns differ from each other as they are compared."""
    known = columns()
    for name, others in known.names.items():
        alone = Columns("index", {name: others}, ())
        assert {known.by_key[key] for key in alone.by_key} == {name}
    assert known.passed_over.isdisjoint(known.by_key)


# A8: doubtful works are in the ledger.


@pytest.mark.parametrize("place", ["index", "subfolder"])
@pytest.mark.parametrize(
    "said",
    [
        "After Winslow Homer",
        "Winslow Homer (attributed to)",
        "Werkstatt Winslow Homer",
        "Homer & La Farge",
        "nach W. Homer",
    ],
)
def test_doubtful_works_carry_the_reason(tmp_path: Path, place: str, said: str) -> None:
    """A8: in the artist's column and in a subfolder's name alike."""
    if place == "index":
        put(tmp_path, "1/a.png", "2/b.png")
        index(tmp_path, f"file,artist\n1/a.png,Winslow Homer\n2/b.png,{said}\n")
    else:
        put(tmp_path, "Winslow Homer/a.png", f"{said}/b.png")
    assert sorted(reasons(tmp_path).values()) == ["", f"attribution is {said!r}"]


def test_doubtful_works_alone_are_listed(tmp_path: Path) -> None:
    """A8: an artist of whom there are only doubtful works is known, and none of them is taken."""
    put(tmp_path, "a.png")
    index(tmp_path, 'file,artist\na.png,"Winslow Homer; John La Farge"\n')
    assert reasons(tmp_path) == {"a.png": "attribution is 'Winslow Homer; John La Farge'"}
    assert reasons(tmp_path, "John La Farge") == reasons(tmp_path)


def test_doubt_in_a_column_of_its_own(tmp_path: Path) -> None:
    """A8: a column for the role or the prefix doubts, too; the artist's own roles do not."""
    put(tmp_path, "a.png", "b.png", "c.png")
    index(
        tmp_path,
        "file,artist,Role\na.png,Winslow Homer,Painter\nb.png,Winslow Homer,artist after\nc.png,Winslow Homer,\n",
    )
    assert reasons(tmp_path) == {"a.png": "", "c.png": "", "b.png": "attribution is 'artist after'"}


@pytest.mark.parametrize("column", ["Echtheit", "authenticity", "Authenticité", "autenticidad", "echtheid"])
def test_authenticity_in_a_column_of_its_own(tmp_path: Path, column: str) -> None:
    """A column that says whether a work is genuine is read: only certain words let one pass."""
    put(tmp_path, "a.png", "b.png", "c.png")
    rows = "a.png,Winslow Homer,original\nb.png,Winslow Homer,nein\nc.png,Winslow Homer,Kopie nach Homer\n"
    index(tmp_path, f"file,artist,{column}\n{rows}")
    assert reasons(tmp_path) == {
        "a.png": "",
        "b.png": "attribution is 'nein'",
        "c.png": "attribution is 'Kopie nach Homer'",
    }


def test_doubt_in_a_deeper_folder(tmp_path: Path) -> None:
    """A8: a folder within the artist's that is called after a doubt casts it on what is in it; others do not."""
    put(tmp_path, "Winslow Homer/early/a.png", "Winslow Homer/Attributed to/b.png")
    assert list(reasons(tmp_path).values()) == ["", "attribution is 'Attributed to'"]


@pytest.mark.parametrize(
    "place", ["Kopien", "forgeries", "after Homer", "Nachahmer und Kopisten", "Bo Second", "Second, B.", "early/faux"]
)
def test_deeper_folders_of_others(tmp_path: Path, place: str) -> None:
    """A folder within the artist's that doubts, or is called after another artist of the collection, is not theirs."""
    put(tmp_path, "Bo Second/a.png", f"Winslow Homer/{place}/b.png", "Winslow Homer/c.png")
    said = f"attribution is {place.rpartition('/')[2]!r}"
    assert reasons(tmp_path) == {f"Winslow Homer/{place}/b.png": said, "Winslow Homer/c.png": ""}


def test_deeper_folders_of_any_name(tmp_path: Path) -> None:
    """A folder within the artist's that may be called after anybody is taken, and told."""
    put(tmp_path, "Winslow Homer/John La Farge/a.png", "Winslow Homer/late 1890s/b.png", "Bo/Prouts Neck/c.png")
    listed, warned = told(tmp_path)
    assert set(listed.values()) == {""}
    assert warned == [
        f"{tmp_path}: pictures in 'John La Farge' count as the artist's own, since they lie within the artist's "
        "folder; what is not, belongs beside it"
    ]


# Names of files that cannot be.


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="this system keeps all names as UTF-8")
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("name", [b"Gem\xe4lde.png", b"L\xe9ger/a.png", b"Fr\xfche Werke/\xff.png", b"Gem\xe4lde.psd"])
def test_names_that_are_not_utf8(tmp_path: Path, name: bytes, indexed: bool) -> None:
    """What an archive from Windows left: the picture is listed with the reason, and the others can be used."""
    root = tmp_path / "scans"
    put(root, "Winslow Homer/a.png")
    path = Path(os.fsdecode(bytes(root / HOMER) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    shutil.copy(root / HOMER / "a.png", path)
    if indexed:
        index(root, "file,artist\nWinslow Homer/a.png,Winslow Homer\n")
    good, bad = find(root, HOMER)
    assert good.decision is None
    assert bad.decision is not None
    assert bad.decision.reason.startswith(("name is not UTF-8; give the file, or the folder it", ".psd is not read"))
    assert bad.work.image_url == ""
    json.dumps(plain(bad), ensure_ascii=False).encode()


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="this system keeps all names as UTF-8")
def test_artists_folder_that_is_not_utf8(tmp_path: Path) -> None:
    """An artist whose own folder has such a name is told with it; the others are found."""
    put(tmp_path, "Winslow Homer/a.png")
    Path(os.fsdecode(bytes(tmp_path) + b"/L\xe9ger")).mkdir()
    shutil.copy(tmp_path / HOMER / "a.png", Path(os.fsdecode(bytes(tmp_path) + b"/L\xe9ger/b.png")))
    assert reasons(tmp_path) == {"Winslow Homer/a.png": ""}
    assert fault(tmp_path, "Fernand Léger").startswith("no artist 'Fernand Léger'")


def test_file_name_that_no_disk_holds(tmp_path: Path) -> None:
    """A cell that is no file's name, longer than a disk allows, is a line."""
    put(tmp_path, "a.png")
    index(tmp_path, f"file\n{'x' * 300}\n")
    assert fault(tmp_path) == f"line 2: file: '{'x' * 255}…' does not exist"
    index(tmp_path, f"file\n{'in/' * 2000}a.png\n")
    assert fault(tmp_path).startswith("line 2: file: 'in/in/in/")


def test_picture_that_is_gone_or_locked(tmp_path: Path) -> None:
    """A picture that cannot be read any more when it is fetched is an error with its name."""
    put(tmp_path, "a.png")
    (found,) = find(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: No such file"):
        Folder(tmp_path).receive(found.work)


def test_folder_called_index(tmp_path: Path) -> None:
    """A folder that is called index.csv is no index, and not passed over."""
    put(tmp_path, "a.png", "Index.csv/b.png")
    assert (
        fault(tmp_path)
        == f"{tmp_path / 'Index.csv'}: a folder stands where the index is expected; give it another name"
    )


def test_near_names_are_listed(tmp_path: Path) -> None:
    """A8: a slip, a surname alone or initials are not silently absent."""
    put(tmp_path, "a.png", "b.png", "c.png", "d.png", "e.png")
    rows = zip("abcde", (HOMER, "Homer", "Winslow Homr", "W. Homer", "Homer Martin"), strict=True)
    index(tmp_path, "file,artist\n" + "".join(f"{file}.png,{name}\n" for file, name in rows))
    said = "artist is {0!r}; if that means Winslow Homer, add {0!r} to the artist's find in the recipe"
    listed = reasons(tmp_path)
    assert listed == {
        "a.png": "",
        **{f"{f}.png": said.format(n) for f, n in zip("bcd", ("Homer", "Winslow Homr", "W. Homer"), strict=True)},
    }


# C1: an index that a spreadsheet saved.


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_index_from_excel(tmp_path: Path, separator: str, encoding: str) -> None:
    """C1: separators, marks, empty rows and columns, and backslashes are read as meant."""
    put(tmp_path, "scans/Gemälde/a.png", "b.png")
    lines = [
        "Datei,Künstler,Titel,,",
        r"scans\Gemälde\a.png,Winslow Homer,Stürme,,",
        ",,,,",
        "b.png,Fernand Léger,Rad,,",
        ",,,,",
    ]
    index(tmp_path, "\r\n".join(lines).replace(",", separator), encoding=encoding)
    assert reasons(tmp_path) == {"scans/Gemälde/a.png": ""}
    assert [each.work.title for each in find(tmp_path, "Fernand Leger")] == ["Rad"]


@pytest.mark.parametrize(("disk", "row"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_file_names(tmp_path: Path, disk: str, row: str) -> None:
    """C1: a name is found whichever way its accents are written, and listed as the disk has it."""
    on_disk = unicodedata.normalize(disk, "Léger/Élan.png")  # type: ignore[arg-type]
    put(tmp_path, on_disk)
    index(tmp_path, f"file\n{unicodedata.normalize(row, on_disk)}\n")  # type: ignore[arg-type]
    (found,) = find(tmp_path)
    assert found.decision is None
    assert (tmp_path / found.work.image_url).is_file()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("IN/A.PNG", "does not exist; nearest is 'in/a.png'"),
        ("a.png", "does not exist; nearest is 'in/a.png'"),
        ("in/a", "does not exist; nearest is 'in/a.png'"),
        ("in/a.jpg", "does not exist; nearest is 'in/a.png'"),
        ("C:\\Scans\\in\\a.png", "does not exist; nearest is 'in/a.png'"),
        ("in", "is a folder"),
        ("wholly-other.png", "does not exist"),
    ],
)
def test_nearest_file_is_named(tmp_path: Path, name: str, end: str) -> None:
    """C1: a file that is not there, or only in other case, folder or format, is told with the one that is meant."""
    put(tmp_path, "in/a.png")
    index(tmp_path, f"file\n{name}\n")
    if (tmp_path / name).is_file():
        pytest.skip("this disk makes no difference between cases")
    assert fault(tmp_path) == f"line 2: file: {name!r} {end}"


def test_index_by_another_name(tmp_path: Path) -> None:
    """C1: Index.CSV is the index; index.xlsx is refused; a table of another name is pointed out."""
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "Index.CSV").write_text("file,artist\na.png,Winslow Homer\nb.png,Bo\n")
    assert reasons(tmp_path) == {"a.png": ""}
    (tmp_path / "Index.CSV").rename(tmp_path / "index.xlsx")
    assert fault(tmp_path).startswith(
        f"{tmp_path / 'index.xlsx'}: not read; the index is called index.csv: save it as".removeprefix(f"{tmp_path}: ")
    )
    (tmp_path / "index.xlsx").rename(tmp_path / "index - Sheet1.csv")
    assert "not read; the index is called index.csv" in fault(tmp_path)
    (tmp_path / "index - Sheet1.csv").rename(tmp_path / "works.csv")
    assert told(tmp_path)[1] == [
        f"{tmp_path}: passed over, as no pictures: 1 × .csv; an index is read by the name index.csv alone"
    ]


def test_ids_that_are_not_given_differ(tmp_path: Path) -> None:
    """C1: two files whose names look alike when plain are two works, and one that is not used changes no other's id."""
    put(tmp_path, "a b.png", "a-b.png", "c.png", "c.psd", "d.png", "d.webp")
    index(tmp_path, "file\na b.png\na-b.png\nc.png\nd.png\n")
    found = {each.work.image_url: each.work.object_id for each in find(tmp_path)}
    assert (found["c.png"], found["d.png"]) == ("c", "d")
    assert len(set(found.values())) == len(found) == 6


# C2: what lies in a folder.

ODD = [f"x{suffix}" for suffix in (".jp2", ".avif", ".bmp", ".heic", ".psd", ".pdf", ".xcf", ".nef", ".svg")]


def test_every_picture_is_listed(tmp_path: Path) -> None:
    """C2: all that looks like a picture is listed, with the reason where it is not read."""
    put(tmp_path, "a.png", *ODD)
    named = [f"b{suffix}" for suffix in (".jpg", ".JPEG", ".jpe", ".jfif", ".tif")]
    for name in named:
        scan(tmp_path / f"{name}.png", 1).replace(tmp_path / name)
    listed = reasons(tmp_path)
    assert set(listed) == {"a.png", *ODD, *named}
    usable = {name for name in named if Path(name).suffix.lower() in SUFFIXES}
    assert {file for file, reason in listed.items() if not reason} == {"a.png", *usable}
    for name in ODD:
        suffix = name.removeprefix("x")
        if suffix not in SUFFIXES:  # Formats that the decoder has come to read are refused by it, for what is in them.
            assert listed[name].startswith(f"{suffix} is not read; export it as TIFF, PNG or JPEG (read are .jpg")
        assert listed[name]


def test_what_the_decoder_reads_is_never_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """C2: the listing follows the decoder's own suffixes."""
    assert [unread(f"a{suffix}") for suffix in SUFFIXES] == [""] * len(SUFFIXES)
    assert unread("a.xcf")
    monkeypatch.setattr("avignon.museums.files.SUFFIXES", (*SUFFIXES, ".xcf"))
    assert not unread("a.xcf")


def test_housekeeping_is_passed_over(tmp_path: Path) -> None:
    """C2: thumbnails and settings of systems are no works and not worth a word; other files are counted in one line."""
    system = ("@eaDir/a.png", "__MACOSX/b.png", ".thumbnails/c.png", "Winslow Homer/@eaDir/d.png", "#recycle/e.png")
    put(tmp_path, *system, "Thumbs.db", ".DS_Store", "Winslow Homer/desktop.ini", "Winslow Homer/._f.png")
    put(tmp_path, "Winslow Homer/f.png")
    assert reasons(tmp_path) == {"Winslow Homer/f.png": ""}
    put(
        tmp_path,
        "README.txt",
        "Winslow Homer/f.xmp",
        "Winslow Homer/f.json",
        "Winslow Homer/g.xmp",
        "Winslow Homer/LICENSE",
    )
    listed, warned = told(tmp_path)
    assert listed == {"Winslow Homer/f.png": ""}
    assert warned == [f"{tmp_path}: passed over, as no pictures: 1 × .json, 1 × .txt, 2 × .xmp, 1 × no suffix"]


def test_loose_works_beside_subfolders(tmp_path: Path) -> None:
    """C2: pictures that lie beside the artists' subfolders are nobody's: a line; what is not read anyway is listed."""
    put(tmp_path, "Winslow Homer/a.png", "Bo/b.png", "cover.psd")
    assert reasons(tmp_path)["cover.psd"].startswith(".psd is not read")
    put(tmp_path, "loose.png", "looser.png")
    assert fault(tmp_path, HOMER) == (
        "2 pictures (first: 'loose.png') lie beside the subfolders Bo, Winslow Homer, so that nothing says whose that "
        "is; put each picture into its artist's subfolder, or write an index.csv"
    )
    (tmp_path / "looser.png").unlink()
    assert fault(tmp_path, HOMER).startswith("a picture ('loose.png') lies beside the subfolders Bo, Winslow Homer, so")


def test_documents_make_no_artist(tmp_path: Path) -> None:
    """C2: a subfolder without a picture that is read does not turn a flat folder into one of artists."""
    put(tmp_path, "a.png", "papers/contract.pdf")
    assert list(reasons(tmp_path)) == ["a.png", "papers/contract.pdf"]


def test_artists_whose_pictures_are_all_unread(tmp_path: Path) -> None:
    """C2: subfolders of pictures in another format are their artists'; one without any says so."""
    put(tmp_path, "Winslow Homer/a.heif", "Bo/b.psd", "Ann Other/c.txt")
    assert list(told(tmp_path)[0]) == ["Winslow Homer/a.heif"]
    assert fault(tmp_path).startswith(f"{tmp_path / 'Ann Other'}: no pictures here; allowed are .jpg")


def test_pictures_that_no_row_names(tmp_path: Path) -> None:
    """C2: a picture that the index does not name is listed with that reason, wherever it lies."""
    put(tmp_path, "a.png", "b.png", "deep/c.png")
    index(tmp_path, "file,artist\na.png,Winslow Homer\n")
    assert reasons(tmp_path) == {"a.png": "", "b.png": "not in index.csv", "deep/c.png": "not in index.csv"}


def test_linked_folders(tmp_path: Path) -> None:
    """C2: an artist's folder may be a link; links within are not followed round in a circle, and named."""
    put(tmp_path / "elsewhere", "a.png")
    root = tmp_path / "scans"
    root.mkdir()
    (root / HOMER).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(root, target_is_directory=True)
    listed, warned = told(root)
    assert listed == {f"{HOMER}/a.png": ""}
    assert warned == [f"{root}: linked folders not followed: {HOMER}/round"]


def test_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C2: a subfolder that may not be read is an error, not an empty one."""
    put(tmp_path, "Winslow Homer/a.png")
    whole = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith(HOMER):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="Winslow Homer: folder cannot be read: Permission denied"):
        files_of(tmp_path)

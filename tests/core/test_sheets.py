"""CSV from spreadsheets: what Excel and others write is read as meant, or refused with what to do (issue 14, C1)."""

import codecs
from pathlib import Path

import pytest

from avignon.core import sheets
from avignon.core.errors import InputError

COLUMNS = sheets.Columns(
    "list",
    {"file": ("Datei",), "artist": ("Künstler", "creator"), "title": ("Titel",)},
    needed=("file",),
    spared=("notes",),
    grave={"artist": ("Urheber", "surname"), "title": ("Urheberschaftstitel",)},
    remarks=("remark",),
)

TABLE = [("a.png", "Léger", "Das Meer"), ("b.png", "Homer", "Sea; at noon")]


def read(folder: Path, content: bytes | str) -> sheets.Sheet:
    """The sheet of a file with this content."""
    path = folder / "list.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return sheets.read(path, COLUMNS)


def values(sheet: sheets.Sheet) -> list[tuple[str, ...]]:
    """Its rows' values in the order of the known columns."""
    return [tuple(row.get(name, "-") for name in COLUMNS.names) for _, row in sheet.rows]


def fault(folder: Path, content: bytes | str) -> str:
    """What is said of it, without the file's name; always one line."""
    with pytest.raises(InputError) as caught:
        read(folder, content)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder / 'list.csv'}: ")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_a_spreadsheet_may_choose(tmp_path: Path, ending: str, separator: str, encoding: str) -> None:
    """Separator, encoding with a mark, and line ends change nothing."""
    lines = [("file", "artist", "title"), *TABLE]
    text = ending.join(separator.join(f'"{each}"' for each in line) for line in lines) + ending
    assert values(read(tmp_path, text.encode(encoding))) == TABLE


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nfile;artist;title\na.png;Bo;Sea\n",
        '"sep=;"\r\nfile;artist;title\r\na.png;Bo;Sea\r\n',
        "file;artist;title;;\na.png;Bo;Sea;;\n;;;;\n",
        ";;;\nfile;artist;title\n\n ; \t;\na.png;Bo;Sea\n",
        " File ;ARTIST; Title\n a.png ; Bo;Sea \n",
        "Datei;Künstler;Titel\na.png;Bo;Sea\n",
        "\ufeffDATEI,Kunstler,ti-tel\na.png,Bo,Sea\n",
        "file,artist,title,notes,#price\na.png,Bo,Sea,fine,7\n",
        '"file,artist,title"\n"a.png,Bo,Sea"\n',
        'file,artist,title\n"a.png,Bo,""Sea"""\n',
    ],
)
def test_read_as_meant(tmp_path: Path, text: str) -> None:
    """Empty rows and columns, blanks, case, other names, a declared separator, and lines kept as one quoted cell."""
    sheet = read(tmp_path, text)
    assert values(sheet) == [("a.png", "Bo", "Sea")]
    assert sheet.columns == ("file", "artist", "title")
    assert sheet.strangers == ()


def test_short_rows_are_complete(tmp_path: Path) -> None:
    """Excel leaves out empty cells at the end of a line; a quoted name may hold the separator."""
    sheet = read(tmp_path, 'file,artist\n"boat, at sea.png"\n')
    assert values(sheet) == [("boat, at sea.png", "", "-")]


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    """What nobody knows is neither read nor lost: the caller is told."""
    sheet = read(tmp_path, "file,department\na.png,prints\n")
    assert sheet.strangers == ("department",)
    assert sheet.rows == [(2, {"file": "a.png", "department": "prints"})]


HOW = 'save it as "CSV UTF-8"'


@pytest.mark.parametrize(
    ("content", "expected", "advice"),
    [
        ("file;artist\na.png;Léger\n".encode("cp1252"), "line 2: not UTF-8 ('Léger', if it is Windows-1252)", HOW),
        ("file;title\na.png;x\nb.png;Öl\n".encode("cp1252"), "line 3: not UTF-8 ('Öl', if it is Windows-1252)", HOW),
        ("file\ra.png\rLéger.png\r".encode("mac-roman"), "line 3: not UTF-8 (", HOW),
        ("file,artist\na.png,Bo\n".encode("utf-16-be"), "not text, or UTF-16 without its mark", HOW),
        (codecs.BOM_UTF16_LE + b"f\0i", "damaged: not UTF-16-LE, as its first bytes say", HOW),
        (b"PK\x03\x04rest", "a workbook, not CSV", HOW),
        (b"\xd0\xcf\x11\xe0rest", "a workbook, not CSV", HOW),
        (
            "file,title\na.png,LÃ©ger\n",
            "line 2: title: 'LÃ©ger' was opened in a wrong encoding (probably 'Léger')",
            HOW,
        ),
        ("file,title\na.png,Ã\x81lamo\n", "line 2: title: 'Ã\\x81lamo' was opened in a wrong encoding", HOW),
        ("file,title\na.png,L\ufffdger\n", "line 2: title: 'L\ufffdger' was opened in a wrong encoding", "is lost"),
        ("file,artis\na.png,Bo\n", "no such column 'artis'; did you mean 'artist'?", "begins with #"),
        ("file,Artist (2)\na.png,Bo\n", "no such column 'Artist (2)'; did you mean 'artist'?", "begins with #"),
        ("file,artist,creator\na.png,,Bo\n", "columns 'artist' and 'creator' both mean artist", "keep one"),
        ("file,artist,;;\na.png,Bo,;;\n", "column ';;' ends in a second separator beside ','", "import the file"),
        ("file,artist;;\na.png,Bo;;\n", "column 'artist;;' ends in a second separator beside ','", "import the file"),
        ("file,artist,\na.png,Bo,x\n", "line 2: 'x' stands in column 3, which has no name", "quotes"),
        ("file,title\na.png,Sea, at noon\n", "line 2: 'at noon' stands in column 3, which has no name", "quotes"),
        ("Inventory 2024;;\nfile;artist\n", "column file is missing; there are: Inventory 2024", "the first line"),
        ("", "column file is missing; there is none", ""),
        ("file,Urhebervermerk\na.png,Bo\n", "no such column 'Urhebervermerk'; did you mean 'artist'?", "begins with #"),
        ("file,My surname\na.png,Bo\n", "no such column 'My surname'; did you mean 'artist'?", "begins with #"),
        ("file,Urheberschaftstitels\na.png,Bo\n", "no such column 'Urheberschaftstitels'; did you mean 'title'?", "#"),
        ('file,title\na.png,Sea\nb.png,"x\n', "line 3: not CSV: ", ""),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, content: bytes | str, expected: str, advice: str) -> None:
    """One line names the place and the value, and says what to choose when saving."""
    text = fault(tmp_path, content)
    assert text.startswith(expected)
    assert advice in text


def test_letters_that_are_meant_stay(tmp_path: Path) -> None:
    """Accents, typographic signs and other scripts are not taken for mistakes."""
    titles = ["Ãngela", "Élévation — “À l’aube”", "富士山", "Çà et là", "Ångström ½"]
    sheet = read(tmp_path, "file,title\n" + "".join(f'a.png,"{title}"\n' for title in titles))
    assert [row["title"] for _, row in sheet.rows] == titles


def test_missing_sheet(tmp_path: Path) -> None:
    """A file that cannot be read says why."""
    with pytest.raises(InputError, match=r"list\.csv: list cannot be read: No such file or directory"):
        sheets.read(tmp_path / "list.csv", COLUMNS)


def test_remarks_are_kept_apart(tmp_path: Path) -> None:
    """Remarks are no strangers, and are there for the caller to look through."""
    sheet = read(tmp_path, "file,Remark,notes,shelf\na.png,fine,x,7\n")
    assert (sheet.columns, sheet.strangers, sheet.remarks) == (("file",), ("shelf",), ("Remark",))
    assert sheet.rows == [(2, {"file": "a.png", "Remark": "fine", "shelf": "7"})]

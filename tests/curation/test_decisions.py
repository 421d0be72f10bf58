"""Decisions: the curator's file as spreadsheets save it, and what is said of a slip."""

from pathlib import Path

import pytest

from avignon import pipeline
from avignon.core.errors import RecipeError
from avignon.core.events import Event
from avignon.core.records import Decision, Verdict
from avignon.core.sheets import Columns
from avignon.curation import decisions
from avignon.museums import folder_index
from avignon.recipe.load import load_recipe
from tests.support import scans


def decided(folder: Path, content: bytes) -> dict[str, Decision]:
    """The decisions of a file with this content."""
    (folder / "words.csv").write_bytes(content)
    return decisions.read(str(folder / "words.csv"))


def refusal(folder: Path) -> str:
    """The line by which a run with the decisions file is refused, before a stage begins and before it has a folder."""
    scans.scans(folder / "scans")
    recipe = load_recipe(scans.recipe(folder), ["artists.0.decisions=words.csv"])
    heard: list[Event] = []
    with pytest.raises(RecipeError) as caught:
        pipeline.run(recipe, folder / "runs", heard.append, until="collect")
    assert heard == []
    assert not (folder / "runs").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_decisions_are_read(tmp_path: Path) -> None:
    """A curator's words are read by column name, with or without reasons, with a byte order mark or none."""
    content = "reason,object_id,decision\nthe best,1, Keep \n,2,drop\n".encode("utf-8-sig")
    assert decided(tmp_path, content) == {
        "1": Decision(Verdict.KEPT, "the best"),
        "2": Decision(Verdict.REJECTED, ""),
    }
    assert decided(tmp_path, b"object_id,decision\n") == {}
    assert decisions.read("") == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"object_id,word\n1,keep\n", "column decision is missing; there are: object_id, word"),
        (b"", "columns object_id and decision are missing; there is none"),
        (b"object_id,verdict\n1,keep\n", "no such column 'verdict'; did you mean 'decision'?"),
        (b"Objekt-ID;Endentscheidung\n1;keep\n", "no such column 'Endentscheidung'; did you mean 'decision'?"),
        (
            b"Objekt-ID;Entscheidung\n1;behalten\n",
            "line 2: decision: 'behalten' is not allowed; it is keep, drop",
        ),
        (
            b"object_id,decision\n1,keep\n2,perhaps\n",
            "line 3: decision: 'perhaps' is not allowed; it is keep, drop or empty",
        ),
        (b"object_id,decision\n1;keep\n", "line 2: '1;keep' is one field; separate its fields as the first line's are"),
        (b"object_id;decision\n1,drop,;\n", "line 2: '1,drop,' is one field; separate its fields as the first line's"),
        (b"object_id,decison\n1,keep\n", "no such column 'decison'; did you mean 'decision'?"),
        (b"object_id,decision,Decision (new)\n1,,keep\n", "no such column 'Decision (new)'; did you mean 'decision'?"),
        (b"object_id,decision\n,keep\n", "line 2: object_id is empty"),
        (b"object_id,decision\n1,keep\n1,drop\n", "line 3: object_id '1' is decided on twice"),
        ("object_id,decision,reason\n1,keep,schön\n".encode("latin-1"), "line 2: not UTF-8 ('schön'"),
        (b'object_id,decision\n"1"x,keep\n', "line 2: not CSV: "),
    ],
)
def test_bad_decisions_are_told_before_anything_is_fetched(tmp_path: Path, content: bytes, expected: str) -> None:
    """A slip in a decisions file is named by file and line before anything is fetched."""
    (tmp_path / "words.csv").write_bytes(content)
    assert refusal(tmp_path).startswith(f"{tmp_path / 'words.csv'}: {expected}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "object_id;decision;reason;title\r\n1;keep;schön;Sea, at noon\r\n2;drop\r\n3;;;\r\n;;;\r\n",
        "sep=;\nobject_id;decision;reason\n1;keep;schön\n2;drop;\n",
        "Object ID\tDecision\tReason\r1\tKEEP\tschön\r2\tdrop\t\r",
        'object_id,decision,reason,title\r\n"1,keep,schön,""Sea, at noon"""\r\n2,drop,,Boat\r\n',
        "Objekt-ID;Entscheidung;Begründung\n1;keep;schön\n2;drop;\n",
        "identifiant;Décision;motif\n1;keep;schön\n2;drop;\n",
        "dc:identifier;Decisione;Motivazione\n1;keep;schön\n2;drop;\n",
    ],
)
def test_decisions_from_excel(tmp_path: Path, text: str, encoding: str) -> None:
    """C1: the curator's file is read as a spreadsheet saves it, even from one that took each line for one cell."""
    assert decided(tmp_path, text.encode(encoding)) == {
        "1": Decision(Verdict.KEPT, "schön"),
        "2": Decision(Verdict.REJECTED, ""),
    }


def test_columns_of_decisions() -> None:
    """What an index may call an object's id, a decisions file may, too; all names differ from each other."""
    assert set(folder_index.columns().names["object_id"]) == set(decisions.COLUMNS.names["object_id"])
    assert len(decisions.COLUMNS.by_key) == sum(
        len(Columns("one", {n: o}, ()).by_key) for n, o in decisions.COLUMNS.names.items()
    )


def test_missing_decisions_are_told(tmp_path: Path) -> None:
    """A decisions file that is not there is an error, not an empty list."""
    assert refusal(tmp_path) == f"{tmp_path / 'words.csv'}: decisions cannot be read: No such file or directory"

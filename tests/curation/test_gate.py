"""The gates: what the rights of works and a curator's decisions leave, in which order, and whose a picture is."""

from dataclasses import replace
from typing import Any

import pytest

from avignon.core.errors import InputError, RightsError
from avignon.core.records import Access, Decision, Found, Rights, Verdict, Work
from avignon.curation import gate
from avignon.recipe.schema import Artist

ANN = Artist(name="Ann", works=2, trigger="by ann")
TRUSTED = ANN.model_copy(update={"rights": "acknowledge-restricted"})


def found(number: int, access: Access = Access.OPEN, reason: str = "", **fields: Any) -> Found:
    """A work of Ann's, rejected where there is a reason."""
    work = Work("nga", str(number), "Ann", f"Work {number}", f"https://museum.test/{number}", Rights(access, "shown"))
    return Found(replace(work, **fields), Decision(Verdict.REJECTED, reason) if reason else None)


def order(works: list[Found]) -> list[str]:
    """Ids of the candidates, in order."""
    return [each.work.object_id for each in works if each.decision is None]


def reasons(works: list[Found]) -> dict[str, str]:
    """The reason of each rejected work."""
    return {each.work.object_id: each.decision.reason for each in works if each.decision}


def test_rights_reject_what_is_not_open() -> None:
    """Restricted and unknown works are rejected with their evidence; with an acknowledgement all pass."""
    works = [found(1), found(2), found(3, Access.RESTRICTED), found(4, Access.UNKNOWN), found(5, reason="a copy")]
    assert reasons(gate.apply_rights(ANN, works)) == {
        "3": "rights are restricted: shown",
        "4": "rights are unknown: shown",
        "5": "a copy",
    }
    assert gate.apply_rights(TRUSTED, works) == works


def test_rights_stop_only_where_works_would_be_enough() -> None:
    """Too few open works are an error where others are barred; too few works of any kind are for curate to tell."""
    with pytest.raises(RightsError, match=r"^Ann: 2 works are wanted, but only 1 of 2 images are open; .*'Work 2'"):
        gate.apply_rights(ANN, [found(1), found(2, Access.UNKNOWN)])
    assert order(gate.apply_rights(ANN, [found(1)])) == ["1"]


def test_candidates_are_decided_then_at_hand_then_open() -> None:
    """Kept works come first, then those at hand, then open ones; what exceeds the reserve is not needed."""
    works = [found(1, Access.RESTRICTED), found(2), found(3), found(4), found(5, reason="a doubt")]
    kept = {"5": Decision(Verdict.KEPT)}
    chosen = gate.choose_candidates(TRUSTED, works, kept, 1, lambda work: work.object_id == "4")
    assert order(chosen) == ["5", "4", "2"]
    assert reasons(chosen) == dict.fromkeys(("3", "1"), "not needed: 2 wanted, 1 in reserve")


def test_keep_overrules_a_doubt_alone() -> None:
    """A keep stands above a doubt, not above rights nor a missing image; a drop always holds."""
    works = [found(1, reason="a doubt"), found(2, Access.UNKNOWN, reason="a doubt")]
    works += [found(3, reason="no image", image_url=""), found(4)]
    decisions = {number: Decision(Verdict.KEPT) for number in "123"} | {"4": Decision(Verdict.REJECTED, "a fake")}
    chosen = gate.choose_candidates(ANN, works, decisions, 0, lambda _: False)
    assert order(chosen) == ["1"]
    assert reasons(chosen) == {
        "2": "a doubt; rights are unknown: shown; the curator's keep does not stand above rights",
        "3": "no image",
        "4": "dropped by the curator: a fake",
    }


def test_picture_has_one_owner() -> None:
    """Where nothing says whose a picture is, a second artist cannot have it; another folder's is another picture."""
    owners: dict[tuple[str, str], str] = {}
    gate.claim("Ann", "scans", [found(1), found(2, attributed="Ann"), found(3, reason="a doubt")], owners)
    gate.claim("Bo", "scans", [found(2, attributed="Bo"), found(3)], owners)
    gate.claim("Bo", "others", [found(1)], owners)
    with pytest.raises(InputError, match=r"^scans: nothing says whether 'https://museum.test/1' is by Ann or Bo; "):
        gate.claim("Bo", "scans", [found(1)], owners)

"""What a statement of rights says: nothing that is not understood comes out open."""

import itertools
import re
import unicodedata

import pytest

from avignon.core.records import Access
from avignon.museums import rights, statements
from avignon.museums.dates import Years
from avignon.museums.rights import Evidence
from avignon.museums.statements import read

YEAR = 2026
OPEN, RESTRICTED, UNKNOWN = Access.OPEN, Access.RESTRICTED, Access.UNKNOWN

FREE = [
    *("CC0", "CC 0", "CC-0", "cc0 1.0", "CC0-1.0", "CC Zero", "Creative Commons Zero", "CC0 1.0 Universal"),
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication",
    *("public domain", "Public Domain.", "public-domain", "publicdomain", "public_domain", "PUBLIC DOMAIN", "PDM 1.0"),
    *("Public Domain Mark 1.0", "public domain / CC0", "Image: public domain", "The image is in the public domain"),
    *("not in copyright", "out of copyright", "no longer in copyright", "copyright expired", "Copyright: expired"),
    *("No known copyright restrictions", "No rights reserved", "copyright status: public domain"),
    "This work has been dedicated to the public domain",
    "public domain (author died at least 70 years ago)",
    *("public domain since 2014", "Public domain, 1885", "public domain from 2026", "public domain worldwide"),
    *("gemeinfrei", "Das Bild ist gemeinfrei", "gemeinfrei seit 2014", "nicht mehr urheberrechtlich geschützt"),
    *(
        "domaine public",
        "dans le domaine public",
        "Œuvre tombée dans le domaine public",
        "L’image est dans le domaine public",
    ),
    *("dominio público", "de dominio público", "DOMINIO PUBLICO", "pubblico dominio", "di pubblico dominio"),
    *("Copyright: Public Domain", "Urheberrecht: gemeinfrei", "Droits d'auteur : domaine public"),
    *("Derechos de autor: dominio público", "Auteursrecht: publiek domein", "Rechtestatus: gemeinfrei"),
    *("Das Urheberrecht ist abgelaufen", "Die Schutzfrist ist abgelaufen", "urheberrechtlich nicht geschützt"),
    *("Urheberrechtlich nicht mehr geschützt", "droits d'auteur expirés", "niet meer auteursrechtelijk beschermd"),
    *("L'oeuvre appartient au domaine public", "De afbeelding valt in het publieke domein"),
    *("La obra pertenece al dominio público", "L'opera è nel pubblico dominio", "It is in the public domain"),
    *("CC0 1.0 Universell", "CC0 1.0 Deed", "CC0-Lizenz", "CC0 license", "Open Access (CC0)"),
    *("Public Domain, via Wikimedia Commons", "<p>Public domain</p>", "image rights: public domain"),
    "Painting: public domain; photograph: CC0",
    *("publiek domein", "Dit werk behoort tot het publieke domein", "auteursrechtvrij"),
]

CONDITIONED = [
    ("CC BY", "attribution (CC BY)"),
    ("CC BY 4.0", "attribution (CC BY 4.0)"),
    ("CC-BY-4.0", "attribution (CC BY 4.0)"),
    ("CC BY-SA", "attribution, share-alike (CC BY-SA)"),
    ("cc-by-sa-3.0 DE", "attribution, share-alike (CC BY-SA 3.0 DE)"),
    ("CC BY 3.0 US", "attribution (CC BY 3.0 US)"),
    ("BY-SA 4.0", "attribution, share-alike (CC BY-SA 4.0)"),
    ("Attribution 4.0 International (CC BY 4.0)", "attribution (CC BY 4.0)"),
    ("Attribution-ShareAlike 4.0 International", "attribution, share-alike (CC BY-SA 4.0)"),
    ("Creative Commons Attribution-Share Alike 3.0 Unported License", "attribution, share-alike (CC BY-SA 3.0)"),
    ("Creative Commons Lizenz Namensnennung 4.0", "attribution (CC BY 4.0)"),
    ("CC Namensnennung - Weitergabe unter gleichen Bedingungen 3.0", "attribution, share-alike (CC BY-SA 3.0)"),
    ("Creative Commons Paternité - Partage dans les mêmes conditions", "attribution, share-alike (CC BY-SA)"),
    ("Creative Commons Reconocimiento-CompartirIgual 4.0", "attribution, share-alike (CC BY-SA 4.0)"),
    ("Creative Commons Attribuzione - Condividi allo stesso modo 4.0", "attribution, share-alike (CC BY-SA 4.0)"),
    ("Creative Commons Naamsvermelding-GelijkDelen 4.0", "attribution, share-alike (CC BY-SA 4.0)"),
    ("licensed under CC BY 4.0", "attribution (CC BY 4.0)"),
    ("CC BY 4.0; CC BY-SA 3.0", "attribution (CC BY 4.0); attribution, share-alike (CC BY-SA 3.0)"),
    ("public domain, CC BY 4.0", "attribution (CC BY 4.0)"),
    ("CC-BY (Namensnennung)", "attribution (CC BY)"),
    ("CC BY 4.0 Attribution", "attribution (CC BY 4.0)"),
    ("CC BY-SA 4.0 (attribution, share alike)", "attribution, share-alike (CC BY-SA 4.0)"),
    ("Copyright status: licensed under CC BY 4.0", "attribution (CC BY 4.0)"),
]

CLOSED = [
    ("CC BY-NC 4.0", "attribution, non-commercial (CC BY-NC 4.0)"),
    ("CC-BY-NC-ND 4.0", "attribution, non-commercial, no derivatives (CC BY-NC-ND 4.0)"),
    ("by-nc-nd", "attribution, non-commercial, no derivatives (CC BY-NC-ND)"),
    ("CC BY-ND", "attribution, no derivatives (CC BY-ND)"),
    ("CC BY-NC-SA 3.0 IT", "attribution, non-commercial, share-alike (CC BY-NC-SA 3.0 IT)"),
    ("Attribution-NonCommercial 4.0 International", "attribution, non-commercial (CC BY-NC 4.0)"),
    ("CC Namensnennung - Nicht kommerziell 4.0", "attribution, non-commercial (CC BY-NC 4.0)"),
    ("CC Namensnennung - Keine Bearbeitungen 4.0", "attribution, no derivatives (CC BY-ND 4.0)"),
    ("Pas d’Utilisation Commerciale", "non-commercial"),
    ("public domain, non-commercial use only", "non-commercial"),
    ("CC0, no commercial use", "non-commercial"),
    ("Free for personal use", "personal use only"),
    ("In Copyright - Educational Use Permitted", "educational use only"),
    *((each, "") for each in ("(C) 2019 The Museum", "© 2019", "&copy; Museum", "ⓒ Museum", "Copyright Museum")),
    *((each, "") for each in ("painting: public domain; photograph: (c) 2019 Museum", "© public domain")),
    *((each, "") for each in ("public domain © 2019", "copyright2019", "CC0 for metadata, image in copyright")),
    *((each, "") for each in ("In Copyright - EU Orphan Work", "All rights reserved", "copyright not expired")),
    *((each, "") for each in ("not out of copyright", "not public domain", "non-public-domain", "not CC0")),
    *((each, "") for each in ("NOT in the public domain", "never released into the public domain")),
    *((each, "") for each in ("nicht gemeinfrei", "kein Public Domain", "n'est pas dans le domaine public")),
    *((each, "") for each in ("no es de dominio público", "non è di pubblico dominio", "geen publiek domein")),
    *((each, "") for each in ("urheberrechtlich geschützt", "Alle Rechte vorbehalten", "Tous droits réservés")),
    *((each, "") for each in ("Todos los derechos reservados", "tutti i diritti riservati", "auteursrecht")),
    *((each, "") for each in ("VG Bild-Kunst, Bonn 2024", "public domain, ADAGP", "by permission of the estate")),
    *(
        (each, "")
        for each in ("Copyright: Jane Doe, public domain", "Copyright: not public domain", "Copyright: Museum")
    ),
    *((each, "") for each in ("Das Urheberrecht ist nicht abgelaufen", "Urheberrecht: Museum", "urheberrechtlich")),
    # The statement itself names a later year.
    *((each, "") for each in ("Public domain from 2044", "will enter the public domain in 2044", "CC0 2027")),
    *((each, "") for each in ("gemeinfrei ab 2044", "CC0 as of 1.1.2044", "domaine public depuis 2044")),
    *((each, "") for each in ("public domain in2044", "out of copyright 2044/2045")),
]

DOUBTFUL = [
    # Codes of countries that are words, too.
    *("gemeinfrei in DE", "Gemeinfrei (DE)", "gemeinfrei in DE seit 2014", "GEMEINFREI IN DE", "public domain in IT"),
    *(
        "dominio publico (ES)",
        "domaine public (LA)",
        "public domain (EL)",
        "public domain (IS)",
        "Public domain DE, IT",
    ),
    *("not protected by copyright in IT", "public domain IN IN", "DE: gemeinfrei"),
    # One part is free, the other is not said to be.
    *("Painting: public domain; photo: licensed", "Public domain; image licensed", "CC0, licensed"),
    *("The painting is in the public domain, rights in the photograph", "Public domain; reproduction rights"),
    *("Domaine public, droits de reproduction", "Public domain, image rights", "CC BY-SA 4.0; image rights"),
    *(
        "gemeinfrei; Rechte am Foto",
        "dominio público; derechos",
        "pubblico dominio, diritti",
        "Rechten; publiek domein",
    ),
    *("Painting: public domain; photograph: 2019", "Painting: public domain, photograph published 2019"),
    *("public domain 1990-2020", "Public domain: photo", "photo 2019, public domain", "CC BY, share alike"),
    # Boxes without a tick, codes of two letters that are words, an address within another, letters that are struck.
    *("[ ] public domain", "( ) public domain", "[] public domain", "☐ public domain", "__ public domain"),
    *("[ ] gemeinfrei [ ] CC BY", "Photo by 1.0", "Photo: by-sa", "by-sa", "CC by in"),
    "https://creativecommons.org/publicdomain/zero/1.0/?https://creativecommons.org/licenses/by-nc/4.0/",
    *("p\u0305ublic domain", "p\u033dublic domain", "public d\u0336omain", "public \u20e0domain"),
    *("Copyright: none", "Urheberrecht: keines", "no copyright claimed"),
    *("public domain (USA only)", "public domain in the United States", "gemeinfrei in den USA", "PD-US"),
    *("public domain?", "probably public domain", "unknown, perhaps CC0", "believed to be in the public domain"),
    *("may be in the public domain", "public domain (author died at least 50 years ago)", "public domain, life + 50"),
    *("to be released into the public domain", "will be CC0", "public domain until 2020", "public domain from '44"),
    *("public domain if published before 1931", "public domain except the frame", "public domain...", "public domain*"),
    *("cc0 1.0 (metadata only)", "CC0 (data)", "metadata: CC0", "public domain text", "CC0 for the catalogue"),
    *(
        "pulbic domain",
        "public doman",
        "рublic domain",
        "public\u200bdomain",
        "p\u0336u\u0336b\u0336l\u0336i\u0336c\u0336 domain",
    ),
    *("<del>public domain</del>", "≠ public domain", "~public domain", "!public domain", "public domain ❌"),
    *(
        "rights: none known",
        "rights unknown",
        "no copyright",
        "copyright free",
        "copyright unclear",
        "Copyright: unknown",
    ),
    *(
        "libre de droits",
        "rechtenvrij",
        "royalty-free",
        "free",
        "open",
        "open access",
        "unrestricted",
        "no restrictions",
    ),
    *(
        "public domain under licence",
        "no copyright information",
        "no copyright infringement intended",
        "No copyright status",
    ),
    *("Creative Commons", "CC", "CC 4.0", "attribution", "share alike", "CC BY 4.0, Jane Doe", "CC BY-SA 4.0 or GFDL"),
    *("account001", "?", ".", "ask", "mine", "yes", "1", "my own photograph", "パブリックドメイン", "CC01"),
    *(
        "https://example.org/publicdomain/",
        "example.org/cc0",
        "see www.museum.org/rights",
        "CC0 see https://museum.org",
    ),
    "https://creativecommons.org.evil.example/publicdomain/zero/1.0/",
    "https://creativecommons.org/publicdomain/zero/1.0/us/",
    "https://creativecommons.org/licenses/by-xx/4.0/",
    "https://creativecommons.org/licenses/publicdomain/",
    "https://rightsstatements.org/vocab/",
    "http://rightsstatements.org/vocab/XYZ/1.0/",
]

RIGHTSSTATEMENTS = {
    **dict.fromkeys(("InC", "InC-OW-EU", "InC-RUU", "NoC-OKLR", "NoC-CR"), (RESTRICTED, "")),
    "InC-EDU": (RESTRICTED, "educational use only"),
    **dict.fromkeys(("InC-NC", "NoC-NC"), (RESTRICTED, "non-commercial")),
    **dict.fromkeys(("NoC-US", "NKC", "CNE", "UND"), (UNKNOWN, "")),
}

TITLES = {
    "In Copyright": "InC",
    "In Copyright - EU Orphan Work": "InC-OW-EU",
    "In Copyright - Educational Use Permitted": "InC-EDU",
    "In Copyright - Non-Commercial Use Permitted": "InC-NC",
    "In Copyright - Rights-holder(s) Unlocatable or Unidentifiable": "InC-RUU",
    "No Copyright - Contractual Restrictions": "NoC-CR",
    "No Copyright - Non-Commercial Use Only": "NoC-NC",
    "No Copyright - Other Known Legal Restrictions": "NoC-OKLR",
    "No Copyright - United States": "NoC-US",
    "Copyright Not Evaluated": "CNE",
    "Copyright Undetermined": "UND",
    "No Known Copyright": "NKC",
}

ENDS = [
    *(("", ""), ("/", ""), ("/4.0", " 4.0"), ("/4.0/", " 4.0"), ("/4.0/deed.en", " 4.0"), ("/3.0/igo/", " 3.0 IGO")),
    *(("/3.0/de/", " 3.0 DE"), ("/3.0/de/deed.de", " 3.0 DE"), ("/2.0/uk/legalcode", " 2.0 UK")),
]

HOSTS = ("http://", "https://", "https://www.", "www.", "", "//", "HTTP://")


@pytest.mark.parametrize("statement", FREE)
def test_free_however_it_is_written(statement: str) -> None:
    """The usual words for freedom open, without a condition, and every word of them is understood."""
    assert read(statement, YEAR) == statements.Reading(OPEN)


@pytest.mark.parametrize(("statement", "condition"), CONDITIONED)
def test_attribution_and_share_alike_are_open_with_a_condition(statement: str, condition: str) -> None:
    """A licence that asks to name the maker, or to share alike, opens, and its condition is kept."""
    assert read(statement, YEAR) == statements.Reading(OPEN, condition)


@pytest.mark.parametrize(("statement", "condition"), CLOSED)
def test_the_strictest_part_counts(statement: str, condition: str) -> None:
    """A claim, a limit, a denial or a later year restricts, whatever else is said; a limit is kept as a condition."""
    found = read(statement, YEAR)
    assert (found.access, found.condition) == (RESTRICTED, condition)


@pytest.mark.parametrize("statement", DOUBTFUL)
@pytest.mark.parametrize("died", [None, 1750])
def test_what_is_not_understood_is_unknown(statement: str, died: int | None) -> None:
    """One place, doubt, slip or unknown word keeps a statement from opening, and age does not open in its place."""
    assert rights.judged(Evidence(died=died, years=Years(died, died), statement=statement), YEAR).access is UNKNOWN


def test_statement_opens_when_its_year_has_come() -> None:
    """What begins in 2044 is restricted through 2043, and open from then on."""
    assert [read("public domain from 2044", year).access for year in (2043, 2044)] == [RESTRICTED, OPEN]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "end", ["", "/", "/1.0", "/1.0/", "/1.0/deed.de", "/1.0/legalcode", "/1.0/?ref=chooser-v1", "/1.0/."]
)
def test_public_domain_tools_by_address(host: str, end: str) -> None:
    """CC0 and the Public Domain Mark, in every form in which people write their addresses."""
    for tool in ("zero", "mark"):
        assert read(f"{host}creativecommons.org/publicdomain/{tool}{end}", YEAR) == statements.Reading(OPEN)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("end", "name"), ENDS)
def test_licences_by_address(host: str, end: str, name: str) -> None:
    """Licences in every form of their addresses, versions and jurisdictions."""
    at = f"{host}creativecommons.org/licenses/"
    assert read(f"{at}by{end}", YEAR) == statements.Reading(OPEN, f"attribution (CC BY{name})")
    assert read(f"{at}by-sa{end}", YEAR) == statements.Reading(OPEN, f"attribution, share-alike (CC BY-SA{name})")
    for codes in ("by-nc", "by-nd", "by-nc-sa", "by-nc-nd", "by-nd-nc"):
        found = read(f"{at}{codes}{end}", YEAR)
        assert (found.access, "non-commercial" in found.condition) == (RESTRICTED, "nc" in codes)


@pytest.mark.parametrize("code", RIGHTSSTATEMENTS)
def test_rightsstatements_by_address(code: str) -> None:
    """All twelve statements of rightsstatements.org: none opens. Free in one country, or not found out, is unknown."""
    for host, place, end in itertools.product(
        HOSTS, ("vocab", "page", "data"), ("", "/", "/1.0/", "/1.0/?language=de")
    ):
        found = read(f"{host}rightsstatements.org/{place}/{code}{end}", YEAR)
        assert (found.access, found.condition, found.unread) == (*RIGHTSSTATEMENTS[code], "")


@pytest.mark.parametrize("title", TITLES)
def test_rightsstatements_by_title(title: str) -> None:
    """Their titles say the same as their addresses, with either dash."""
    assert len(RIGHTSSTATEMENTS) == len(TITLES) == 12
    for written in (title, title.replace("-", "–"), title.upper(), title.replace(" - ", " – ")):
        assert read(written, YEAR).access is RIGHTSSTATEMENTS[TITLES[title]][0]


@pytest.mark.parametrize("statement", [*FREE, *(statement for statement, _ in CONDITIONED)])
def test_no_word_beside_it_leaves_a_statement_open_unread(statement: str) -> None:
    """A word that is not in the vocabulary, before or behind an opening statement, closes it, and is named."""
    for word in ("xyzzy", "only", "unless", "USA", "metadata", "?", "…", "sauf", "nur", "excepto", "tranne", "behalve"):
        for said in (f"{word} {statement}", f"{statement} {word}", f"{statement} ({word})"):
            found = read(said, YEAR)
            assert found.access is UNKNOWN
            assert found.unread


@pytest.mark.parametrize("statement", [*FREE, *(statement for statement, _ in CONDITIONED)])
def test_claims_and_denials_beside_it_restrict(statement: str) -> None:
    """A claim on either side of an opening statement restricts it, and so does a denial before it."""
    for claim in ("©", "(c) 2019", "in copyright", "all rights reserved", "non-commercial", "CC BY-ND 4.0", "in 2044"):
        assert read(f"{claim}; {statement}", YEAR).access is RESTRICTED
        assert read(f"{statement}; {claim}", YEAR).access is RESTRICTED
    for denial in ("no", "not", "never", "nicht", "kein", "pas", "non", "niet", "geen"):
        assert read(f"{denial}: {statement}", YEAR).access is not OPEN
        assert read(f"{statement}: {denial}", YEAR).access is not OPEN


@pytest.mark.parametrize("statement", [*FREE, *(statement for statement, _ in CONDITIONED)])
def test_no_slip_of_the_pen_opens_more(statement: str) -> None:
    """A statement that lacks any of its letters or signs says at most what the whole says."""
    conditions = set(re.findall(r"attribution|share-alike", read(statement, YEAR).condition))
    for place in range(len(statement)):
        found = read(statement[:place] + statement[place + 1 :], YEAR)
        if found.access is OPEN and "attribution" in conditions:
            assert "attribution" in found.condition


@pytest.mark.parametrize("statement", [*FREE, *DOUBTFUL, *(statement for statement, _ in (*CONDITIONED, *CLOSED))])
def test_case_blanks_and_accents_do_not_matter(statement: str) -> None:
    """The same words in capitals, with decomposed accents or more blanks are the same statement."""
    for written in (
        statement.upper(),
        f"  {statement} ",
        unicodedata.normalize("NFD", statement),
        statement.replace(" ", " \n"),
    ):
        found = read(written, YEAR)
        assert (found.access, found.condition) == (read(statement, YEAR).access, read(statement, YEAR).condition)


@pytest.mark.parametrize("statement", ["", " ", "-", "–", "n/a", "N/A", "n. a.", "k. A.", "keine Angabe"])
def test_a_blank_in_words_is_no_statement(statement: str) -> None:
    """What people write into an empty cell leaves the rights to the work's age."""
    assert statements.is_nothing(statement)
    assert rights.judged(Evidence(died=1750, statement=statement), YEAR).access is OPEN


@pytest.mark.parametrize(
    ("text", "claimed", "surely"),
    [
        *((text, True, True) for text in ("© 2019 Fotograf Müller", "Photo: Doe. All rights reserved", "(c) Doe")),
        *((text, True, True) for text in ("Copyright 2019", "Alle Rechte vorbehalten", "Tous droits réservés")),
        *((text, True, False) for text in ("by permission", "Nur mit Genehmigung", "CC BY-NC 4.0", "VG Bild-Kunst")),
        *((text, True, False) for text in ("not in the public domain", "Protected", "Private use")),
        *((text, False, False) for text in ("Gift of Jane Doe", "Restricted gift of Jane Doe", "CC0", "Foto: Müller")),
        *((text, False, False) for text in ("copyright expired", "no copyright", "", "https://museum.org/a.jpg")),
    ],
)
def test_claims_in_text_of_any_kind(text: str, claimed: bool, surely: bool) -> None:
    """A claim or a denial is found among words that nobody knows; in a title, only what cannot mean anything else."""
    assert statements.claims(text, YEAR) is claimed
    assert statements.claims(text, YEAR, surely=True) is surely


def test_notes_and_conditions_alone_open_nothing() -> None:
    """Of all phrases of the vocabulary, only those that are there as free open by themselves."""
    for group in statements._vocabulary()["phrases"]:
        for phrase in group["words"]:
            assert (read(phrase, YEAR).access is OPEN) is (group["kind"] == "open"), phrase
    for element in statements._vocabulary()["licence"]["elements"]:
        for phrase in (element["code"], *element["words"]):
            assert read(phrase, YEAR).access is not OPEN


def test_no_two_notes_deny_what_stands_between() -> None:
    """A note beside a phrase leaves it what it is: none is a limit, a claim, or a part of another phrase."""
    notes = next(group["words"] for group in statements._vocabulary()["phrases"] if group["kind"] == "note")
    for note in notes:
        for phrase, access in (("not in copyright", OPEN), ("no copyright", UNKNOWN), ("in copyright", RESTRICTED)):
            assert read(f"{note}, {phrase}", YEAR).access is access, note
            assert read(f"{phrase}, {note}", YEAR).access is access, note


def test_the_vocabulary_has_sources() -> None:
    """Each group of phrases says where it comes from, and is of a kind that the rule knows."""
    groups = statements._vocabulary()["phrases"]
    kinds = {"claim", "denial", "doubt", "open", "note", "link", "article", "label"}
    assert {group["kind"] for group in groups} == kinds
    assert all(group["source"] for group in (*groups, statements._vocabulary()["licence"]))

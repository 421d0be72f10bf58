"""collect: every work that was considered is on the list, and only what may be used is fetched."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avignon import pipeline
from avignon.core.errors import FetchError, InputError, RecipeError, RightsError, TurnedAway
from avignon.core.events import Event, Reporter, StageProgress
from avignon.core.files import sha256_of
from avignon.core.imaging import size_of
from avignon.core.records import Found
from avignon.core.workspace import Workspace
from avignon.curation import ledger
from avignon.museums.by_hand import MOST_REFUSALS
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from avignon.stages import collect
from tests.support import scans
from tests.support.artic import LocalArtic
from tests.support.museum import Fault, LocalMuseum, draw, fill
from tests.support.pairs import pair
from tests.support.paths import RECIPES


@pytest.fixture
def stocked() -> Iterator[LocalMuseum]:
    """A stocked museum of this test's own, to break."""
    with LocalMuseum() as server:
        fill(server)
        yield server


class Run:
    """A run in a folder, stage by stage or as far as asked, and what was said on the way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.space = Workspace(folder / "runs" / "pair")
        self.events: list[Event] = []

    def collect(self, recipe: Recipe) -> list[Found]:
        """The stage alone."""
        collect.run(recipe, self.space, Reporter("collect", self.events.append))
        return self.space.read_found()

    def carry(self, recipe: Recipe, until: str = "curate") -> list[str]:
        """The pipeline; which stages were not up to date."""
        heard: list[Event] = []
        pipeline.run(recipe, self.folder / "runs", heard.append, until=until)
        self.events += heard
        return [event.stage for event in heard if event.kind == "done"]

    def warnings(self) -> list[str]:
        """Everything that was warned of."""
        return [event.text for event in self.events if event.kind == "warning"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with nothing done."""
    return Run(tmp_path)


def originals(found: list[Found], artist: str) -> list[str]:
    """Ids of an artist's works that have an image."""
    return [f.work.object_id for f in found if f.original and f.work.artist == artist]


def reasons(found: list[Found], artist: str) -> Counter[str]:
    """How often each reason, up to its first colon, ruled out a work of an artist."""
    return Counter(f.decision.reason.partition(":")[0] for f in found if f.decision and f.work.artist == artist)


def test_every_work_is_on_the_list(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """All works of each artist are listed: with an original or a reason, and nothing between."""
    found = run.collect(pair(tmp_path, museum))
    assert Counter(f.work.artist for f in found) == {"Winslow Homer": 18, "Juan Gris": 17}
    assert all((f.original is None) is (f.decision is not None) for f in found)
    assert reasons(found, "Winslow Homer") == {
        "role is 'artist after', not the artist's own hand": 3,
        "not needed": 9,
    }
    assert len(originals(found, "Winslow Homer")) == 4 + 2


def test_originals_are_kept_as_they_came(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """An original is the bytes received, with their true size and hash, and nothing else lies beside."""
    found = run.collect(pair(tmp_path, museum))
    files = set()
    for each in found:
        if each.original:
            path = run.space.root / each.original.file
            assert sha256_of(path) == each.original.sha256
            assert size_of(path) == (each.original.width, each.original.height)
            assert max(size_of(path)) == 128
            files.add(path)
    assert {path for path in run.space.works.rglob("*") if path.is_file()} == {*files, run.space.found}


def test_reserve_limits_what_is_fetched(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """No more images are asked for than wanted and in reserve."""
    run.collect(pair(tmp_path, stocked, "collect.reserve=0"))
    assert stocked.asked_for("default.jpg") == 4 + 3


def test_rights_stop_the_run(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """Restricted works are not taken unasked: the line names the artist, the count and how to acknowledge."""
    recipe = pair(tmp_path, museum, "artists.1.name=Pablo Picasso", "artists.1.find=[1783]", "artists.1.works=17")
    with pytest.raises(RightsError) as caught:
        run.collect(recipe)
    text = str(caught.value)
    assert text.startswith("Pablo Picasso: 17 works are wanted, but only 0 of 17 images are open; ")
    assert "openaccess=0; maxpixels=900; artist died 1973" in text
    assert 'rights = "acknowledge-restricted" under this artist' in text
    assert "\n" not in text
    assert originals(run.space.read_found(), "Pablo Picasso") == []


def test_acknowledged_rights_pass_and_stay_named(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """With the user's word restricted works are taken; the ledger says what they are."""
    recipe = pair(
        tmp_path,
        museum,
        *("artists.1.name=Pablo Picasso", "artists.1.find=[1783]", "artists.1.rights=acknowledge-restricted"),
        "curate.min_sharpness=0.0",
    )
    run.carry(recipe)
    rows = [row for row in run.space.read_ledger() if row["artist"] == "Pablo Picasso"]
    assert len(rows) == 17
    assert {row["rights"] for row in rows} == {"restricted"}
    kept = [row for row in rows if row["decision"] == "kept"]
    assert len(kept) == 3
    assert {row["capped"] for row in kept} == {"true"}


def test_open_works_go_first(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """Where open works are enough, an acknowledgement takes no restricted one."""
    for number in range(5):
        stocked.add_work(10 + number, 1359, "Restricted", openaccess=0)
    found = run.collect(pair(tmp_path, stocked, "artists.1.rights=acknowledge-restricted"))
    assert all(int(number) > 900000 for number in originals(found, "Juan Gris"))
    found = run.collect(pair(tmp_path, stocked))
    assert reasons(found, "Juan Gris")["rights are restricted"] == 5


def test_nothing_is_fetched_twice(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """A second run is up to date; even collected anew, no image is asked for again, nor any table sent."""
    recipe = pair(tmp_path, stocked)
    assert run.carry(recipe) == ["collect", "curate"]
    before = len(stocked.requests)
    assert run.carry(recipe) == []
    assert len(stocked.requests) == before
    first = run.space.read_found()
    assert run.collect(recipe) == first
    assert [path for _, path in stocked.requests[before:] if "/iiif/" in path] == []


@pytest.mark.slow
def test_larger_wish_is_fetched_anew(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """Another max_edge is another image: what an earlier run has at another size does not serve."""
    run.carry(pair(tmp_path, stocked), "collect")
    found_again = pair(tmp_path, stocked, "collect.max_edge=256")
    assert run.carry(found_again, "collect") == ["collect"]
    assert {max(f.original.width, f.original.height) for f in run.space.read_found() if f.original} == {256}


def test_damaged_original_is_fetched_again(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """An original that was changed on disk is replaced, and only that one."""
    recipe = pair(tmp_path, stocked)
    run.carry(recipe)
    first = next(f.original for f in run.space.read_found() if f.original)
    (run.space.root / first.file).write_bytes(b"scribble")
    before = stocked.asked_for("default.jpg")
    run.carry(recipe)
    assert stocked.asked_for("default.jpg") == before + 1
    assert sha256_of(run.space.root / first.file) == first.sha256


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    ("spoil", "times", "expected"),
    [
        (Fault.status(500), 4, "the server answers 500"),
        (Fault.status(404), 1, "the server answers 404"),
        (Fault.truncate(300), 4, "could not be reached"),
        (Fault.reset(300), 4, "could not be reached"),
        (Fault.html(), 4, "not a picture; allowed are"),
        (Fault(body=b""), 4, "not a picture; allowed are"),
    ],
)
def test_unavailable_image(
    run: Run, stocked: LocalMuseum, tmp_path: Path, spoil: Fault, times: int, expected: str
) -> None:
    """An image that does not come is rejected with the reason, and the reserve fills in."""
    stocked.fault("full/!", spoil, times=times)
    found = run.collect(pair(tmp_path, stocked, "curate.min_sharpness=0.0"))
    (lost,) = (f for f in found if f.decision and f.decision.reason.startswith("image: "))
    assert lost.work.object_id == "30228"
    assert expected in lost.decision.reason if lost.decision else False
    assert "image: image" not in str(lost.decision)
    run.carry(pair(tmp_path, stocked, "curate.min_sharpness=0.0"))
    rows = run.space.read_ledger()
    assert Counter(row["artist"] for row in rows if row["decision"] == "kept") == {"Winslow Homer": 4, "Juan Gris": 3}


def test_passing_trouble_is_not_for_ever(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """Where too many images fail, the stage ends with the reason, is not done, and goes on from what came."""
    recipe = pair(tmp_path, stocked, "curate.min_sharpness=0.0")
    uuids = [f.work.image_url.rpartition("/")[2] for f in run.collect(recipe) if f.original]
    run.space.found.unlink()
    for name in uuids[2:5]:
        stocked.fault(f"{name}/full", Fault.status(404))
    with pytest.raises(FetchError) as caught:
        run.carry(recipe)
    text = str(caught.value)
    assert text.startswith("Winslow Homer: 4 works are wanted, but of 6 images 3 are unavailable (first: 'The Boat")
    assert "404" in text
    assert text.endswith("what came is kept: run again, raise collect.reserve, or lower works")
    before = stocked.asked_for("default.jpg")
    assert run.carry(recipe) == ["collect", "curate"]
    assert stocked.asked_for("default.jpg") - before == 4 + 5


def test_interrupted_run_goes_on(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """Ctrl-C in the middle of fetching loses nothing: the next run asks only for what has not come."""
    recipe = pair(tmp_path, stocked)

    def interrupt(event: Event) -> None:
        if isinstance(event, StageProgress) and event.text.startswith("Juan Gris") and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tmp_path / "runs", interrupt, until="collect")
    assert stocked.asked_for("default.jpg") == 6 + 3
    run.carry(recipe)
    assert stocked.asked_for("default.jpg") == 6 + 5


def words(folder: Path, *lines: str) -> str:
    """A decisions file, as an override for Homer."""
    (folder / "words.csv").write_text("object_id,decision,reason\n" + "".join(f"{line}\n" for line in lines))
    return "artists.0.decisions=words.csv"


def test_curators_words_decide(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """A keep comes first, even against a doubtful role; a drop is not fetched; both say whose word it was."""
    said = words(tmp_path, "900151,keep,I know better", "900114,keep,", "30228,drop,too well known", "900101,drop,")
    recipe = pair(tmp_path, museum, said, "curate.min_sharpness=0.0")
    run.carry(recipe)
    ids = originals(run.space.read_found(), "Winslow Homer")
    assert set(ids[:2]) == {"900151", "900114"}
    assert not {"30228", "900101"} & set(ids)
    rows = {row["object_id"]: row for row in run.space.read_ledger()}
    assert (rows["900151"]["decision"], rows["900151"]["reason"]) == ("kept", "kept by the curator: I know better")
    assert rows["30228"]["reason"] == "dropped by the curator: too well known"
    assert rows["900101"]["reason"] == "dropped by the curator: no reason given"
    assert run.warnings() == []


def test_keep_is_no_licence(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """A curator's keep opens no restricted work and finds no missing image."""
    stocked.add_work(1, 1401, "Restricted", openaccess=0)
    stocked.add_work(2, 1401, "Unseen", viewtype="alternate")
    found = run.collect(pair(tmp_path, stocked, words(tmp_path, "1,keep,", "2,keep,")))
    ruled = {f.work.object_id: f.decision.reason for f in found if f.decision}
    assert ruled["1"].startswith("rights are restricted: ")
    assert ruled["1"].endswith("; the curator's keep does not stand above rights")
    assert ruled["2"] == "no image published"


def test_words_on_strangers_are_told(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """A decision on an object that the artist does not have is warned of, not passed over."""
    run.collect(pair(tmp_path, museum, words(tmp_path, "12345,keep,", "30228,keep,")))
    assert run.warnings() == [f"{tmp_path / 'words.csv'}: no work of Winslow Homer has object_id 12345"]


def test_changed_words_are_heeded(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """When the decisions file changes, so does the choice, without being asked to."""
    recipe = pair(tmp_path, museum, words(tmp_path), "curate.min_sharpness=0.0")
    run.carry(recipe)
    words(tmp_path, "30228,drop,")
    assert run.carry(recipe) == ["collect", "curate"]
    assert not (run.space.works / "winslow-homer" / "30228.jpg").exists()


def test_dropped_artist_leaves_nothing(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """Works of an artist who is no longer in the recipe are swept away."""
    run.carry(pair(tmp_path, museum), "collect")
    other: Any = ("artists.1.name=Homer Martin", "artists.1.find=[2647]", "artists.1.works=1")
    run.carry(pair(tmp_path, museum, *other), "collect")
    assert sorted(p.name for p in run.space.works.iterdir() if p.is_dir()) == ["homer-martin", "winslow-homer"]


def test_replaced_scan_is_taken(run: Run, tmp_path: Path) -> None:
    """A scan that the user replaced under its old name is read anew."""
    scans.scans(tmp_path / "scans")
    recipe = load_recipe(scans.recipe(tmp_path))
    run.carry(recipe, "prepare")
    draw(777, 120, 100).save(tmp_path / "scans" / "ann" / "work-0.png")
    assert run.carry(recipe, "prepare") == ["collect", "curate", "prepare"]
    row = next(row for row in run.space.read_ledger() if row["object_id"] == "ann-work-0")
    assert (row["width"], row["height"]) == ("120", "100")
    assert sha256_of(run.space.root / row["file"]) == sha256_of(tmp_path / "scans" / "ann" / "work-0.png")


def index(folder: Path, *rows: str) -> None:
    """The two artists' scans, under another index."""
    scans.scans(folder / "scans")
    (folder / "scans" / "index.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


ANN = [f"ann/work-{number}.png" for number in range(3)]
BO = [f"bo/work-{number}.png" for number in range(3)]


@pytest.mark.parametrize("indexed", [True, False])
def test_no_picture_is_every_artists(run: Run, tmp_path: Path, indexed: bool) -> None:
    """A7: where nothing says whose pictures are, two artists do not both get all of them."""
    index(tmp_path, "file,title,rights", *(f"{file},,CC0" for file in (*ANN, *BO)))
    if not indexed:
        shutil.rmtree(tmp_path / "scans")
        for number in range(3):
            scans.scan(tmp_path / "scans" / f"{number}.png", number)
    recipe = load_recipe(scans.recipe(tmp_path), ["artists.0.rights=acknowledge-restricted"] * (not indexed))
    with pytest.raises(InputError) as caught:
        run.collect(recipe)
    first = "ann/work-0.png" if indexed else "0.png"
    assert str(caught.value) == (
        f"{tmp_path / 'scans'}: nothing says whether {first!r} is by Ann Other or Bo Second; "
        "name the artists in a column artist of index.csv, or give each a subfolder of that name"
    )


def test_doubts_of_an_index_are_in_the_ledger(run: Run, tmp_path: Path) -> None:
    """A8, C2: doubtful works and those not in the index are in the ledger; a curator's keep overrules a doubt alone."""
    index(
        tmp_path,
        "file;Artist;rights",
        *(f"{file};Ann Other;CC0" for file in ANN[:2]),
        f"{ANN[2]};After Ann Other;CC0",
        f"{BO[0]};Bo Second & Ann Other;CC0",
        f"{BO[1]};Bo Second;CC0",
    )
    words(tmp_path, "ann-work-2,keep,by her own hand")
    recipe = load_recipe(scans.recipe(tmp_path, works=1), ["artists.0.decisions=words.csv", "artists.0.works=3"])
    run.carry(recipe)
    ledger = {(row["artist"], row["object_id"]): (row["decision"], row["reason"]) for row in run.space.read_ledger()}
    assert ledger["Ann Other", "ann-work-2"] == ("kept", "kept by the curator: by her own hand")
    joined = ("rejected", "attribution is 'Bo Second & Ann Other'")
    assert ledger["Ann Other", "bo-work-0"] == ledger["Bo Second", "bo-work-0"] == joined
    assert ledger["Bo Second", "bo-work-1"] == ("kept", "")
    assert ledger["Bo Second", "bo-work-2"] == ("rejected", "not in index.csv")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("", "not in index.csv; rights are unknown: "),
        (f"{ANN[2]};After Ann Other;", "attribution is 'After Ann Other'; rights are unknown: "),
        (f"{ANN[2]};Ann Other;", "rights are unknown: "),
        (f"{ANN[2]};Ann Other;in copyright", "rights are restricted: "),
    ],
)
def test_keep_of_a_folders_work_is_no_licence(run: Run, tmp_path: Path, row: str, reason: str) -> None:
    """A keep on a work that is barred by its rights says so, whatever else was said against the work."""
    index(tmp_path, "file;Artist;rights", *(f"{file};Ann Other;CC0" for file in ANN[:2]), f"{BO[0]};Bo Second;CC0", row)
    words(tmp_path, "ann-work-2,keep,")
    run.carry(load_recipe(scans.recipe(tmp_path, works=1), ["artists.0.decisions=words.csv"]), "collect")
    said = next(f.decision.reason for f in run.space.read_found() if f.decision and f.work.object_id == "ann-work-2")
    assert said.startswith(reason)
    assert said.endswith("; the curator's keep does not stand above rights")


def test_what_a_folder_says_is_said_once(run: Run, tmp_path: Path) -> None:
    """C2: a warning of the folder that both artists share comes once."""
    scans.scans(tmp_path / "scans")
    (tmp_path / "scans" / "README.txt").write_text("mine")
    run.collect(load_recipe(scans.recipe(tmp_path)))
    assert run.warnings() == [f"{tmp_path / 'scans'}: passed over, as no pictures: 1 × .txt"]


def test_museum_offline(run: Run, stocked: LocalMuseum, tmp_path: Path) -> None:
    """Without the museum there is one line that names the table."""
    stocked.offline = True
    with pytest.raises(InputError, match=r"/data/objects\.csv: could not be reached"):
        run.collect(pair(tmp_path, stocked))


# The National Gallery's restricted images: shown at 900 pixels, and scaled up to whatever is asked (issue 14, C)

BEHAVIOURS = {"redirected": (True, False), "info redirected too": (True, True), "in place": (False, False)}


@pytest.fixture
def restricted() -> Iterator[LocalMuseum]:
    """Homer, whose images are open, and Picasso, of whose large ones the museum sends 900 pixels."""
    with LocalMuseum() as server:
        server.add_artist(1401, "Homer, Winslow", "Winslow Homer", begin=1836, end=1910)
        server.add_artist(1783, "Picasso, Pablo", "Pablo Picasso", begin=1881, end=1973)
        for number in range(4):
            size = ((2400, 1600), (1600, 2300))[number % 2]
            server.add_work(100 + number, 1401, f"Sea {number}", endyear=1880, width=900, height=620)
            server.add_work(200 + number, 1783, f"Figure {number}", endyear=1905, openaccess=0, maxpixels=900,
                            width=size[0], height=size[1])  # fmt: skip
        yield server


def picasso(server: LocalMuseum, *more: str) -> Recipe:
    """The real recipe with its user's word given, for fewer works."""
    settings = (f"museum.tables={server.url}/data", "artists.0.works=3", "artists.1.works=3", "collect.pause=0",
                "curate.max_target=1", "artists.1.rights=acknowledge-restricted", "collect.reserve=1")  # fmt: skip
    return load_recipe(RECIPES / "atlantic-to-avignon.toml", (*settings, *more))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_restricted_images_come_at_their_own_size(tmp_path: Path, restricted: LocalMuseum, behaviour: str) -> None:
    """However the museum sends its 900 pixels, no more are asked for, and the Picasso recipe's works are kept."""
    restricted.cap_redirects, restricted.info_redirects = BEHAVIOURS[behaviour]
    space = pipeline.run(picasso(restricted), tmp_path / "runs", lambda _: None, until="curate")
    rows = [row for row in space.read_ledger() if row["artist"] == "Pablo Picasso" and row["sha256"]]
    assert {max(int(row["width"]), int(row["height"])) for row in rows} == {900}
    assert {row["capped"] for row in rows} == {"true"}
    assert sum(row["decision"] == "kept" for row in rows) == 3, [row["reason"] for row in rows]
    sizes = [path.split("/full/!")[1].split("/")[0] for _, path in restricted.requests if "/full/!" in path]
    assert max(int(side) for size in sizes for side in size.split(",")) == 900


@pytest.mark.slow
def test_unknown_cap_is_learned_from_the_redirect(tmp_path: Path, restricted: LocalMuseum) -> None:
    """Where `maxpixels` is no number, the ledger says so, and the stand-in is asked for at its own size."""
    for row in restricted._rows["published_images"]:
        row["maxpixels"] = "small" if row["maxpixels"] else None
    space = pipeline.run(picasso(restricted), tmp_path / "runs", lambda _: None, until="curate")
    rows = [row for row in space.read_ledger() if row["artist"] == "Pablo Picasso"]
    assert all("; maxpixels 'small' is not understood" in row["evidence"] for row in rows)
    assert {row["rights"] for row in rows} == {"restricted"}
    assert {max(int(row["width"]), int(row["height"])) for row in rows} == {900}


@pytest.mark.slow
def test_limits_that_a_capped_image_cannot_meet_say_why(tmp_path: Path, restricted: LocalMuseum) -> None:
    """A run that ends because the museum's images are small says that it sends no larger ones, and what to change."""
    with pytest.raises(InputError) as caught:
        pipeline.run(picasso(restricted, "base.resolution=768"), tmp_path / "runs", lambda _: None, until="curate")
    assert "Winslow Homer: 3 works are wanted" in str(caught.value)
    recipe = picasso(restricted, "base.resolution=768", "curate.min_edge=610")
    expected = (
        r"Pablo Picasso: .*900×600 pixels, at least 610 .*; the museum sends no larger image of this work: lower "
    )
    with pytest.raises(InputError, match=rf"{expected}curate\.min_edge"):
        pipeline.run(recipe, tmp_path / "runs", lambda _: None, until="curate")


@pytest.mark.parametrize(
    ("written", "most"),
    [("900", 900), (" 900 ", 900), ("900.0", 900), ("", 0), ("0", 0), ("-1", 0), ("1,200", 0), ("about 900", 0)],
)
def test_maxpixels_is_text(restricted: LocalMuseum, written: str, most: int) -> None:
    """`maxpixels` is read as a number where it is one; what is not understood is said in the evidence."""
    from avignon.museums import catalog
    from avignon.museums.http import Fetcher
    from avignon.museums.nga import Nga
    from avignon.museums.protocol import ArtistQuery

    for row in restricted._rows["published_images"]:
        row["maxpixels"] = written
    with Fetcher(pause=0) as fetcher:
        found = Nga(catalog.update(f"{restricted.url}/data", fetcher)).find(ArtistQuery("Pablo Picasso"))
    assert {each.work.most for each in found} == {most}
    told = {f"maxpixels {written!r} is not understood" in each.work.rights.evidence for each in found}
    assert told == {bool(written and not most)}


# A museum whose image host turns programs away (issue 14, C): its list is kept, and images are added by hand

CHICAGO = """
[museum]
kind = "artic"
api = "{api}"

[[artists]]
name = "Winslow Homer"
works = 2
classification = ["Painting"]
trigger = "in the style of winslow homer"

[[artists]]
name = "Mary Cassatt"
works = 2
trigger = "in the style of mary cassatt"

[base]
model = "embedded"
resolution = 64

[collect]
pause = 0
reserve = 2
max_edge = 300

[curate]
min_sharpness = 0.0
min_detail = 0.0

[generate]
scenes = [{{ prompt = "a boat" }}]
"""


@pytest.fixture
def chicago() -> Iterator[LocalArtic]:
    """The museum of Chicago, whose images are behind a challenge."""
    with LocalArtic() as server:
        server.challenged = frozenset({"/iiif"})
        yield server


def of_chicago(folder: Path, server: LocalArtic, *overrides: str) -> Recipe:
    """Homer and Cassatt, small."""
    path = folder / "pair.toml"
    path.write_text(CHICAGO.format(api=server.api), encoding="utf-8")
    return load_recipe(path, overrides)


@pytest.mark.parametrize("status", [403, 200, 503, 429])
def test_challenge_is_told_and_the_list_kept(run: Run, chicago: LocalArtic, tmp_path: Path, status: int) -> None:
    """A challenge page, whatever its status, ends in a line that says what it is and how to go on; all is listed."""
    chicago.challenge_status = status
    with pytest.raises(TurnedAway) as caught:
        run.collect(of_chicago(tmp_path, chicago))
    text = str(caught.value)
    assert "Winslow Homer: Art Institute of Chicago turns programs away at the moment: 2 works are wanted" in text
    assert "Mary Cassatt: Art Institute of Chicago turns programs away" in text
    assert "'Just a moment...'" in text
    assert "25800.jpg from https://www.artic.edu/artworks/25800" in text
    assert 'originals = "by-hand"' in text
    assert "raise collect.reserve" not in text
    assert "\n" not in text
    listed = Counter(found.work.artist for found in run.space.read_found())
    assert listed["Winslow Homer"] == 8
    assert listed["Mary Cassatt"] >= 2
    images = [asked for asked in chicago.asked if asked.path.startswith("/iiif")]
    assert len(images) <= 2 * MOST_REFUSALS  # A server that turns programs away is left alone.


def by_hand(folder: Path, *numbers: str) -> str:
    """Images saved by hand, under object ids; the folder's name."""
    folder.mkdir()
    for number in numbers:
        draw(int(number), 300, 200).save(folder / f"{number}.png")
    return folder.name


def test_images_added_by_hand_are_taken(run: Run, chicago: LocalArtic, tmp_path: Path) -> None:
    """What was saved under its object id is taken in place of fetching, and the ledger and the work say so."""
    cassatt = [str(record["id"]) for record in chicago.records["artworks"] if record["artist_title"] == "Mary Cassatt"]
    homer = by_hand(tmp_path / "homer", "25801", "25802")
    other = by_hand(tmp_path / "cassatt", *cassatt[:2])
    recipe = of_chicago(tmp_path, chicago, f"artists.0.originals={homer}", f"artists.1.originals={other}")
    assert run.carry(recipe) == ["collect", "curate"]
    kept = [row for row in run.space.read_ledger() if row["decision"] == "kept"]
    assert {row["object_id"] for row in kept} == {"25801", "25802", *cassatt[:2]}
    assert {row["by_hand"] for row in kept} == {"true"}
    assert sha256_of(run.space.root / kept[0]["file"]) == sha256_of(tmp_path / "homer" / f"{kept[0]['object_id']}.png")
    assert any("turns programs away at the moment; 2 of 4 images" in text for text in run.warnings())
    assert run.carry(recipe) == []
    draw(5, 320, 200).save(tmp_path / "homer" / "25801.png")
    assert run.carry(recipe, "collect") == ["collect"]
    changed = next(f.original for f in run.space.read_found() if f.work.object_id == "25801")
    assert changed is not None
    assert (changed.width, changed.by_hand) == (320, True)


def test_hand_opens_no_rights(run: Run, chicago: LocalArtic, tmp_path: Path) -> None:
    """An image by hand of a restricted work, of another hand's, or of nobody's is not used, and each is told why."""
    folder = by_hand(tmp_path / "homer", "25801", "25802", "25812", "25810", "999")
    recipe = of_chicago(tmp_path, chicago, f"artists.0.originals={folder}")
    with pytest.raises(TurnedAway, match="Mary Cassatt"):
        run.collect(recipe)
    used = {f.work.object_id for f in run.space.read_found() if f.original}
    assert used == {"25801", "25802"}
    warnings = "\n".join(run.warnings())
    assert "25812.png is not used: rights are restricted" in warnings
    assert "25810.png is not used: attribution is 'After Winslow Homer'" in warnings
    assert "999.png is not used: no work of Winslow Homer has this object id" in warnings


def test_folder_of_originals_is_checked(run: Run, chicago: LocalArtic, tmp_path: Path) -> None:
    """A folder that is not there is told with the recipe; two files of one id, and a broken one, before they matter."""
    with pytest.raises(RecipeError, match=r"artists\.0\.originals: .*nowhere: no such folder"):
        of_chicago(tmp_path, chicago, "artists.0.originals=nowhere")
    folder = by_hand(tmp_path / "homer", "25801")
    (tmp_path / "homer" / "25802.jpg").write_bytes(b"<html>")
    (tmp_path / "homer" / ".25803.jpg").write_bytes(b"")
    recipe = of_chicago(tmp_path, chicago, f"artists.0.originals={folder}")
    with pytest.raises(TurnedAway):
        run.collect(recipe)
    broken = next(f.decision for f in run.space.read_found() if f.work.object_id == "25802")
    assert broken is not None
    assert broken.reason.startswith("image: not a picture")
    draw(1, 30, 20).save(tmp_path / "homer" / "25801.jpg")
    with pytest.raises(InputError, match=r"25801\.jpg and 25801\.png are both named 25801; keep one"):
        run.collect(recipe)


def test_museum_that_lets_programs_in_again_is_asked(run: Run, chicago: LocalArtic, tmp_path: Path) -> None:
    """Off and on: the next run fetches what was unavailable, without a word in the recipe."""
    recipe = of_chicago(tmp_path, chicago)
    with pytest.raises(TurnedAway):
        run.carry(recipe)
    chicago.challenged = frozenset()
    assert run.carry(recipe) == ["collect", "curate"]


def test_ledger_of_the_version_before_is_read(run: Run, museum: LocalMuseum, tmp_path: Path) -> None:
    """A list and a ledger without the new fields are read with their defaults."""
    recipe = pair(tmp_path, museum, "curate.min_sharpness=0.0")
    run.carry(recipe)
    lines = [json.loads(line) for line in run.space.found.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        del line["work"]["most"]
        if line["original"]:
            del line["original"]["by_hand"]
    run.space.found.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = run.space.read_found()
    assert {each.work.most for each in found} == {0}
    assert not any(each.original and each.original.by_hand for each in found)
    assert "by_hand" in ledger.COLUMNS

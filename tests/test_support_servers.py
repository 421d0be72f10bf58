"""The stand-ins that the other tests lean on behave as the real things do."""

import csv
import io
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support import images
from tests.support.hub import LocalHub
from tests.support.museum import Fault, LocalMuseum, draw, fill
from tests.support.tiny_sd import make_tiny_sd

REPO = "someone/tiny-sd"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"

# Loads each revision named into a cache of its own, and draws with it.
LOAD = """
import os, sys
from diffusers import StableDiffusionPipeline
for revision in sys.argv[1:]:
    cache = os.path.join(os.environ["HF_HOME"], revision)
    pipe = StableDiffusionPipeline.from_pretrained("someone/tiny-sd", revision=revision, cache_dir=cache)
    print("size", *pipe("the sea", num_inference_steps=2).images[0].size)
"""

# Prints the class of the error that each expression ends in.
ERRORS = """
import huggingface_hub as hub
def attempt(call):
    try:
        call()
    except Exception as error:
        print(type(error).__name__)
    else:
        print("no error")
attempt(lambda: hub.hf_hub_download("no/such", "model_index.json"))
attempt(lambda: hub.model_info("no/such"))
attempt(lambda: hub.model_info("someone/tiny-sd", revision="no-such"))
attempt(lambda: hub.hf_hub_download("someone/tiny-sd", "no-such.json"))
attempt(lambda: hub.hf_hub_download("someone/gated", "model_index.json"))
attempt(lambda: hub.model_info("someone/broken"))
attempt(lambda: hub.snapshot_download("someone/tiny-sd", revision="next", allow_patterns="*.json"))
"""

RESUME = """
from huggingface_hub import hf_hub_download
print(hf_hub_download("someone/tiny-sd", "unet/diffusion_pytorch_model.safetensors"))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One miniature for the whole file."""
    return make_tiny_sd(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    """A hub with nothing on it."""
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def museum() -> Iterator[LocalMuseum]:
    """A museum with nothing in it."""
    with LocalMuseum() as museum:
        yield museum


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client that waits two seconds at most."""
    with httpx.Client(timeout=2, trust_env=False) as client:
        yield client


def python(code: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the hub's address is read once, when its client is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=kept | env, capture_output=True, text=True, timeout=120, check=False)


def rows(text: str) -> list[dict[str, str]]:
    """A table's rows."""
    return list(csv.DictReader(io.StringIO(text)))


def picture(response: httpx.Response) -> Image.Image:
    """The answer as an image."""
    response.raise_for_status()
    return Image.open(io.BytesIO(response.content))


# The miniature


def test_tiny_sd_is_small_whole_and_repeatable(tiny: Path, tmp_path: Path) -> None:
    """The miniature stays under a megabyte, and one seed gives one set of bytes."""
    again = make_tiny_sd(tmp_path / "again")
    other = make_tiny_sd(tmp_path / "other", seed=1, prediction_type="v_prediction")
    files = sorted(path.relative_to(tiny) for path in tiny.rglob("*") if path.is_file())
    assert sum((tiny / path).stat().st_size for path in files) < 1_000_000
    assert all((tiny / path).read_bytes() == (again / path).read_bytes() for path in files)
    assert (tiny / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()
    assert '"v_prediction"' in (other / "scheduler" / "scheduler_config.json").read_text()


def test_tiny_sd_draws_what_it_is_told(tiny: Path) -> None:
    """A plain StableDiffusionPipeline loads the miniature, and its picture answers to any prompt."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny)
    pipe.set_progress_bar_config(disable=True)

    def drawn(prompt: str) -> Image.Image:
        result = pipe(prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(0))
        return result.images[0]  # type: ignore[no-any-return]

    first, second = drawn("the sea"), drawn("été ☃ 海")
    assert first.size == second.size == (64, 64)
    assert np.asarray(first).std() > 5
    assert first.tobytes() != second.tobytes()


# The hub


@pytest.mark.slow
def test_pipeline_loads_from_hub_then_from_cache(hub: LocalHub, tiny: Path, tmp_path: Path) -> None:
    """from_pretrained downloads a branch and a commit from the local hub, and a second load needs no hub at all."""
    sha = hub.add(REPO, tiny)
    env = hub.environment(tmp_path / "home")
    online = python(LOAD, "main", sha, env=env)
    assert online.stdout == "size 64 64\n" * 2, online.stderr
    assert hub.asked_for(f"/resolve/{sha}/unet/config.json") == 2
    hub.close()
    offline = python(LOAD, "main", sha, env=env | {"HF_HUB_OFFLINE": "1"})
    assert offline.stdout == "size 64 64\n" * 2, offline.stderr


def test_hub_refuses_in_its_clients_words(hub: LocalHub, tiny: Path, tmp_path: Path) -> None:
    """What is missing, gated or broken raises the client's own error for it, and a second branch is found."""
    hub.add(REPO, tiny)
    hub.add(REPO, tiny / "unet", revision="next")
    hub.add("someone/gated", tiny, gated=True)
    hub.status["someone/broken"] = 500
    result = python(ERRORS, env=hub.environment(tmp_path))
    assert result.stdout.split("\n")[:-1] == [
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "RemoteEntryNotFoundError",
        "GatedRepoError",
        "HfHubHTTPError",
        "no error",
    ], result.stderr


def test_download_resumes_where_it_was_cut(hub: LocalHub, tiny: Path, tmp_path: Path) -> None:
    """A body that ends early is taken up again by Range, and the file is whole."""
    hub.add(REPO, tiny)
    hub.cut_after, hub.cut_by, hub.cuts_left = 100_000, "close", 1
    result = python(RESUME, env=hub.environment(tmp_path))
    assert Path(result.stdout.strip()).read_bytes() == (tiny / WEIGHTS).read_bytes(), result.stderr
    assert hub.cuts_left == 0


def test_hub_files_by_plain_http(hub: LocalHub, tiny: Path, client: httpx.Client) -> None:
    """A file tells its commit, tag and length; weights are elsewhere; a range is a range; a cut is a reset."""
    sha = hub.add(REPO, tiny)
    small = client.head(f"{hub.url}/{REPO}/resolve/main/model_index.json")
    assert small.headers["X-Repo-Commit"] == sha == hub.commit(REPO)
    assert int(small.headers["Content-Length"]) == (tiny / "model_index.json").stat().st_size
    large = client.head(f"{hub.url}/{REPO}/resolve/{sha}/{WEIGHTS}")
    assert large.status_code == 302
    assert int(large.headers["X-Linked-Size"]) == (tiny / WEIGHTS).stat().st_size
    part = client.get(large.headers["Location"], headers={"Range": "bytes=8-11"})
    assert (part.status_code, part.content) == (206, (tiny / WEIGHTS).read_bytes()[8:12])
    hub.cut_after = 1000
    with pytest.raises(httpx.ReadError):
        client.get(large.headers["Location"])


def test_unplugged_server_refuses_and_comes_back(hub: LocalHub, tiny: Path, client: httpx.Client) -> None:
    """Offline, even a connection already open is refused; back online, the address is the same."""
    hub.add(REPO, tiny)
    address = f"{hub.url}/api/models/{REPO}"
    assert client.get(address).status_code == 200
    hub.offline = True
    with pytest.raises(httpx.ConnectError):
        client.get(address)
    hub.offline = False
    assert client.get(address).status_code == 200
    assert hub.requests == [("GET", f"/api/models/{REPO}")] * 2


# The museum


@pytest.mark.parametrize("old", [False, True])
def test_museum_tables_join(client: httpx.Client, old: bool) -> None:
    """The tables join as the real ones do, in both sets of columns, and hold the pairs that `fill` promises."""
    with LocalMuseum(old_columns=old) as museum:
        fill(museum)
        names = ("objects", "objects_constituents", "constituents", "published_images", "objects_terms")
        tables = {name: rows(client.get(f"{museum.url}/data/{name}.csv").text) for name in names}
    assert (list(tables["objects"][0])[1] == "uuid") is not old
    assert ("openaccess" in tables["published_images"][0]) is not old
    by_object = {row["depictstmsobjectid"]: row for row in tables["published_images"]}
    assert by_object.keys() == {row["objectid"] for row in tables["objects"]}

    def made(artist: int, *roles: str) -> list[dict[str, str]]:
        parts = [row for row in tables["objects_constituents"] if row["constituentid"] == str(artist)]
        return [by_object[row["objectid"]] for row in parts if row["role"] in roles]

    assert [row["maxpixels"] for row in made(1401, "artist", "painter")] == [""] * 15
    assert [row["maxpixels"] for row in made(1783, "artist")] == ["900"] * 17
    assert len(made(1359, "artist")) == 17
    assert len(made(1401, "artist after")) == 3
    assert not made(847, "artist")


def test_museum_serves_true_sizes(museum: LocalMuseum, client: httpx.Client) -> None:
    """info.json tells the pixels there are, and an image comes in the size asked for, JPEG, its length told."""
    name = museum.add_work(1, 1401, "A Work", width=600, height=400)
    given = museum.add_work(2, 1401, "Another", image=Image.new("RGB", (50, 70), "red"))
    iiif = f"{museum.url}/iiif"
    assert client.get(f"{iiif}/{given}/info.json").json()["height"] == 70
    info = client.get(f"{iiif}/{name}/info.json").json()
    assert (info["width"], info["height"]) == (600, 400)
    for size, pixels in {
        "!300,300": (300, 200),
        "120,120": (120, 120),
        "150,": (150, 100),
        "full": (600, 400),
        "max": (600, 400),
        "!900,900": (900, 600),
    }.items():
        response = client.get(f"{iiif}/{name}/full/{size}/0/default.jpg")
        assert picture(response).size == pixels
        assert int(response.headers["Content-Length"]) == len(response.content)
    for size in ("wide", ",", "0,0", "!300,"):
        assert client.get(f"{iiif}/{name}/full/{size}/0/default.jpg").status_code == 400


def test_capped_image_is_a_blurred_stand_in(museum: LocalMuseum, client: httpx.Client) -> None:
    """A restricted image answers 303, and what it leads to has the pixels asked for but not their detail."""
    noise = Image.effect_noise((1000, 500), 90).convert("RGB")
    capped = museum.add_work(1, 1783, "Capped", image=noise, openaccess=0, maxpixels=100)
    first = client.get(f"{museum.url}/iiif/{capped}/full/!800,800/0/default.jpg")
    assert first.status_code == 303
    assert first.headers["Location"] == f"{museum.url}/iiif/{capped}__100/full/!800,800/0/default.jpg"
    stand_in = picture(client.get(first.headers["Location"]))
    assert stand_in.size == (800, 400)
    assert np.diff(np.asarray(stand_in.convert("L"), dtype=float)).std() < 20
    assert client.get(f"{museum.url}/iiif/{capped}/info.json").json()["width"] == 1000
    assert client.get(f"{museum.url}/iiif/{capped}__100/info.json").json()["width"] == 100
    unknown = client.get(f"{museum.url}/iiif/no-such/full/max/0/default.jpg")
    assert (unknown.status_code, "no-such__300" in unknown.headers["Location"]) == (303, True)


def test_faults_are_used_up_in_order(museum: LocalMuseum, client: httpx.Client) -> None:
    """Each fault spoils the answers it was meant for, once each, and then all is well."""
    name = museum.add_work(1, 1401, "A Work", width=300, height=200)
    address = f"{museum.url}/iiif/{name}/full/max/0/default.jpg"
    museum.fault(name, Fault.status(500), times=2)
    museum.fault("/iiif/", Fault.status(429, retry_after=1))
    museum.fault("/iiif/", Fault.html())
    museum.fault("/iiif/", Fault.short(500))
    assert [client.get(address).status_code for _ in range(2)] == [500, 500]
    assert client.get(address).headers["Retry-After"] == "1"
    assert client.get(address).headers["Content-Type"] == "text/html"
    with pytest.raises(OSError, match=r"(?i)truncated"):
        picture(client.get(address)).load()
    museum.fault(name, Fault.truncate(500))
    museum.fault(name, Fault.reset(500))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(address)
    with pytest.raises(httpx.ReadError):
        client.get(address)
    museum.fault(name, Fault.hang(30))
    with pytest.raises(httpx.ReadTimeout):
        client.get(address, timeout=0.1)
    assert picture(client.get(address)).size == (300, 200)
    assert museum.asked_for(name) == 9


def test_hanging_server_closes_at_once(museum: LocalMuseum, client: httpx.Client) -> None:
    """Closing the museum does not wait for the answers it holds back."""
    museum.fault("/data/", Fault.hang(30))
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{museum.url}/data/objects.csv", timeout=0.1)
    start = time.monotonic()
    museum.close()
    assert time.monotonic() - start < 1


def test_unchanged_table_is_not_sent_again(museum: LocalMuseum, client: httpx.Client) -> None:
    """A table's tag answers 304 until a row is added."""
    address = f"{museum.url}/data/objects.csv"
    tag = client.get(address).headers["ETag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    museum.add_work(1, 1401, "A Work")
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 200


def test_no_two_drawn_pictures_look_alike() -> None:
    """Difference hashes of the drawn pictures are far apart, so that no test trips over near-duplicates by chance."""
    numbers = [30228, 46665, *range(900101, 900115), *range(900201, 900217), *range(900301, 900318)]
    hashes = [difference_hash(draw(number, 120, 80)) for number in numbers]
    assert min((one != two).sum() for one, two in itertools.combinations(hashes, 2)) > 10


def difference_hash(image: Image.Image) -> np.ndarray:
    """Whether each of 8×8 cells is darker than its right neighbour."""
    grey = np.asarray(image.convert("L").resize((9, 8)), dtype=int)
    return grey[:, 1:] > grey[:, :-1]


# The awkward pictures


@pytest.mark.parametrize(
    ("maker", "mode", "size"),
    [
        (images.plain, "RGB", (96, 64)),
        (images.one_pixel, "RGB", (1, 1)),
        (images.cmyk_jpeg, "CMYK", (96, 64)),
        (images.sixteen_bit_png, "I;16", (96, 64)),
        (images.rgba_png, "RGBA", (96, 64)),
        (images.palette_png, "P", (96, 64)),
        (images.exif_rotated_jpeg, "RGB", (96, 64)),
        (images.wide_gamut, "RGB", (96, 64)),
        (images.broken_profile, "RGB", (96, 64)),
    ],
)
def test_awkward_pictures_are_what_they_say(
    tmp_path: Path, maker: Callable[[Path], Path], mode: str, size: tuple[int, int]
) -> None:
    """Each sound but awkward picture decodes, in the mode and size it is named for."""
    with Image.open(maker(tmp_path)) as image:
        image.load()
        assert (image.mode, image.size) == (mode, size)


def test_frames_and_orientation_are_there(tmp_path: Path) -> None:
    """The animation has three frames, and the turned JPEG says by how much."""
    with Image.open(images.animated_gif(tmp_path)) as image:
        assert getattr(image, "n_frames", 1) == 3
    with Image.open(images.exif_rotated_jpeg(tmp_path)) as image:
        assert image.getexif()[0x0112] == 6


def test_broken_pictures_break(tmp_path: Path) -> None:
    """What is no picture does not open, what is cut opens and does not load, and the bomb is refused unopened."""
    for maker in (images.not_an_image, images.empty):
        with pytest.raises(OSError, match="cannot identify"):
            Image.open(maker(tmp_path))
    with Image.open(images.truncated_jpeg(tmp_path)) as image, pytest.raises(OSError, match="truncated"):
        image.load()
    path = images.bomb(tmp_path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


def test_wide_gamut_is_more_colourful_than_it_reads(tmp_path: Path) -> None:
    """Taken through its profile, the picture's red is redder in sRGB; a grey stays grey."""
    with Image.open(images.wide_gamut(tmp_path)) as image:
        assert in_srgb(image)[0] > 205
        assert in_srgb(image)[1] < 50
    with Image.open(images.wide_gamut(tmp_path, colour=(128, 128, 128))) as image:
        assert all(abs(value - 128) <= 1 for value in in_srgb(image))


def in_srgb(image: Image.Image) -> tuple[int, ...]:
    """The first pixel's colour in sRGB, by the image's own profile."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert converted is not None
    pixel = converted.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return tuple(int(value) for value in pixel)

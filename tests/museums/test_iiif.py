"""Images by IIIF: what a server of each kind is asked for, and what is made of its answer."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from avignon.core.errors import FetchError, ImageError
from avignon.core.imaging import size_of
from avignon.museums.http import Fetcher
from avignon.museums.iiif import Images
from tests.support import Asked, LocalServer, Reply

IMAGE = "https://images.test/iiif/some-id"

AskedFor = list[str]


def jpeg(width: int, height: int) -> bytes:
    """A JPEG of a size."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Images, AskedFor]]]:
    """A server of one image with the given description, which sends a picture of the given size."""
    clients: list[Fetcher] = []

    def make(
        info: dict[str, Any], sent: tuple[int, int], max_edge: int = 600, image: str = IMAGE
    ) -> tuple[Images, AskedFor]:
        asked: AskedFor = []

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/info.json"):
                return httpx.Response(200, content=json.dumps(info))
            asked.append(str(request.url).removeprefix(image))
            return httpx.Response(200, content=jpeg(*sent))

        clients.append(Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}))
        return Images(clients[-1], max_edge), asked

    yield make
    for client in clients:
        client.__exit__(None, None, None)


LEVEL_2: dict[str, Any] = {
    "@context": "http://iiif.io/api/image/2/context.json",
    "@id": IMAGE,
    "width": 3000,
    "height": 2000,
    "profile": ["http://iiif.io/api/image/2/level2.json"],
}
SIZES = [{"width": width, "height": height} for width, height in ((150, 100), (750, 500), (1500, 1000))]
LEVEL_0 = {**LEVEL_2, "profile": ["http://iiif.io/api/image/2/level0.json"], "sizes": SIZES}
THIRD: dict[str, Any] = {
    "@context": "http://iiif.io/api/image/3/context.json",
    "id": IMAGE,
    "type": "ImageService3",
    "width": 3000,
    "height": 2000,
    "profile": "level2",
}
THIRD_0 = {**THIRD, "profile": "level0", "sizes": [{"width": 750, "height": 500}]}


@pytest.mark.parametrize(
    ("info", "max_edge", "parameter", "size"),
    [
        (LEVEL_2, 600, "!600,400", (600, 400)),
        (LEVEL_2, 4096, "!3000,2000", (3000, 2000)),
        (
            {**LEVEL_2, "profile": "http://library.stanford.edu/iiif/image-api/compliance.html#level1"},
            600,
            "!600,400",
            (600, 400),
        ),
        ({"width": 3000, "height": 2000}, 600, "!600,400", (600, 400)),
        ({**LEVEL_2, "profile": [LEVEL_2["profile"][0], {"maxWidth": 450}]}, 600, "!450,300", (450, 300)),
        (
            {**LEVEL_2, "profile": [LEVEL_2["profile"][0], {"maxWidth": 2000, "maxHeight": 200}]},
            600,
            "!300,200",
            (300, 200),
        ),
        ({**THIRD, "maxArea": 60_000}, 600, "!300,200", (300, 200)),
        (LEVEL_0, 600, "750,", (750, 500)),
        (LEVEL_0, 1000, "1500,", (1500, 1000)),
        (LEVEL_0, 4096, "full", (3000, 2000)),
        ({**LEVEL_0, "sizes": []}, 600, "full", (3000, 2000)),
        ({**LEVEL_0, "sizes": "many"}, 600, "full", (3000, 2000)),
        (THIRD, 600, "!600,400", (600, 400)),
        (THIRD_0, 600, "750,500", (750, 500)),
        (THIRD_0, 900, "max", (3000, 2000)),
    ],
)
def test_each_server_is_asked_in_its_own_way(
    serve: Callable[..., tuple[Images, AskedFor]],
    info: dict[str, Any],
    max_edge: int,
    parameter: str,
    size: tuple[int, int],
) -> None:
    """Level 1 and 2 scale; level 0 sends the smallest of its sizes that is large enough; limits are kept."""
    images, asked = serve(info, size, max_edge)
    received = images.receive(IMAGE)
    assert asked == [f"/full/{parameter}/0/default.jpg"]
    assert size_of(received.content) == size
    assert not received.capped


@pytest.mark.parametrize("name", ["ark:%2F12148%2Fbtv1b84", "id with spaces", "été", "a.b_c~d"])
def test_ids_are_sent_as_they_are_written(serve: Callable[..., tuple[Images, AskedFor]], name: str) -> None:
    """An id of IIIF 3 may hold escaped slashes, spaces and any letters: it is sent as it is, not escaped again."""
    image = f"https://images.test/iiif/3/{name}"
    images, asked = serve(THIRD, (600, 400), image=str(httpx.URL(image)))
    images.receive(image)
    assert asked == ["/full/!600,400/0/default.jpg"]


@pytest.mark.parametrize("ending", ["__900", "__300"])
@pytest.mark.parametrize("info_too", [False, True])
def test_stand_ins_are_recognised(ending: str, info_too: bool) -> None:
    """A redirect to the museum's small stand-in, of 900 or of 300 pixels, is followed and marked as capped."""

    def answer(request: httpx.Request) -> httpx.Response:
        is_info = request.url.path.endswith("/info.json")
        if ending not in str(request.url) and (info_too or not is_info):
            return httpx.Response(303, headers={"Location": str(request.url).replace("some-id", f"some-id{ending}")})
        return httpx.Response(200, content=json.dumps(LEVEL_2) if is_info else jpeg(600, 400))

    with Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}) as client:
        assert Images(client, 600).receive(IMAGE).capped


@pytest.mark.parametrize("sent", [(600, 402), (598, 400), (1200, 800), (400, 600), (1, 1)])
def test_other_sizes_than_promised_are_faults(
    serve: Callable[..., tuple[Images, AskedFor]], sent: tuple[int, int]
) -> None:
    """Smaller, larger, turned: whatever is not the size that was asked for is refused with both sizes."""
    images, asked = serve(LEVEL_2, sent)
    with pytest.raises(ImageError, match=rf"{sent[0]}×{sent[1]} pixels came where 600×400 were promised"):
        images.receive(IMAGE)
    assert len(asked) == 4


@pytest.mark.parametrize("sent", [(600, 401), (599, 400), (601, 399)])
def test_a_pixel_of_rounding_is_none(serve: Callable[..., tuple[Images, AskedFor]], sent: tuple[int, int]) -> None:
    """Servers round as they like."""
    images, _ = serve(LEVEL_2, sent)
    assert size_of(images.receive(IMAGE).content) == sent


@pytest.mark.parametrize(
    "info", [{}, {"width": -1, "height": 5}, {"width": "x", "height": 5}, {"width": None, "height": 1}]
)
def test_descriptions_without_a_size_are_refused(
    serve: Callable[..., tuple[Images, AskedFor]], info: dict[str, Any]
) -> None:
    """Without width and height nothing is asked for."""
    images, asked = serve(info, (1, 1))
    with pytest.raises(FetchError, match=r"info\.json: not a IIIF description"):
        images.receive(IMAGE)
    assert asked == []


# Level 0 with tiles only (issue 14, C): a folder of static files, written here as tilers write them


def picture(width: int, height: int) -> Image.Image:
    """A picture of which no two places look alike."""
    image = Image.new("RGB", (width, height))
    image.putdata([(255 * x // width, 255 * y // height, (x + y) % 256) for y in range(height) for x in range(width)])
    return image


class StaticTiles(LocalServer):
    """Serves tiles from a dictionary by path, and nothing else: no scaling, no whole picture."""

    def __init__(self, image: Image.Image, info: dict[str, Any], *, third: bool, whole_as_region: bool = False) -> None:
        self.image, self.info = image, info
        self.files: dict[str, Image.Image] = {}
        for tiling in info["tiles"]:
            for scale in tiling["scaleFactors"]:
                self.cut(int(tiling["width"]), int(tiling.get("height", tiling["width"])), int(scale), third,
                         whole_as_region)  # fmt: skip
        super().__init__()

    def cut(self, across: int, down: int, scale: int, third: bool, whole_as_region: bool) -> None:
        """Write the tiles of one scale under their canonical addresses (2.1 and 3.0, 4.7)."""
        width, height = self.image.size
        for top in range(0, height, down * scale):
            for left in range(0, width, across * scale):
                box = (left, top, min(left + across * scale, width), min(top + down * scale, height))
                size = -(-(box[2] - left) // scale), -(-(box[3] - top) // scale)
                region = f"{left},{top},{box[2] - left},{box[3] - top}"
                if region == f"0,0,{width},{height}" and not whole_as_region:
                    region = "full"
                written = f"{size[0]},{size[1]}" if third else f"{size[0]},"
                self.files[f"/iiif/it/{region}/{written}/0/default.jpg"] = self.image.crop(box).resize(size)

    def answer(self, asked: Asked) -> Reply:
        """A file that there is."""
        if asked.path == "/iiif/it/info.json":
            return Reply(200, json.dumps(self.info).encode())
        if asked.path not in self.files:
            return Reply(404)
        buffer = io.BytesIO()
        self.files[asked.path].save(buffer, "JPEG", quality=97, subsampling=0)
        return Reply(200, buffer.getvalue())


def tiled(size: tuple[int, int], tiles: list[dict[str, Any]], *, third: bool, **more: Any) -> dict[str, Any]:
    """A description of a level-0 image with these tiles."""
    start = THIRD_0 if third else LEVEL_0
    info = {**start, "width": size[0], "height": size[1], "tiles": tiles, **more}
    return {key: value for key, value in info.items() if key in more or key != "sizes"}


TILES = [{"width": 64, "scaleFactors": [1, 2, 4]}]


@pytest.mark.parametrize("third", [False, True], ids=["2.1", "3.0"])
@pytest.mark.parametrize(
    ("size", "tiles", "max_edge", "joined"),
    [
        ((300, 201), TILES, 100, (150, 101)),  # Scale 4 gives 75 pixels, too few; 2 is the smallest that is enough.
        ((300, 201), TILES, 75, (75, 51)),
        ((300, 201), TILES, 4096, (300, 201)),
        ((301, 200), [{"width": 64, "height": 48, "scaleFactors": [1, 2]}], 151, (151, 100)),
        ((301, 200), [{"width": "64", "scaleFactors": ["1", "2"]}], 151, (151, 100)),
        ((300, 201), [{"width": 64, "scaleFactors": [4]}], 4096, (75, 51)),  # All that there is.
        ((300, 201), [{"width": 64, "scaleFactors": [1]}, {"width": 128, "scaleFactors": [1]}], 4096, (300, 201)),
        ((50, 40), TILES, 4096, (50, 40)),
    ],
)
def test_tiles_are_joined(
    third: bool, size: tuple[int, int], tiles: list[dict[str, Any]], max_edge: int, joined: tuple[int, int]
) -> None:
    """The smallest scale that is large enough is joined from its canonical addresses; no seam, no shift."""
    image = picture(*size)
    with StaticTiles(image, tiled(size, tiles, third=third), third=third) as server, Fetcher(pause=0) as client:
        received = Images(client, max_edge).receive(f"{server.url}/iiif/it")
        asked = [path for _, path in server.requests if path.endswith(".jpg")]
    assert size_of(received.content) == joined
    assert (received.suffix, received.capped) == (".png", False)
    expected = np.asarray(image.resize(joined), dtype=float)
    got = np.asarray(Image.open(io.BytesIO(received.content)).convert("RGB"), dtype=float)
    assert np.abs(got - expected).mean() < 6
    assert set(asked) <= set(server.files)  # Not one address that the tiler did not write.


@pytest.mark.parametrize("third", [False, True], ids=["2.1", "3.0"])
def test_whole_tile_may_be_written_as_a_region(third: bool) -> None:
    """Some tilers write a tile that covers the picture by its region, others as `full`: both are found."""
    info = tiled((60, 40), TILES, third=third)
    server = StaticTiles(picture(60, 40), info, third=third, whole_as_region=True)
    with server, Fetcher(pause=0) as client:
        assert size_of(Images(client, 4096).receive(f"{server.url}/iiif/it").content) == (60, 40)


def test_ready_size_stands_before_tiles(serve: Callable[..., tuple[Images, AskedFor]]) -> None:
    """One picture that is large enough is better than many tiles."""
    images, asked = serve({**LEVEL_0, "tiles": TILES}, (750, 500))
    images.receive(IMAGE)
    assert asked == ["/full/750,/0/default.jpg"]


def test_lost_tile_is_told() -> None:
    """A tile that is not there is the reason, with its address; half a picture is none."""
    info = tiled((300, 201), TILES, third=False)
    with StaticTiles(picture(300, 201), info, third=False) as server, Fetcher(pause=0) as client:
        del server.files["/iiif/it/128,0,128,128/64,/0/default.jpg"]
        with pytest.raises(FetchError, match=r"/128,0,128,128/64,/0/default\.jpg: the server answers 404"):
            Images(client, 100).receive(f"{server.url}/iiif/it")


def test_too_many_tiles_are_told(serve: Callable[..., tuple[Images, AskedFor]]) -> None:
    """A gigapixel image in tiles of one scale is not asked for ten thousand times."""
    info = tiled((60_000, 40_000), [{"width": 256, "scaleFactors": [1, 2]}], third=False)
    images, asked = serve(info, (1, 1))
    with pytest.raises(ImageError, match=r"there are only tiles \(9,322 for 30000×20000 pixels\); at most 1,100"):
        images.receive(IMAGE)
    assert asked == []


@pytest.mark.parametrize("tiles", ["many", [], [5], [{"width": 0, "scaleFactors": [1]}], [{"width": 64}],
                                   [{"width": 64, "scaleFactors": ["x", -1, None]}]])  # fmt: skip
def test_nothing_to_join_says_so(tiles: Any) -> None:
    """Without a ready size and tiles that can be joined, the whole picture is tried, and the reason says all."""
    info = {**LEVEL_0, "sizes": [], "tiles": tiles}

    def answer(request: httpx.Request) -> httpx.Response:
        is_info = request.url.path.endswith("/info.json")
        return httpx.Response(200, content=json.dumps(info)) if is_info else httpx.Response(404)

    with Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}) as client:
        with pytest.raises(FetchError) as caught:
            Images(client, 600).receive(IMAGE)
        assert "/full/full/0/default.jpg: the server answers 404" in str(caught.value)
        assert "does not scale (IIIF level 0), and lists neither a size" in str(caught.value)


# Relatives: text for numbers, other formats, caps


@pytest.mark.parametrize(
    ("info", "parameter", "size"),
    [
        ({**LEVEL_2, "width": "3000", "height": "2000"}, "!600,400", (600, 400)),
        ({**LEVEL_2, "width": 3000.0, "height": "2000.0"}, "!600,400", (600, 400)),
        ({**THIRD, "maxWidth": "450"}, "!450,300", (450, 300)),
        ({**LEVEL_0, "sizes": [{"width": "750", "height": "500"}]}, "750,", (750, 500)),
    ],
)
def test_numbers_may_be_text(
    serve: Callable[..., tuple[Images, AskedFor]], info: dict[str, Any], parameter: str, size: tuple[int, int]
) -> None:
    """A description whose numbers are written as text says the same."""
    images, asked = serve(info, size)
    images.receive(IMAGE)
    assert asked == [f"/full/{parameter}/0/default.jpg"]


@pytest.mark.parametrize(("kind", "suffix"), [("WEBP", ".webp"), ("PNG", ".png"), ("JPEG", ".jpg"), ("GIF", ".gif")])
def test_another_format_than_asked_for_is_named_as_it_is(kind: str, suffix: str) -> None:
    """A server that sends WebP or PNG under `default.jpg` is believed by the bytes."""

    def answer(request: httpx.Request) -> httpx.Response:
        buffer = io.BytesIO()
        Image.new("RGB", (600, 400), "teal").save(buffer, kind)
        is_info = request.url.path.endswith("/info.json")
        return httpx.Response(200, content=json.dumps(LEVEL_2) if is_info else buffer.getvalue())

    with Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}) as client:
        assert Images(client, 600).receive(IMAGE).suffix == suffix


@pytest.mark.parametrize(
    ("most", "parameter", "size", "capped"),
    [
        (0, "!1200,800", (1200, 800), False),
        (900, "!900,600", (900, 600), True),
        (4000, "!1200,800", (1200, 800), False),
        (3000, "!1200,800", (1200, 800), False),
    ],
)
def test_no_more_than_the_museums_cap_is_asked_for(
    serve: Callable[..., tuple[Images, AskedFor]], most: int, parameter: str, size: tuple[int, int], capped: bool
) -> None:
    """min(max_edge, maxpixels, true size); what is shown smaller than it is, is marked."""
    images, asked = serve(LEVEL_2, size, 1200)
    received = images.receive(IMAGE, most)
    assert asked == [f"/full/{parameter}/0/default.jpg"]
    assert received.capped is capped
    assert images.source(IMAGE, most) != images.source(IMAGE) or most in (0, 3000, 4000)


def test_stand_in_is_asked_for_at_its_own_size() -> None:
    """A server that redirects to `__900` and scales that up is asked again for the 900 pixels that there are."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/info.json"):
            return httpx.Response(200, content=json.dumps(LEVEL_2))
        if "__900" not in str(request.url):
            return httpx.Response(303, headers={"Location": str(request.url).replace("some-id", "some-id__900")})
        size = str(request.url).split("/full/!")[1].split("/")[0]
        asked.append(size)
        width, height = map(int, size.split(","))
        return httpx.Response(200, content=jpeg(width, height))

    with Fetcher(pause=0, mounts={"https://": httpx.MockTransport(answer)}) as client:
        received = Images(client, 2048).receive(IMAGE)
    assert asked == ["2048,1365", "900,600"]
    assert size_of(received.content) == (900, 600)
    assert received.capped

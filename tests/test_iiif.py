"""Images by IIIF: what a server of each kind is asked for, and what is made of its answer."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from avignon.errors import FetchError, ImageError
from avignon.fetch import Fetcher
from avignon.imaging import size_of
from avignon.museums.iiif import Images

IMAGE = "https://images.test/iiif/some-id"

Asked = list[str]


def jpeg(width: int, height: int) -> bytes:
    """A JPEG of a size."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Images, Asked]]]:
    """A server of one image with the given description, which sends a picture of the given size."""
    clients: list[Fetcher] = []

    def make(
        info: dict[str, Any], sent: tuple[int, int], max_edge: int = 600, image: str = IMAGE
    ) -> tuple[Images, Asked]:
        asked: Asked = []

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
    serve: Callable[..., tuple[Images, Asked]],
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
def test_ids_are_sent_as_they_are_written(serve: Callable[..., tuple[Images, Asked]], name: str) -> None:
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
    serve: Callable[..., tuple[Images, Asked]], sent: tuple[int, int]
) -> None:
    """Smaller, larger, turned: whatever is not the size that was asked for is refused with both sizes."""
    images, asked = serve(LEVEL_2, sent)
    with pytest.raises(ImageError, match=rf"{sent[0]}×{sent[1]} pixels came where 600×400 were promised"):
        images.receive(IMAGE)
    assert len(asked) == 4


@pytest.mark.parametrize("sent", [(600, 401), (599, 400), (601, 399)])
def test_a_pixel_of_rounding_is_none(serve: Callable[..., tuple[Images, Asked]], sent: tuple[int, int]) -> None:
    """Servers round as they like."""
    images, _ = serve(LEVEL_2, sent)
    assert size_of(images.receive(IMAGE).content) == sent


@pytest.mark.parametrize(
    "info", [{}, {"width": -1, "height": 5}, {"width": "x", "height": 5}, {"width": None, "height": 1}]
)
def test_descriptions_without_a_size_are_refused(
    serve: Callable[..., tuple[Images, Asked]], info: dict[str, Any]
) -> None:
    """Without width and height nothing is asked for."""
    images, asked = serve(info, (1, 1))
    with pytest.raises(FetchError, match=r"info\.json: not a IIIF description"):
        images.receive(IMAGE)
    assert asked == []

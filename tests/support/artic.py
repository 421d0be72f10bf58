"""The Art Institute of Chicago on 127.0.0.1: its API's search, page by page, and its images by IIIF Image API 2.

The records are those of tests/fixtures/artic, written from the public documentation; nothing here was recorded.
"""

import io
import json
from typing import Any

from tests.support import Asked, LocalServer, Reply
from tests.support.museum import draw, wanted_size
from tests.support.paths import FIXTURES

ARTIC = FIXTURES / "artic"


class LocalArtic(LocalServer):
    """Answers `/api/v1/<kind>/search` and `/iiif/2/<image>/…`."""

    def __init__(self) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {
            kind: json.loads((ARTIC / f"{kind}.json").read_text(encoding="utf-8")) for kind in ("agents", "artworks")
        }
        self.asked: list[Asked] = []
        self.page_size = 3
        """Records a page, however many are asked for: the real one gives at most 100."""
        self.window = 1000
        """Records that a guest may read of one search; beyond it is a 403."""
        self.sorts = True
        """Whether searches come in the order asked for."""
        self.challenged: frozenset[str] = frozenset()
        """Paths that begin so are answered with a page for people."""
        self.challenge_status = 403
        super().__init__()

    @property
    def api(self) -> str:
        """What a recipe names."""
        return f"{self.url}/api/v1"

    def answer(self, asked: Asked) -> Reply:
        """Serve the API and the images."""
        self.asked.append(asked)
        if any(asked.path.startswith(path) for path in self.challenged):
            return challenge(self.challenge_status)
        match asked.parts:
            case ("api", "v1", kind, "search") if kind in self.records:
                return self._search(kind, asked.query)
            case ("iiif", "2", image, *rest):
                return self._image(image, rest)
        return Reply(404, b"{}")

    def _search(self, kind: str, query: dict[str, str]) -> Reply:
        """The documented form: one JSON value in `params`."""
        asked = json.loads(query["params"])
        fields = asked["fields"].split(",")
        found = [record for record in self.records[kind] if _matches(record, asked)]
        if asked.get("sort") and self.sorts:
            found.sort(key=lambda record: [record[name] for each in asked["sort"] for name in each])
        size, page = min(self.page_size, int(asked["limit"])), int(asked.get("page", 1))
        if size * page > self.window:
            return Reply(403, b'{"status":403,"error":"Invalid number of results"}')
        data = [{k: v for k, v in record.items() if k in (*fields, "_score")} for record in found]
        pages = -(-len(found) // size)
        body = {
            "preference": None,
            "pagination": {"total": len(found), "limit": size, "offset": size * (page - 1), "total_pages": pages,
                           "current_page": page},
            "data": data[size * (page - 1) : size * page],
            "info": {"license_text": "The data in this response is licensed under CC0 1.0.", "version": "1.13"},
            "config": {"iiif_url": f"{self.url}/iiif/2", "website_url": "https://www.artic.edu"},
        }  # fmt: skip
        return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _image(self, image: str, rest: list[str]) -> Reply:
        record = next((each for each in self.records["artworks"] if each["image_id"] == image), None)
        if record is None:
            return Reply(404)
        true = (record["thumbnail"]["width"], record["thumbnail"]["height"])
        if rest == ["info.json"]:
            return Reply(200, json.dumps(_information(f"{self.url}/iiif/2/{image}", true)).encode())
        wanted = wanted_size(rest[1], true)
        if wanted is None:
            return Reply(400)
        buffer = io.BytesIO()
        draw(record["id"], *true).resize(wanted).save(buffer, "JPEG", quality=92)
        return Reply(200, buffer.getvalue(), {"Content-Type": "image/jpeg"})


def challenge(status: int = 403) -> Reply:
    """The page that the museum's image host shows to programs since December 2025."""
    page = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>challenge-platform</body></html>"
    return Reply(status, page, {"Content-Type": "text/html; charset=UTF-8", "cf-mitigated": "challenge"})


def _matches(record: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Elasticsearch's queries on a field, alone or joined by `bool`, or words in the title, as `q` finds them."""
    if "query" in asked:
        return _fits(record, asked["query"])
    words = asked["q"].lower().split()
    return any(word in str(record["title"]).lower() for word in words)


def _fits(record: dict[str, Any], query: dict[str, Any]) -> bool:
    ((kind, inner),) = query.items()  # More than one is "[term] malformed query", as the real one says.
    match kind:
        case "bool":
            return all(_fits(record, each) for each in inner["must"])
        case "term":
            return all(record[name] == value for name, value in inner.items())
        case "range":
            return all(record[name] > limits["gt"] for name, limits in inner.items())
    raise AssertionError(query)


def _information(name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "@context": "http://iiif.io/api/image/2/context.json",
        "@id": name,
        "protocol": "http://iiif.io/api/image",
        "width": size[0],
        "height": size[1],
        "profile": ["http://iiif.io/api/image/2/level2.json"],
    }

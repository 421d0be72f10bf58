"""The Art Institute of Chicago on 127.0.0.1: its API's search, page by page, and its images by IIIF Image API 2.

The records are those of tests/fixtures/artic, written from the public documentation; nothing here was recorded.
"""

import io
import json
from pathlib import Path
from typing import Any

from tests.support import Asked, LocalServer, Reply
from tests.support.museum import draw, wanted_size

FIXTURES = Path(__file__).parents[1] / "fixtures" / "artic"


class LocalArtic(LocalServer):
    """Answers `/api/v1/<kind>/search` and `/iiif/2/<image>/…`."""

    def __init__(self) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {
            kind: json.loads((FIXTURES / f"{kind}.json").read_text(encoding="utf-8")) for kind in ("agents", "artworks")
        }
        self.asked: list[Asked] = []
        self.page_size = 3
        """Records a page, however many are asked for: the real one gives at most 100."""
        super().__init__()

    @property
    def api(self) -> str:
        """What a recipe names."""
        return f"{self.url}/api/v1"

    def answer(self, asked: Asked) -> Reply:
        """Serve the API and the images."""
        self.asked.append(asked)
        match asked.parts:
            case ("api", "v1", kind, "search") if kind in self.records:
                return self._search(kind, asked.query)
            case ("iiif", "2", image, *rest):
                return self._image(image, rest)
        return Reply(404, b"{}")

    def _search(self, kind: str, query: dict[str, str]) -> Reply:
        fields = query["fields"].split(",")
        found = [record for record in self.records[kind] if _matches(record, query)]
        size, page = min(self.page_size, int(query["limit"])), int(query["page"])
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


def _matches(record: dict[str, Any], query: dict[str, str]) -> bool:
    """Elasticsearch's term queries on a field, or words in the title, as the API's `q` finds them."""
    for name, value in query.items():
        if name.startswith("query[term]"):
            return str(record[name.removeprefix("query[term][").removesuffix("]")]) == value
    words = query.get("q", "").lower().split()
    return any(word in str(record["title"]).lower() for word in words)


def _information(name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "@context": "http://iiif.io/api/image/2/context.json",
        "@id": name,
        "protocol": "http://iiif.io/api/image",
        "width": size[0],
        "height": size[1],
        "profile": ["http://iiif.io/api/image/2/level2.json"],
    }

"""The contact sheet: every work that has a picture at one glance, kept and rejected, before anything is trained.

One image file to pass round, and one page on which each work stands with its reason and the line that overrules it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from avignon import imaging

EDGE = 220
"""Longest side of a picture on the sheet, in pixels."""

COLUMNS = 6
MARGIN, CAPTION = 14, 46
GROUND, INK, KEPT, REJECTED = "#f6f4ef", "#222222", "#2e7d32", "#b3261e"


@dataclass(frozen=True)
class Print:
    """A work on the sheet."""

    artist: str
    object_id: str
    title: str
    kept: bool
    reason: str
    rights: str
    """The sentence of its wall label."""
    picture: bytes
    """A small WebP; empty where no image was fetched, or it cannot be read."""

    @property
    def overruling(self) -> str:
        """The line of a decisions file that says the contrary."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow([self.object_id, "drop" if self.kept else "keep", ""])
        return buffer.getvalue()


def sheet(prints: Sequence[Print]) -> bytes:
    """All pictures as one JPEG: kept ones first, framed in green; rejected ones in red, with their reasons."""
    shown = sorted((each for each in prints if each.picture), key=lambda each: (each.artist, not each.kept))
    width, height = EDGE + 2 * MARGIN, EDGE + CAPTION + 2 * MARGIN
    rows = max(1, -(-len(shown) // COLUMNS))
    canvas = Image.new("RGB", (COLUMNS * width, rows * height), GROUND)
    for place, each in enumerate(shown):
        _hang(canvas, each, (place % COLUMNS * width + MARGIN, place // COLUMNS * height + MARGIN))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _hang(canvas: Image.Image, each: Print, corner: tuple[int, int]) -> None:
    left, top = corner
    picture = imaging.load(each.picture)
    brush, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    colour = KEPT if each.kept else REJECTED
    x, y = left + (EDGE - picture.width) // 2, top + (EDGE - picture.height) // 2
    canvas.paste(picture, (x, y))
    brush.rectangle((x - 3, y - 3, x + picture.width + 2, y + picture.height + 2), outline=colour, width=3)
    for line, (text, ink) in enumerate(((each.title, INK), (each.object_id, INK), (_verdict(each), colour))):
        brush.text((left, top + EDGE + 6 + 15 * line), _fitted(text, font), fill=ink, font=font)


def _verdict(each: Print) -> str:
    return each.reason or ("kept" if each.kept else "rejected")


def _fitted(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Text that is no wider than a picture."""
    while text and font.getlength(text) > EDGE:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text


def page(name: str, prints: Sequence[Print], decisions: Mapping[str, str]) -> str:
    """The sheet as a page that opens from disk; `decisions` names each artist's decisions file, if there is one."""
    environment = Environment(
        loader=PackageLoader("avignon"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    walls = [(artist, file, [each for each in prints if each.artist == artist]) for artist, file in decisions.items()]
    environment.filters["inlined"] = imaging.data_uri
    return environment.get_template("contact.html").render(name=name, walls=walls) + "\n"

"""The contact sheet: all works with a picture, kept and rejected, to be looked over before training.

One image file, and one page that shows each work with its reason and the line that reverses the decision.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from PIL import Image, ImageDraw, ImageFont

from avignon.core import imaging, pages
from avignon.core.grids import Font, drawable, fitted
from avignon.core.text import strip_markup
from avignon.curation.gate import THUMBNAIL, Decided

COLUMNS = 6
MARGIN, CAPTION, HEADING = 14, 62, 44
ROWS = 200
"""Of pictures at most, before there are more columns: a JPEG is no higher than 65,500 pixels."""

GROUND, INK, KEPT, REJECTED = "#f6f4ef", "#222222", "#2e7d32", "#b3261e"


@dataclass(frozen=True)
class Print:
    """A work on the sheet."""

    artist: str
    object_id: str
    title: str
    about: str
    """Date and size, in a line; what is learned of it, where that is no square."""
    kept: bool
    reason: str
    rights: str
    """The sentence of its wall label."""
    picture: bytes
    """A small WebP; empty where no image was fetched, or it cannot be read."""

    @property
    def overruling(self) -> str:
        """The line of a decisions file that reverses the decision."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow([self.object_id, "drop" if self.kept else "keep", ""])
        return buffer.getvalue()


def printed(decided: Decided) -> Print:
    """A work as it stands on the sheet."""
    work, original = decided.found.work, decided.found.original
    pixels = f"{original.width}×{original.height} pixels" if original else ""
    place = decided.place
    learned = "learned at {}×{}, {:.1%} cut off".format(*place.bucket, place.cut) if place and decided.is_kept else ""
    return Print(
        artist=work.artist,
        object_id=work.object_id,
        title=strip_markup(work.title),
        about=", ".join(filter(None, (work.date, pixels, learned))),
        kept=decided.is_kept,
        reason=decided.decision.reason,
        rights=work.rights.label,
        picture=decided.thumbnail,
    )


def sheet(prints: Sequence[Print]) -> bytes:
    """All pictures as one JPEG, artist by artist: kept ones in green frames, then rejected ones in red, and why."""
    walls = [[each for each in prints if each.artist == artist] for artist in dict.fromkeys(p.artist for p in prints)]
    columns = max(COLUMNS, -(-len(prints) // ROWS))
    width, height = THUMBNAIL + 2 * MARGIN, THUMBNAIL + CAPTION + 2 * MARGIN
    shown = [sorted((each for each in wall if each.picture), key=lambda each: not each.kept) for wall in walls]
    tops = list(accumulate((HEADING + -(-len(wall) // columns) * height for wall in shown), initial=0))
    canvas = Image.new("RGB", (columns * width, max(1, tops[-1])), GROUND)
    brush, font = ImageDraw.Draw(canvas), ImageFont.load_default(20)
    for wall, pictures, top in zip(walls, shown, tops, strict=False):
        title = f"{wall[0].artist}: {sum(each.kept for each in wall)} kept of {len(wall)}"
        if without := len(wall) - len(pictures):
            title += f" (without a picture, and so on the page alone: {without})"
        brush.text((MARGIN, top + MARGIN), drawable(title), fill=INK, font=font)
        for place, each in enumerate(pictures):
            corner = (place % columns * width + MARGIN, top + HEADING + place // columns * height + MARGIN)
            _paste(canvas, each, corner)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _paste(canvas: Image.Image, each: Print, corner: tuple[int, int]) -> None:
    left, top = corner
    picture = imaging.load(each.picture)
    brush, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    colour = KEPT if each.kept else REJECTED
    verdict = each.reason or ("kept" if each.kept else "rejected")
    x, y = left + (THUMBNAIL - picture.width) // 2, top + (THUMBNAIL - picture.height) // 2
    canvas.paste(picture, (x, y))
    brush.rectangle((x - 3, y - 3, x + picture.width + 2, y + picture.height + 2), outline=colour, width=3)
    reason = [(line, colour) for line in _folded(drawable(verdict), font)]
    for number, (text, ink) in enumerate([(drawable(each.title), INK), (drawable(each.object_id), INK), *reason]):
        brush.text((left, top + THUMBNAIL + 6 + 15 * number), fitted(text, font, THUMBNAIL), fill=ink, font=font)


def _folded(text: str, font: Font) -> tuple[str, ...]:
    """A reason on two lines at most; what the second cannot hold is cut off there."""
    words = text.split()
    fit = next((n for n in range(len(words), 0, -1) if font.getlength(" ".join(words[:n])) <= THUMBNAIL), 1)
    return " ".join(words[:fit]), " ".join(words[fit:])


def page(name: str, prints: Sequence[Print], decisions: Mapping[str, str]) -> str:
    """The sheet as a page that opens from disk; `decisions` names each artist's decisions file, if there is one."""
    walls = [(artist, file, [each for each in prints if each.artist == artist]) for artist, file in decisions.items()]
    return pages.rendered("avignon.exhibition", "contact_sheet.html", name=name, walls=walls)

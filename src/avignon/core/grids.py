"""Pictures in rows on one sheet, with words beside them where they are wanted."""

from collections.abc import Sequence
from itertools import accumulate

from PIL import Image, ImageDraw, ImageFont

from avignon.core.naming import without_accents

LONGEST = 16_384
"""Most pixels on a side of a sheet; the pictures of a longer one are made smaller."""

GAP = 8
"""White pixels between two pictures."""

LETTERS = 16
"""Size of the words, in pixels."""

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def grid(rows: Sequence[Sequence[Image.Image]], above: Sequence[str] = (), beside: Sequence[str] = ()) -> Image.Image:
    """Pictures in rows, each row's of one size, in the middle of its columns; a single row is a strip.

    `above` has a label for every column, `beside` one for every row; without labels there is no margin for them.
    """
    across, down = len(rows[0]), len(rows)
    font = ImageFont.load_default(LETTERS)
    left = round(max((font.getlength(drawable(text)) for text in beside), default=-GAP)) + GAP
    top = LETTERS + 2 * GAP if above else 0
    room = LONGEST - left - across * GAP, LONGEST - top - down * GAP
    true = [row[0].size for row in rows]
    shrink = min(1.0, room[0] / (across * max(w for w, _ in true)), room[1] / sum(h for _, h in true))
    sizes = [(max(int(w * shrink), 1), max(int(h * shrink), 1)) for w, h in true]
    width, tops = max(w for w, _ in sizes), [*accumulate((h + GAP for _, h in sizes), initial=top)]
    paper = Image.new("RGB", (left + across * (width + GAP) - GAP, tops[-1] - GAP), "white")
    for row, size, y in zip(rows, sizes, tops, strict=False):
        for x, picture in enumerate(row):
            shown = picture if shrink == 1 else picture.resize(size, Image.Resampling.LANCZOS)
            paper.paste(shown, (left + x * (width + GAP) + (width - size[0]) // 2, y))
    brush = ImageDraw.Draw(paper)
    for x, text in enumerate(above):
        brush.text((left + x * (width + GAP), GAP), fitted(drawable(text), font, width), fill="black", font=font)
    for (_, height), y, text in zip(sizes, tops, beside, strict=False):
        brush.text((0, y + (height - LETTERS) // 2), drawable(text), fill="black", font=font)
    return paper


def drawable(text: str) -> str:
    """Text in the letters that Pillow's own font has: no accents, and nothing beyond ASCII."""
    plain = without_accents(text.replace("×", "x").replace("–", "-").replace("—", "-"))
    return "".join(c if c.isascii() else "?" for c in plain)


def fitted(text: str, font: Font, width: int) -> str:
    """Text that is no wider than so many pixels."""
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text

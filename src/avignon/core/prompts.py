"""Texts for a text encoder: cut where people would cut them, and free of what other programs alone understand."""

import re
import unicodedata
from collections.abc import Callable


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of `text` that fits, cut between words; empty where not even one character does.

    Where words would leave less than two thirds, as in scripts without blanks, between characters as people see them.
    """
    ends = [0, *(end for end in range(1, len(text)) if _is_boundary(text, end)), len(text)]
    few, many = 0, len(ends)  # The first `few` is known to fit, `many` to be too much.
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if fits(text[: ends[middle]]) else (few, middle)
    cut = text[: ends[few]]
    if cut != text and not text[len(cut)].isspace():
        words = cut[: max((place for place, letter in enumerate(cut) if letter.isspace()), default=0)]
        cut = words if 3 * len(words) >= 2 * len(cut) else cut
    return cut.rstrip(" ,:;")


def _is_boundary(text: str, place: int) -> bool:
    """Whether a person sees two characters there: not before an accent or a vowel sign, nor at a joiner."""
    before, after = text[place - 1], text[place]
    return not (unicodedata.category(after).startswith("M") or "\N{ZERO WIDTH JOINER}" in (before, after))


def fit(caption: str, phrase: str, fits: Callable[[str], bool]) -> str:
    """A caption that fits, with the phrase whole: what stands behind it goes first, then the end of what is before."""
    if fits(caption):
        return caption
    before, _, after = caption.partition(phrase)
    after = shortened(after, lambda rest: fits(before + phrase + rest))
    if not fits(before + phrase + after):
        head = before.rstrip(" ,:")
        gap = before[len(head) :]
        head = shortened(head, lambda start: fits(start + gap + phrase))
        before, after = head + gap if head else "", ""
    return before + phrase + after


MARKUP = (
    r"\([^()]*[^()\d]:\s*[+-]?\d+\)|\([^()]*:\s*[+-]?\d*\.\d+\)",  # (boat:1.3)
    r"\(\(.*?\)\)+|\[\[.*?\]\]+|\{\{.*?\}\}+",  # ((boat)), [[boat]], {{boat}}
    r"\([^()]*\)(?:\d*\.\d+|\++|-+(?!\w))|\w+\+\+(?!\w)",  # (boat)1.3, (boat)++, boat++
    r"\[[^\[\]]*:\s*\d*\.?\d+\]|\[[^\[\]]*\|[^\[\]]*\]",  # [boat:ship:0.5], [boat|ship]
    r"\{[^{}]*\|[^{}]*\}",  # {boat|ship}
    r"<\w+:[^<>]+>",  # <lora:name:0.8>
    r"(?<!\w)embedding:[\w.-]+",  # embedding:name
    r"(?<!\w)__[\w*/-]+?__(?!\w)",  # __wildcard__
    r"\S+::-?\d+(?:\.\d+)?|(?<!\S)--[a-z]+",  # boat::2, --ar 3:2
    r"(?<!\w)(?:BREAK|AND)(?!\w)",
)
"""What gives weights, adapters, alternatives or parts in the prompts of other programs (Automatic1111's web interface,
ComfyUI, compel, dynamic prompts, Midjourney). A word in single brackets is none: titles have it, as in `[detail]`."""

_MARKUP = re.compile("|".join(MARKUP))


def markup(text: str) -> list[str]:
    """What other programs would take as more than words, as it stands in the text.

    BREAK and AND count only where not everything is in capitals.
    """
    shouted = text == text.upper()
    found = dict.fromkeys(match[0] for match in _MARKUP.finditer(text))
    return [piece for piece in found if not (shouted and piece in ("BREAK", "AND"))]

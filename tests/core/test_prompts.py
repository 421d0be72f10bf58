"""Texts for a text encoder: captions that fit with their trigger, and what is read as letters."""

from pathlib import Path
from typing import Any

import pytest

from avignon import pipeline
from avignon.core import prompts
from avignon.core.errors import RecipeError
from avignon.core.events import Event, Reporter
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.load import load_recipe
from avignon.recipe.schema import Recipe
from avignon.stages import train
from avignon.stages.prepare import captions_of
from avignon.training import dataset
from tests.support import scans
from tests.support.bases import load_base
from tests.support.runs import carried, small_recipe

SILENT = Reporter("test", lambda _: None)
TRIGGER = "in the style of hokusai"


def row(title: str, **fields: str) -> dict[str, str]:
    """A ledger's row, as far as captions read it."""
    return {"title": title, "medium": "", "classification": "", "terms": "", **fields}


TITLES = {
    "Russian": "Девятый вал: буря на море у скалистых берегов Крыма поздним осенним вечером перед заходом солнца",
    "Greek": "Άποψη του λιμανιού της Θεσσαλονίκης με ιστιοφόρα πλοία και ψαράδες στο λυκόφως του φθινοπώρου",
    "Japanese": "富嶽三十六景 神奈川沖浪裏 荒れ狂う大波に翻弄される三艘の押送船と遠くに小さく見える雪を頂いた富士の図",
    "Chinese": "清明上河图描绘了北宋都城汴京清明时节的繁荣景象与汴河两岸的自然风光以及虹桥之上熙熙攘攘的人群",
    "Thai": "ภาพเขียนสีน้ำมันรูปเรือใบลำหนึ่งกลางทะเลที่มีพายุในยามเย็นก่อนพระอาทิตย์ตกดินริมชายฝั่งหินสูงชัน",
    "families": "👩‍👩‍👧‍👦" * 20,
    "accents": "e\u0301" * 60,
    "one word": "Donaudampfschifffahrtsgesellschaft" * 5,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> StableDiffusion:
    """A base whose byte-level BPE knows few words: nearly every byte is a token, the worst case of any vocabulary."""
    import torch

    return load_base(small_recipe(tmp_path_factory.mktemp("words"), tiny_sd), torch.float32, SILENT)


def fitted(base: StableDiffusion, captions: list[str], trigger: str = TRIGGER) -> tuple[list[str], list[Event]]:
    """The captions as they are trained with, and what was said of it."""
    heard: list[Event] = []
    examples = [(Path("dataset/hokusai/1.png"), {"captions": captions})]
    [(_, found)] = dataset.fit_captions(base, examples, {"hokusai": trigger}, Reporter("train", heard.append))
    return found["captions"], heard


def tokens(base: StableDiffusion, text: str) -> list[int]:
    """What the tokenizer makes of a text, with the marks of start and end."""
    ids: list[int] = base.pipeline.tokenizer(text, truncation=False, verbose=False).input_ids
    return ids


@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES.keys())
def test_trigger_is_always_read(base: StableDiffusion, title: str) -> None:
    """B11: in any script each caption of each kind fits the encoder's 77 tokens, and the trigger is whole in it."""
    captions = list(captions_of(row(title, medium=title, classification="Print", terms=f"{title}; море"), TRIGGER, 8))
    assert max(len(tokens(base, caption)) for caption in captions) > 77, "without shortening they do not fit"
    found, heard = fitted(base, captions)
    assert all(TRIGGER in caption and len(tokens(base, caption)) <= 77 for caption in found)
    assert [event.kind for event in heard] == ["note"]
    assert "77 tokens" in heard[0].text
    longest = [len(tokens(base, short)) for short, whole in zip(found, captions, strict=True) if short != whole]
    assert max(longest) > 60, "as much as fits is kept"


@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES.keys())
def test_captions_are_cut_between_words_or_characters(base: StableDiffusion, title: str) -> None:
    """B11: what is left of a title is its beginning, ended at a word, or at a whole character where words are long."""
    for caption in (f"{title}, {TRIGGER}", f"print {TRIGGER}, {title}", f"{TRIGGER}: {title}"):
        [found], _ = fitted(base, [caption])
        left = found.replace("print ", "").replace(TRIGGER, "").strip(" ,:")
        assert left
        assert title.startswith(left)
        rest = title[len(left) :]
        at_word = rest.lstrip(" ,:;") != rest
        assert at_word or rest[0] not in "\u0301\u200d\u0e31\u0e34\u0e35\u0e37\u0e49"
        assert at_word or left[-1] != "\u200d"
        assert at_word or title not in (TITLES["Russian"], TITLES["Greek"])


def test_captions_that_fit_are_left(base: StableDiffusion) -> None:
    """B11: a caption that fits is not touched, and nothing is said; one token more and its last word is gone."""
    room = 75 - len(tokens(base, f", {TRIGGER}")[1:-1])
    seas = "sea " * (room - 1)
    fits = f"{seas}red, {TRIGGER}"
    assert len(tokens(base, fits)) == 77
    assert fitted(base, [fits, TRIGGER]) == ([fits, TRIGGER], [])
    found, _ = fitted(base, [f"sea {fits}", f"{seas}red blue, {TRIGGER}"])
    assert found == [f"{seas}sea, {TRIGGER}", fits]


def test_window_is_the_smaller_of_tokenizer_and_encoder(base: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """B11: a tokenizer that names no length leaves the encoder's own; a shorter one's is kept."""
    for length, window in ((10**30, 77), (20, 20)):
        monkeypatch.setattr(base.pipeline.tokenizer, "model_max_length", length)
        assert base.max_tokens == window


def test_trigger_beyond_the_window_is_a_line(tmp_path: Path, tiny_sd: Path) -> None:
    """B11: a trigger that the encoder cannot read whole is told by field and value before anything is trained."""
    recipe = small_recipe(tmp_path, tiny_sd)
    space, _ = carried(recipe, tmp_path / "runs")
    long = recipe.artists[1].model_copy(update={"trigger": "в стиле художника " * 8})
    with pytest.raises(RecipeError, match=r"^artists\.1\.trigger: 'в стиле.*77 tokens.*shorten it$"):
        train.run(recipe.model_copy(update={"artists": (recipe.artists[0], long)}), space, SILENT)
    assert not space.adapters.exists()


@pytest.mark.slow
def test_training_reads_the_fitted_captions(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B11: what is encoded for training, of the works held out too, are captions that fit; the data set is left."""
    recipe = small_recipe(tmp_path, tiny_sd, train={"steps": 1, "validation_works": 1, "mode": "joint"})
    index = tmp_path / "scans" / "index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace("Work ", TITLES["Russian"]), encoding="utf-8")
    asked: list[str] = []
    encode = StableDiffusion.encode_prompts

    def spy(base: Any, texts: Any, *rest: Any) -> Any:
        asked.extend(texts)
        return encode(base, texts, *rest)

    monkeypatch.setattr(StableDiffusion, "encode_prompts", spy)
    space, heard = carried(recipe, tmp_path / "runs", "train")
    captions = [text for text in asked if text and not text.startswith(recipe.generate.scenes[0].prompt)]
    assert len(captions) == 12, "beside the preview's prompt, a scene's"
    assert all(text.startswith(("Девятый вал", "a picture, in the style of")) for text in captions)
    assert not [event for event in heard if event.kind == "warning"], "nothing is cut off by the tokenizer"
    assert len(space.read_metadata("winslow-homer")[0]["captions"][0]) > 77


def test_long_titles_without_blanks_are_not_lost() -> None:
    """B11: a Chinese title longer than a caption takes is cut, where an ellipsis alone was left; Latin as before."""
    assert captions_of(row("清明" * 100), "as x", 1) == ("清明" * 59 + " …, as x",)
    assert captions_of(row("The " + "very " * 40 + "sea"), "as x", 1) == ("The " + "very " * 22 + "very …, as x",)
    assert captions_of(row("…"), "as x", 1) == ("…, as x",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(boat:1.3) on the (wild sea: 0.8)", ["(boat:1.3)", "(wild sea: 0.8)"]),
        ("(boat:2), (red:-.5)", ["(boat:2)", "(red:-.5)"]),
        ("((boat)) and [[sky]], {{sea}}", ["((boat))", "[[sky]]", "{{sea}}"]),
        ("<lora:style_v1.5:0.8> a boat <hypernet:x:1>", ["<lora:style_v1.5:0.8>", "<hypernet:x:1>"]),
        ("a boat BREAK the sea AND a gull", ["BREAK", "AND"]),
        ("a __colour/dark__ {boat|ship}, [red|blue], [day:night:0.5]",
         ["__colour/dark__", "{boat|ship}", "[red|blue]", "[day:night:0.5]"]),
        ("boat++ (sea)1.2 (sky)-- embedding:dark boat::2 --ar 3:2",
         ["boat++", "(sea)1.2", "(sky)--", "embedding:dark", "boat::2", "--ar"]),
    ],
)  # fmt: skip
def test_markup_of_other_programs_is_known(text: str, found: list[str]) -> None:
    """B12: weights, adapters, alternatives and parts as other programs' prompts have them are named as they stand."""
    assert prompts.markup(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "a boat (1885)",
        "[detail] of a (small) boat",
        "a boat at 12:30 (scale 1:2), (10:45)",
        "Le Corbusier (Charles-Édouard Jeanneret), portrait (after 1917: late)",
        "A BOAT AND THE SEA, BREAK OF DAY",
        "a brand, an android, a breakwater, <b>, a < b: c",
        "snake_case, __init, well-known -- and so on, 19th-century",
        "Brassaï (Gyula Halász), C# and sea; {boat}; (a (small) boat)",
        "",
    ],
)
def test_ordinary_brackets_raise_no_alarm(text: str) -> None:
    """B12: years, details, times, names in brackets and capitals are words."""
    assert prompts.markup(text) == []


def warnings_of(recipe: Recipe, folder: Path, until: str) -> list[Event]:
    """What is warned of before the first stage."""
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if event.kind == "start":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, folder / "runs", listen, until=until)
    return heard[:-1]


def test_markup_is_warned_of_once_and_early(tmp_path: Path) -> None:
    """B12: one warning before the first stage names all of it by field; none where nothing will be painted."""
    scans.scans(tmp_path / "scans")
    overrides = ["generate.scenes=[{prompt='a (boat:1.3)'},{prompt='a boat'}]",
                 "generate.negative_prompt='((dark))'", "artists.1.trigger='as <lora:bo:1>'"]  # fmt: skip
    recipe = load_recipe(scans.recipe(tmp_path), overrides)
    [event] = warnings_of(recipe, tmp_path, "generate")
    assert (event.stage, event.kind) == ("generate", "warning")
    assert event.text.startswith(
        "read as letters: '(boat:1.3)' (generate.scenes.0.prompt), '((dark))' (generate.negative_prompt), "
        "'<lora:bo:1>' (artists.1.trigger); "
    )
    assert warnings_of(recipe, tmp_path, "prepare") == []
    assert warnings_of(load_recipe(scans.recipe(tmp_path)), tmp_path, "exhibit") == []

"""The decoder: whatever comes in, an upright 8-bit sRGB picture or one clear reason comes out."""

import io
import json
import random
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from avignon.core import imaging, pages, png
from avignon.core.errors import ImageError
from tests.support import images
from tests.support.museum import draw

Colour = tuple[int, int, int]


def close(found: object, wanted: Colour, by: int = 4) -> bool:
    """Whether a pixel is the colour wanted, but for a JPEG's rounding."""
    assert isinstance(found, tuple)
    return all(abs(one - other) <= by for one, other in zip(found, wanted, strict=True))


RED, BLUE = (220, 30, 30), (30, 60, 200)


@pytest.mark.parametrize(
    ("maker", "size", "pixels"),
    [
        (images.plain, (96, 64), {(10, 10): RED, (80, 50): BLUE}),
        (images.palette_png, (96, 64), {(10, 10): RED, (80, 50): BLUE}),
        (images.broken_profile, (96, 64), {(10, 10): RED, (80, 50): BLUE}),
        (images.one_pixel, (1, 1), {(0, 0): (200, 30, 30)}),
        (images.cmyk_jpeg, (96, 64), {(10, 10): (0, 255, 255), (80, 50): (255, 255, 0)}),
        (images.sixteen_bit_png, (96, 64), {(0, 0): (0, 0, 0), (48, 30): (129, 129, 129), (95, 63): (255, 255, 255)}),
        (images.rgba_png, (96, 64), {(10, 10): (255, 255, 255), (80, 50): (40, 160, 60)}),
        (images.exif_rotated_jpeg, (64, 96), {(50, 10): RED, (10, 10): BLUE, (50, 80): BLUE}),
    ],
)
def test_awkward_pictures_come_out_right(
    tmp_path: Path, maker: Callable[[Path], Path], size: tuple[int, int], pixels: dict[tuple[int, int], Colour]
) -> None:
    """Each sound picture, from a file or its bytes, is upright 8-bit RGB with the colours it was painted in."""
    path = maker(tmp_path)
    for source in (path, path.read_bytes()):
        image = imaging.load(source)
        assert (image.mode, image.size) == ("RGB", size)
        assert imaging.size_of(source) == size
        for place, colour in pixels.items():
            assert close(image.getpixel(place), colour), (place, image.getpixel(place))


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    """A ramp of 16 bits stays a ramp: each level is its share of 65535, none is clipped to white."""
    row = np.asarray(imaging.load(images.sixteen_bit_png(tmp_path)))[0, :, 0].astype(int)
    assert np.abs(row - np.linspace(0, 255, 96)).max() <= 1


def test_big_endian_and_floating_greys_are_scaled(tmp_path: Path) -> None:
    """TIFFs of 16 bits in the other byte order and of floating point keep their ramps."""
    ramp = np.tile(np.linspace(0, 65535, 96).astype(np.uint16), (64, 1))
    Image.frombytes("I;16B", (96, 64), ramp.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("big.tif", "float.tif"):
        row = np.asarray(imaging.load(tmp_path / name))[0, :, 0].astype(int)
        assert np.abs(row - np.linspace(0, 255, 96)).max() <= 1


def p3_to_srgb(colour: Colour) -> Colour:
    """Display P3 to sRGB by the matrix of CSS Color 4 (https://www.w3.org/TR/css-color-4/#color-conversion-code)."""
    values = np.array(colour) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = [[1.2249401762805598, -0.22494017628055996, 0.0],
              [-0.042056954709688163, 1.0420569547096881, 0.0],
              [-0.019637554590334432, -0.078636045550631889, 1.0982736001409663]]  # fmt: skip
    linear = (np.array(matrix) @ linear).clip(0, 1)
    coded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(value) for value in (coded * 255).round())
    return red, green, blue


@pytest.mark.parametrize("colour", [(200, 60, 60), (60, 180, 90), (40, 60, 200), (128, 128, 128)])
def test_wide_gamut_becomes_srgb(tmp_path: Path, colour: Colour) -> None:
    """A picture in Display P3 comes out with the sRGB values that colour science computes for it."""
    found = imaging.load(images.wide_gamut(tmp_path, colour=colour)).getpixel((5, 5))
    assert close(found, p3_to_srgb(colour), by=2)


def test_palette_and_alpha_are_converted_through_their_profile(tmp_path: Path) -> None:
    """A profile holds for a picture of colour numbers, and for one with alpha, as for any other."""
    wanted = p3_to_srgb((200, 60, 60))
    plain = Image.new("RGB", (8, 8), (200, 60, 60))
    for name, image in {"palette": plain.quantize(4), "alpha": plain.convert("RGBA")}.items():
        path = tmp_path / f"{name}.png"
        image.save(path, icc_profile=images.display_p3())
        assert close(imaging.load(path).getpixel((2, 2)), wanted, by=2)


@pytest.mark.parametrize(
    ("maker", "reason"),
    [
        (images.truncated_jpeg, "truncated or damaged: "),
        (images.not_an_image, "not a picture; allowed are JPEG, PNG, TIFF, WEBP, GIF"),
        (images.empty, "not a picture; allowed are JPEG, PNG, TIFF, WEBP, GIF"),
        (images.animated_gif, "animated or of several pages (3); one picture is needed"),
        (images.bomb, "40000×40000 pixels; at most 200,000,000 are decoded"),
    ],
)
def test_unusable_pictures_say_why(tmp_path: Path, maker: Callable[[Path], Path], reason: str) -> None:
    """What cannot be used is one line: the file, and why."""
    path = maker(tmp_path)
    with pytest.raises(ImageError) as caught:
        imaging.load(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    with pytest.raises(ImageError, match=r"^image: "):
        imaging.load(path.read_bytes())


def test_every_awkward_maker_is_held(tmp_path: Path) -> None:
    """No maker of awkward pictures ends in anything but a picture or an ImageError."""
    reasons = []
    for maker in images.AWKWARD.values():
        path = maker(tmp_path)
        try:
            assert imaging.load(path).mode == "RGB"
        except ImageError as unusable:
            reasons.append(str(unusable).removeprefix(f"{path}: "))
    assert len(reasons) == 5
    assert not any(str(tmp_path) in reason for reason in reasons)


def test_bomb_costs_nothing(tmp_path: Path) -> None:
    """A bomb is refused by its header: at once, and without the gigabytes that it asks for."""
    path = images.bomb(tmp_path)
    before = Image.MAX_IMAGE_PIXELS
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(ImageError):
        imaging.load(path)
    with pytest.raises(ImageError):
        imaging.size_of(path)
    assert time.monotonic() - start < 0.5
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert before == Image.MAX_IMAGE_PIXELS


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """A path without a picture behind it says what the disk says."""
    with pytest.raises(ImageError, match=r"cannot be opened: No such file"):
        imaging.load(tmp_path / "none.png")
    with pytest.raises(ImageError, match=r"cannot be opened: Is a directory"):
        imaging.size_of(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_the_same_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    """All eight EXIF orientations: the size read from the header is that of the picture turned upright."""
    path = images.exif_rotated_jpeg(tmp_path, name=f"turned.{suffix}", orientation=orientation)
    size = (64, 96) if orientation >= 5 else (96, 64)
    assert (imaging.size_of(path), imaging.load(path).size) == (size, size)
    corner = {1: (5, 5), 2: (90, 5), 3: (90, 60), 4: (5, 60), 5: (5, 5), 6: (60, 5), 7: (60, 90), 8: (5, 90)}
    assert close(imaging.load(path).getpixel(corner[orientation]), RED, by=12)


def test_second_picture_of_a_camera_is_not_an_animation(tmp_path: Path) -> None:
    """A camera's JPEG with a second picture behind the first (MPO) counts as its first."""
    path = tmp_path / "camera.jpg"
    draw(1, 40, 30).save(path, "MPO", save_all=True, append_images=[draw(2, 40, 30)])
    assert imaging.size_of(path) == imaging.load(path).size == (40, 30)


def test_damaged_exif_is_no_obstacle(tmp_path: Path) -> None:
    """A sound picture with EXIF data that makes no sense is taken as it lies."""
    path = tmp_path / "exif.jpg"
    Image.new("RGB", (40, 30), RED).save(path, exif=b"Exif\x00\x00no such thing at all")
    assert imaging.size_of(path) == imaging.load(path).size == (40, 30)


def test_damage_of_any_kind_is_an_image_error(tmp_path: Path) -> None:
    """Bytes changed and files cut at random end in a picture or an ImageError, never in a decoder's own error."""
    chance = random.Random(1)
    whole = [images.plain(tmp_path), images.sixteen_bit_png(tmp_path), images.animated_gif(tmp_path)]
    whole += [images.exif_rotated_jpeg(tmp_path, name=f"e.{kind}") for kind in ("jpg", "tif", "webp")]
    whole += [images.wide_gamut(tmp_path), images.broken_profile(tmp_path)]
    refused = 0
    for content in [path.read_bytes() for path in whole] * 25:
        broken = bytearray(content)
        for _ in range(chance.choice((1, 4, 12))):
            broken[chance.randrange(min(len(broken), 700))] = chance.randrange(256)
        for read in (imaging.size_of, imaging.load):
            try:
                read(bytes(broken[: chance.choice((None, chance.randrange(1, len(broken))))]))
            except ImageError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("size", "count", "boxes"),
    [
        ((300, 200), 1, [(50, 0, 250, 200)]),
        ((200, 300), 1, [(0, 50, 200, 250)]),
        ((300, 200), 2, [(0, 0, 200, 200), (100, 0, 300, 200)]),
        ((300, 200), 3, [(0, 0, 200, 200), (50, 0, 250, 200), (100, 0, 300, 200)]),
        ((200, 200), 4, [(0, 0, 200, 200)]),
        ((1, 1), 1, [(0, 0, 1, 1)]),
    ],
)
def test_crops_are_square_and_inside(size: tuple[int, int], count: int, boxes: list[tuple[int, ...]]) -> None:
    """Crops are squares of the short side's length, spread evenly over the long side, none twice."""
    assert imaging.square_crops(size, count) == boxes


@pytest.mark.parametrize("size", [(333, 100), (100, 333), (501, 500), (7, 3)])
def test_fit_never_squashes(size: tuple[int, int]) -> None:
    """A circle in the crop stays a circle, as wide as it is high."""
    edge = min(size)
    for box in imaging.square_crops(size, 4):
        assert box[2] - box[0] == box[3] - box[1] == edge
        assert 0 <= box[0] < box[2] <= size[0]
        assert 0 <= box[1] < box[3] <= size[1]
    image = Image.new("L", size, 0)
    box = imaging.square_crops(size, 1)[0]
    grid = np.indices((size[1], size[0]))
    centre = ((box[1] + box[3] - 1) / 2, (box[0] + box[2] - 1) / 2)
    inside = (grid[0] - centre[0]) ** 2 + (grid[1] - centre[1]) ** 2 <= (edge / 3) ** 2
    image = Image.fromarray((inside * 255).astype(np.uint8))
    lit = np.asarray(imaging.fit(image, box, 90)) > 127
    assert lit.shape == (90, 90)
    assert abs(int(lit.any(0).sum()) - int(lit.any(1).sum())) <= 1


def test_sharpness_falls_with_blur() -> None:
    """The more a picture is blurred, the less sharp it measures; one too small to measure has none."""
    picture = Image.effect_noise((600, 400), 60).convert("RGB")
    measured = [imaging.sharpness(picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > 10 * measured[3]
    assert imaging.sharpness(Image.new("RGB", (2, 2))) == 0


FIELDS = {"prompt": "a “boat” – été 富士", "weights": {"homer": 0.5}, "seed": 7}


def test_png_carries_its_parameters(tmp_path: Path) -> None:
    """A generated picture says how it was made, to people and programs, and by IPTC's word that a model made it."""
    path = tmp_path / "frame.png"
    path.write_bytes(png.png_bytes(Image.new("RGB", (8, 8), RED), "a boat\nSteps: 30", FIELDS))
    with Image.open(path) as image:
        image.load()
        text = getattr(image, "text", {})
        assert text["parameters"] == "a boat\nSteps: 30"
        assert json.loads(text["avignon"]) == FIELDS
        assert "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    assert png.png_fields(path) == FIELDS


def test_prepared_png_says_nothing_of_a_model(tmp_path: Path) -> None:
    """A training image is no model's work and carries no such mark; the same picture is the same bytes."""
    content = png.png_bytes(Image.new("RGB", (8, 8), RED))
    assert b"trainedAlgorithmicMedia" not in content
    assert content == png.png_bytes(Image.new("RGB", (8, 8), RED))
    (tmp_path / "plain.png").write_bytes(content)
    assert png.png_fields(tmp_path / "plain.png") is None


def test_damaged_png_has_no_fields(tmp_path: Path) -> None:
    """Whatever is cut off or overwritten, the fields are those written or None."""
    content = png.png_bytes(Image.effect_noise((24, 24), 50).convert("RGB"), "a boat", FIELDS)
    path = tmp_path / "frame.png"
    for length in (*range(0, len(content) - 40, 37), *range(len(content) - 40, len(content))):
        path.write_bytes(content[:length])
        assert png.png_fields(path) is None, length
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in range(8, len(content), 41):
            path.write_bytes(content[:place] + b"\xff\x00" + content[place + 2 :])
            assert png.png_fields(path) in (None, FIELDS)
    assert png.png_fields(tmp_path / "none.png") is None


def test_webp_for_the_page_is_bounded() -> None:
    """A picture for the page has no more pixels than allowed and keeps its shape; a small one is not blown up."""
    with Image.open(io.BytesIO(pages.webp_bytes(draw(1, 400, 200), 100))) as image:
        assert (image.format, image.size) == ("WEBP", (100, 50))
    with Image.open(io.BytesIO(pages.webp_bytes(draw(1, 40, 20), 100))) as image:
        assert image.size == (40, 20)

"""Measures of a picture's quality: one function each. They give numbers for the ledger, not decisions.

How well each tells good scans from bad ones was measured on degraded copies of paintings: docs/benchmarks/quality.md.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avignon.core.imaging import sharpness

Grey = NDArray[np.float64]
"""Grey levels 0 to 255, shaped (height, width)."""


@dataclass(frozen=True)
class Measures:
    """All that is measured of one picture; the names are the ledger's columns."""

    sharpness: float
    detail: float
    noise: float
    blocking: float
    colour: float
    margin: float
    frame: float
    target: float
    ruler: float


LEAST_EDGE = 256
"""Pixels on the short side below which only sharpness and colour are measured: the others need more to go by."""


def measure(image: Image.Image, middle: Image.Image | None = None) -> Measures:
    """All measures of an upright RGB picture; of a small one, those that it is large enough for.

    Of a reduced copy, `middle` is the picture's middle at full resolution: detail, noise and blocks are nowhere else.
    """
    if min(image.size) < LEAST_EDGE:
        return Measures(round(sharpness(image), 2), 1.0, 0.0, 1.0, round(colour(image), 2), 0.0, 0.0, 0.0, 0.0)
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    near = grey if middle is None else np.asarray(middle.convert("L"), dtype=np.float64)
    return Measures(
        sharpness=round(sharpness(image), 2),
        detail=round(detail(middle or image), 4),
        noise=round(noise(near), 2),
        blocking=round(blocking(near), 3),
        colour=round(colour(image), 2),
        margin=round(margin(grey), 4),
        frame=round(frame(image), 3),
        target=round(target(image), 3),
        ruler=round(ruler(grey), 3),
    )


def _small(image: Image.Image, mode: str, edge: int) -> NDArray[np.float64]:
    """Its levels at `edge` pixels on the long side, shaped (height, width) or (height, width, 3)."""
    small = image.convert(mode)
    small.thumbnail((edge, edge), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def _from_edges(levels: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """A picture four times, each with another edge on top."""
    turned = levels.swapaxes(0, 1)
    return levels, levels[::-1], turned, turned[::-1]


def detail(image: Image.Image) -> float:
    """Share of detail in an octave against the one above it, of the two finest; near 0 where a picture was scaled up.

    Detail of an octave is what halving the size and doubling it again takes away (the finest level of a Laplacian
    pyramid: Burt and Adelson, IEEE Trans. Communications 31, 1983); root mean square in grey levels. Scaling up by 2
    empties the finest octave, by 4 and more the next one, too, so that the step lies there.
    """
    grey = image.convert("L")
    left, top = max(0, grey.width - 1024) // 2, max(0, grey.height - 1024) // 2
    grey = grey.crop((left, top, left + min(grey.width, 1024), top + min(grey.height, 1024)))
    octaves = []
    for _ in range(3):
        half = grey.resize((max(1, grey.width // 2), max(1, grey.height // 2)), Image.Resampling.LANCZOS)
        smooth = half.resize(grey.size, Image.Resampling.LANCZOS)
        difference = np.asarray(grey, dtype=np.float64) - np.asarray(smooth, dtype=np.float64)
        octaves.append(float(np.sqrt(np.mean(difference**2))))
        grey = half
    return min(finer / coarser if coarser > 0 else 0.0 for finer, coarser in pairwise(octaves))


def noise(grey: Grey) -> float:
    """Standard deviation of noise in grey levels, in the flattest tenth of the picture.

    Immerkær's operator (Computer Vision and Image Understanding 64, 1996, eq. 2), which is blind to edges and slopes,
    over blocks of 16 × 16: brushwork and canvas are not noise, so the flattest blocks count.
    """
    g = grey[:1024, :1024]
    if min(g.shape) < 18:
        return 0.0
    second = g[:, :-2] - 2 * g[:, 1:-1] + g[:, 2:]
    crossed = np.abs(second[:-2] - 2 * second[1:-1] + second[2:])  # (H-2, W-2)
    rows, columns = crossed.shape[0] // 16, crossed.shape[1] // 16
    blocks = crossed[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16)
    return float(np.sqrt(np.pi / 2) / 6 * np.percentile(blocks.mean(axis=(1, 3)), 10))


def blocking(grey: Grey) -> float:
    """Steps across the borders of JPEG's 8 × 8 blocks, against steps elsewhere; 1 where there are no blocks.

    After Wang, Sheikh and Bovik, "No-reference perceptual quality assessment of JPEG compressed images", ICIP 2002,
    eq. 1; with medians over the columns, because one line, such as a mount's, is no pattern of blocks.
    """
    return float(np.sqrt(_steps(grey) * _steps(grey.T)))


def _steps(grey: Grey) -> float:
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)  # (W-1,): index 7 is the step from column 7 to column 8
    at_border = np.arange(steps.size) % 8 == 7
    if not at_border.any() or np.median(steps[~at_border]) == 0:
        return 1.0
    return float(np.median(steps[at_border]) / np.median(steps[~at_border]))


def colour(image: Image.Image) -> float:
    """Spread of colour that brightness does not explain, in levels of Cb and Cr; near 0 in toned pictures.

    In a toned photograph hue and saturation follow from brightness alone, so a parabola fits Cb and Cr over Y. What is
    left is the standard deviation around it. Measured at 256 pixels, so that a scanner's colour noise averages out.
    """
    small = image.convert("RGB")
    small.thumbnail((256, 256), Image.Resampling.BOX)
    ycbcr = np.asarray(small.convert("YCbCr"), dtype=np.float64).reshape(-1, 3)
    y = ycbcr[:, 0] / 255
    basis = np.stack([np.ones_like(y), y, y**2], axis=1)  # (N, 3)
    fitted, *_ = np.linalg.lstsq(basis, ycbcr[:, 1:], rcond=None)
    left = ycbcr[:, 1:] - basis @ fitted  # (N, 2)
    return float(np.sqrt((left**2).sum(axis=1).mean()))


def margin(grey: Grey) -> float:
    """Widest flat band along an edge that ends in a straight line, as a share of the side: a mount or a wall."""
    return max(_band(view) / len(view) for view in _from_edges(grey))


def _band(grey: Grey, level: float = 6.0, step: float = 12.0) -> int:
    """How many rows from the top are flat and of the first row's brightness, if a line through most columns ends them.

    A plain sky is as flat; what ends it is no straight line. Ten rows either way, since JPEG blurs the line.
    """
    means, spreads = grey.mean(axis=1), grey.std(axis=1)
    flat = (spreads < level) & (np.abs(means - means[0]) < level)
    end = int(flat.size if flat.all() else np.argmin(flat))
    if not 0 < end < flat.size // 3:
        return 0
    across = np.abs(grey[min(end + 10, flat.size - 1)] - grey[max(end - 10, 0)])
    return end if (across > step).mean() > 0.6 else 0


def frame(image: Image.Image) -> float:
    """How straight a line runs along each of the four edges; the least of the four: the inner rim of a frame.

    Carving and gilding are anything but flat, yet a frame ends in one line of shadow or light on each of the four
    sides, and a picture has hardly ever four such lines. 1 where each is the same step along its whole length.
    Measured at 256 pixels, so that a frame that hangs a little askew still counts.
    """
    return min(_line(view) for view in _from_edges(_small(image, "L", 256)))


def _line(grey: Grey, reach: float = 0.22, step: float = 8.0) -> float:
    """Of the rows from 2 % to `reach` of the height, the best share of one common step among all steps across it."""
    height, width = grey.shape
    rows = grey[: int(height * reach) + 3, width // 4 : width - width // 4]  # Without the frame's own sides.
    steps = rows[2:] - rows[:-2]  # (rows, columns)
    common, size = np.abs(steps.mean(axis=1)), np.sqrt((steps**2).mean(axis=1))
    straight = np.where(common > step, common / np.maximum(size, step), 0.0)[int(height * 0.02) :]
    return float(straight.max()) if straight.size else 0.0


def target(image: Image.Image) -> float:
    """Share of the six hues that stand as flat, saturated patches in a strip along one edge: a colour target."""
    return max(_patches(view) for view in _from_edges(_small(image, "RGB", 768)))


def _patches(rgb: NDArray[np.float64], cell: int = 12) -> float:
    """The greatest share of hues in one row of cells, among the rows within 15 % of the upper edge."""
    rows, columns = max(1, int(rgb.shape[0] * 0.15) // cell), rgb.shape[1] // cell
    if not columns or rgb.shape[0] < cell:
        return 0.0
    strip = rgb[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell, 3)
    mean = strip.mean(axis=(1, 3))  # (rows, columns, 3)
    flat = strip.std(axis=(1, 3)).max(axis=2) < 10
    strong = np.ptp(mean, axis=2) > 80
    r, g, b = mean[..., 0], mean[..., 1], mean[..., 2]
    angle = np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)
    hues = np.round(angle / (np.pi / 3)).astype(np.int64) % 6  # Sixths of the colour circle, the first around red.
    return max(np.unique(hues[row][(flat & strong)[row]]).size for row in range(rows)) / 6


def ruler(grey: Grey) -> float:
    """Height of the highest regular peak in the autocorrelation of a strip along one edge: the marks of a ruler."""
    return max(_ticks(view) for view in _from_edges(grey))


def _ticks(grey: Grey, strips: int = 8) -> float:
    """The greatest regularity among strips of 1.5 % of the height, down from the upper edge."""
    depth = max(2, round(grey.shape[0] * 0.015))
    profiles = (grey[depth * i : depth * (i + 1)].mean(axis=0) for i in range(strips))
    return max((_regularity(profile) for profile in profiles), default=0.0)


def _regularity(profile: NDArray[np.float64], contrast: float = 15.0) -> float:
    """Normalised autocorrelation at its best lag of 6 to 80 pixels; 0 where there is too little contrast for marks."""
    if profile.size < 200:
        return 0.0
    steps = np.diff(profile)
    # Marks are everywhere along a ruler, which one strong edge in a picture is not.
    busy = (np.abs(steps) > contrast).reshape(-1)[: steps.size // 8 * 8].reshape(8, -1).mean(axis=1)
    if np.sort(busy)[2] < 0.04:
        return 0.0
    steps = np.clip(steps, -3 * contrast, 3 * contrast)
    spectrum = np.abs(np.fft.rfft(steps, 2 * steps.size)) ** 2
    correlation = np.fft.irfft(spectrum)[: steps.size]
    if correlation[0] <= 0:
        return 0.0
    return float((correlation[6:80] / correlation[0]).max())

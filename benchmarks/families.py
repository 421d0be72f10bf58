"""Memory and speed of the real architectures with random weights, and the estimate beside what was measured.

    python benchmarks/families.py                       every row that fits this machine's free memory
    python benchmarks/families.py sdxl --most 14        one base; rows above 14 GiB are left out
    python benchmarks/families.py --json measured.json  the rows as JSON as well

Each row is a process of its own, which makes the base at its full size (`models/architectures.toml`), and takes one
training step, or one guided denoising step and a decoding. Its peak is the kernel's on a CPU (`VmHWM`, begun anew at
every phase), the allocator's on a card. The share is that of the matrix peak, measured in the same process.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import torch  # noqa: E402 - the package is found by the line above

from avignon.adapters import inject  # noqa: E402
from avignon.generation.standalone import WantedBase  # noqa: E402
from avignon.models import frozen, names, outline, runtime  # noqa: E402
from avignon.models.base import Conditioning, DiffusionBase, Framing  # noqa: E402
from avignon.models.meta import META  # noqa: E402
from avignon.recipe.schema import Generate, Recipe, Scene, Train  # noqa: E402
from avignon.training import footprint  # noqa: E402
from avignon.training.dataset import Batch  # noqa: E402
from avignon.training.footprint import Place, TrainingFootprint  # noqa: E402
from avignon.training.objective import denoising_losses  # noqa: E402
from avignon.training.optimizer import FlatParameters, OptimizerStep  # noqa: E402
from avignon.training.setup import RuntimeConfig, prepare_denoiser  # noqa: E402
from benchmarks.train import SILENT, flops_of, matrix_peak, seconds_of, settings_of  # noqa: E402

GIB = 2**30

SPARED = 1.0
"""GiB that are left to others."""


@dataclass(frozen=True)
class Row:
    """What a process does."""

    base: str
    """A short name."""
    work: str
    """`train` or `paint`."""
    side: int
    """Pixels of a picture's side."""
    checkpointing: bool = False
    batch: int = 1
    precision: runtime.Precision = "bf16"
    reads: bool = True
    """Whether what reads texts is there."""
    quantize: str = ""
    offload: bool = False

    @property
    def stored(self) -> torch.dtype:
        """The precision that the denoiser is made in: what is quantised is bf16, as in the files of large bases."""
        return torch.bfloat16 if self.quantize else runtime.DTYPES[self.precision]

    @property
    def label(self) -> str:
        """The row for people."""
        how = f", batch {self.batch}" + (", checkpointing" if self.checkpointing else "")
        how += (f", {self.quantize}" if self.quantize else "") + (", weights in RAM" if self.offload else "")
        return f"{self.base} {self.work} {self.side} px{how}" + ("" if self.reads else ", without text encoder")


ROWS = (
    Row("sd-1.5", "train", 512),
    Row("sd-1.5", "paint", 512),
    Row("sd-2.1-base", "train", 512),
    Row("sd-2.1-base", "paint", 512),
    Row("sdxl", "train", 512, checkpointing=True),
    Row("sdxl", "paint", 512),
    Row("z-image", "train", 256, checkpointing=True, reads=False),
    Row("z-image", "paint", 256, reads=False),
    Row("flux2-klein-4b", "train", 256, checkpointing=True, reads=False),
    Row("flux2-klein-4b", "paint", 256, reads=False),
    Row("sdxl", "train", 512, checkpointing=True, quantize="int8"),
    Row("flux2-klein-4b", "train", 256, checkpointing=True, reads=False, quantize="int8"),
    Row("flux2-klein-4b", "train", 256, checkpointing=True, reads=False, quantize="nf4"),
    Row("flux2-klein-4b", "paint", 256, reads=False, quantize="int8"),
    Row("sd-1.5", "train", 512, batch=4, checkpointing=True),
    Row("sdxl", "paint", 1024),
    Row("sdxl", "train", 1024, checkpointing=True),
)
"""A family is added by its rows."""


def outlined(row: Row) -> tuple[DiffusionBase, list[Any]]:
    """The base's outline, and what of it reads prompts, where the row has that."""
    base = outline.outline(WantedBase(row.base, resolution=row.side), SILENT)
    return base, list(base.readers) if row.reads else []


def recipe_of(row: Row) -> Recipe:
    """The settings: those of the original pair of artists."""
    passes, in_ram = (str(each).lower() for each in (row.checkpointing, row.offload))
    return settings_of(
        "sd21", f"train.batch={row.batch}", f"train.gradient_checkpointing={passes}", f"base.resolution={row.side}",
        f"generate.batch={row.batch}", f"train.precision='{row.precision}'", f"train.offload={in_ram}",
    )  # fmt: skip


def estimated(row: Row, device: torch.device) -> dict[str, int]:
    """What the program tells of it, by phase."""
    base, readers = outlined(row)
    place, recipe = Place(device.type, row.precision), recipe_of(row)
    if row.work == "paint":
        told = footprint.of_painting(
            base, recipe.generate, place, (row.side, row.side), quantize=row.quantize, readers=readers
        )
        return dict(told.device)
    trained = TrainingFootprint(
        base, recipe.train, place, adapters=1, images=1, stored=row.stored, quantize=row.quantize, readers=readers
    )
    return dict(trained.of(row.batch, checkpointing=row.checkpointing).device)


def measured(row: Row, device: torch.device) -> dict[str, Any]:
    """The row itself, in this process: seconds, FLOPs, and the peak of every phase in bytes."""
    base, readers = outlined(row)
    torch.manual_seed(0)
    found: dict[str, Any] = {"peaks": {}}
    begin_peak(device)
    start = time.perf_counter()
    own = runtime.DTYPES[row.precision]
    others = torch.float32 if row.work == "train" else own  # As `train` and `generate` load them.
    for part in (base.denoiser, base.autoencoder, *readers):
        large = part is base.denoiser or part in base.language_models
        fill(part, row.stored if large else others, device)
    if row.quantize:
        base.quantize(row.quantize, own)
    if row.offload:
        frozen.keep_in_ram(base.denoiser)
    found["load_seconds"] = time.perf_counter() - start
    if row.work == "train" and device.type == "cpu":
        found["peaks"]["load"] = peak(device)
    for name, call in (training if row.work == "train" else painting)(row, base, readers, device):
        begin_peak(device)
        taken = seconds_of(call, device)
        found["peaks"][name] = peak(device)
        if name in ("train", "denoise"):
            found |= {"seconds": taken, "flops": flops(row)}
    found["share"] = found["flops"] / found["seconds"] / matrix_peak(row.precision, device)
    return found


def flops(row: Row) -> int:
    """FLOPs of a step by torch's counter, on the outline; what checkpointing computes again is not work."""
    base, _ = outlined(row)
    if row.work == "paint":
        return flops_of(partial(base.predict, *noisy(row, base, META)))
    with META:
        inject.add(base.denoiser, base.targets, "one", recipe_of(row).train.ranks, 0.0, seed=0)
    return flops_of(lambda: torch.autograd.backward(denoising_losses(base, batch_of(row, base, META)).sum()))


Phase = tuple[str, Callable[[], Any]]


def training(row: Row, base: DiffusionBase, readers: list[Any], device: torch.device) -> Iterator[Phase]:
    """A picture and some texts encoded; then a step of one adapter, by the training's own functions."""
    recipe = recipe_of(row)

    def encode() -> None:
        base.encode_images(torch.randn(1, 3, row.side, row.side, device=device))
        read(readers, base, base.texts_at_once, device)

    yield "encode", encode
    batch = batch_of(row, base, device)
    base.release_readers()  # As `train` does.
    base.offload()
    readers.clear()
    config = RuntimeConfig(device, row.precision, "sdpa", compiled=False, why=())
    [parameters] = prepare_denoiser(base, ["one"], recipe, config)
    factors = FlatParameters(parameters, runtime.DTYPES[row.precision])
    updates = OptimizerStep(factors, recipe.train, scaled=row.precision == "fp16")
    updates.apply(0, torch.zeros((), device=device), 0.0)  # The optimizer's state is there from the second step on.

    def step() -> None:
        loss = denoising_losses(base, batch).mean()
        torch.autograd.backward(updates.scale * loss)
        updates.apply(1, loss.detach(), 1e-4)

    yield "train", step


def painting(row: Row, base: DiffusionBase, readers: list[Any], device: torch.device) -> Iterator[Phase]:
    """A text read, one guided denoising step, a picture decoded."""
    base.set_attention_backend("sdpa")
    runtime.move_to(base.autoencoder, torch.float32)
    inputs = noisy(row, base, device)
    with torch.no_grad():
        yield "read", lambda: read(readers, base, 1, device)
        yield "denoise", partial(base.predict, *inputs)
        yield "decode", lambda: base.decode_latents(inputs[0][:1])


def batch_of(row: Row, base: DiffusionBase, device: torch.device) -> Batch:
    """What a step learns from, made up."""
    latents, _, conditioning = noisy(row, base, device, row.batch)
    times = base.sample_timesteps(row.batch, torch.Generator().manual_seed(0), row.side, row.side).to(device)
    none = torch.zeros(row.batch, dtype=torch.long)
    ones = torch.ones(row.batch, device=device)
    return Batch(none, none, latents, torch.randn_like(latents), times, conditioning, ones)


def noisy(row: Row, base: DiffusionBase, device: torch.device, count: int = 0) -> tuple[Any, Any, Conditioning]:
    """Latents, their timestep and what the denoiser is told of them; twice the row's batch, as guidance asks for."""
    count = count or 2 * row.batch
    latents = torch.randn(count, *base.latent_shape(row.side, row.side), device=device)
    sizes = base.size_conditioning([Framing.whole(row.side, row.side)] * count, device)
    return latents, torch.full((), 500, device=device), told(base, count, device) | sizes


@torch.no_grad()
def read(readers: Sequence[Any], base: DiffusionBase, count: int, device: torch.device) -> None:
    """Texts of made-up tokens, read by every text encoder."""
    tokens = base.blank_conditioning(1).tensors["text"].shape[1]
    for reader in readers:
        reader(torch.zeros(count, tokens, dtype=torch.long, device=device), output_hidden_states=True)


def told(base: DiffusionBase, count: int, device: torch.device) -> Conditioning:
    """Random numbers in place of what texts become."""
    blank = base.blank_conditioning(count).tensors
    return Conditioning({name: torch.randn(t.shape, device=device) if t.is_meta else t for name, t in blank.items()})


def fill(part: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Give an outline's network weights: random ones, and in buffers of whole numbers their places."""
    runtime.move_to(part, dtype).to_empty(device=device)
    numbers = torch.randn(2**22, device=device).mul_(0.02).to(dtype)  # To draw billions would take minutes.
    for name, tensor in (*part.named_parameters(), *part.named_buffers()):
        if not tensor.is_floating_point():
            tensor.copy_(torch.arange(tensor.numel(), device=device).view(tensor.shape))
        elif tensor.ndim > 1:
            for piece in tensor.data.view(-1).split(len(numbers)):
                piece.copy_(numbers[: len(piece)])
        else:
            tensor.data.fill_(float("norm" in name and name.endswith("weight")))


def begin_peak(device: torch.device) -> None:
    """Begin to look for the most memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM.


def peak(device: torch.device) -> int:
    """The most bytes since then."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def free(device: torch.device) -> int:
    """Bytes that nobody uses."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))[1]) * 1024  # type: ignore[index]


# --- The table --------------------------------------------------------------------------------------------------------


def in_its_own_process(row: Row) -> dict[str, Any]:
    """A row's results; `failed` says why there are none."""
    command = [sys.executable, str(Path(__file__)), "--row", json.dumps(asdict(row))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"ended by signal {-done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(row: Row, found: dict[str, Any]) -> str:
    """A row of the table, Markdown."""
    if "failed" in found:
        return f"| {row.label} | {row.precision} | {found['failed']} | | | | | |"
    phase = max(found["peaks"], key=found["peaks"].get)
    most, told = found["peaks"][phase], max(found["estimate"].values())
    each = "; ".join(f"{name} {own / GIB:.2f} / {found['estimate'][name] / GIB:.2f}" for name, own in
                     found["peaks"].items())  # fmt: skip
    return (
        f"| {row.label} | {row.precision} | {found['load_seconds']:.1f} | {found['seconds']:.1f} "
        f"| {found['share']:.0%} | {most / GIB:.2f} | {told / GIB:.2f} | {told / most - 1:+.0%} | {each} |"
    )


HEAD = (
    "| base, work | precision | s to make | s a step | share of the matrix peak | GiB, measured | GiB, estimated "
    "| error | phases, measured / estimated |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bases", nargs="*", help="short names (default: all)")
    parser.add_argument("--most", type=float, default=14.0, help="GiB that a row may take, by its estimate")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    parser.add_argument("--keep", action="store_true", help="write them, and estimates, for `avignon doctor` to show")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    device = runtime.best_device()
    if asked.row:
        row = Row(**json.loads(asked.row))
        print(json.dumps(measured(row, device)))
        return
    print(f"{machine(device)}; {datetime.now(UTC).date()}\n\n{HEAD}", flush=True)
    results = []
    for row in ROWS:
        if asked.bases and row.base not in asked.bases:
            continue
        told = estimated(row, device)
        needs = max(told.values()) / GIB
        most = min(asked.most, free(device) / GIB - SPARED)
        found = in_its_own_process(row) if needs <= most else {"failed": f"not run: about {needs:.1f} GiB are needed"}
        found |= {"estimate": told}
        print(line(row, found), flush=True)
        results.append({**asdict(row), **found})
        if asked.json:
            asked.json.write_text(json.dumps({"machine": machine(device), "rows": results}, indent=1) + "\n")
    if asked.keep:
        keep(results, device)


KEPT = Path(names.__file__).with_name("memory.json")
"""What `avignon doctor` shows without counting."""


def keep(results: Sequence[dict[str, Any]], device: torch.device) -> None:
    """Write what was measured over what was known of the same rows, and what known bases take on a card."""
    known = json.loads(KEPT.read_text(encoding="utf-8"))
    rows = {(row["base"], row["what"], row["machine"]): row for row in known["measured"]}
    for found in results:
        if "failed" not in found:
            what = Row(**{each.name: found[each.name] for each in fields(Row)}).label.removeprefix(f"{found['base']} ")
            adapters = ", one adapter" if found["work"] == "train" else ""
            row = {"base": found["base"], "what": f"{what}, {found['precision']}{adapters}",
                   "bytes": max(found["peaks"].values()), "estimate": max(found["estimate"].values()),
                   "machine": machine(device), "date": str(datetime.now(UTC).date())}  # fmt: skip
            rows[row["base"], row["what"], row["machine"]] = row
    told = {"estimated": {name: on_a_card(name) for name in names.KNOWN}, "measured": list(rows.values())}
    KEPT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def on_a_card(name: str) -> dict[str, int]:
    """Bytes of the leanest training in full weights, and of painting one picture, at the base's own resolution."""
    family, configs = outline.known(name)
    side, place = names.KNOWN[name].resolution, Place("cuda", "fp16")
    trained = TrainingFootprint(family.loader.outlined(configs, side), Train(), place).of(1, checkpointing=True)
    settings = Generate(scenes=(Scene(prompt=""),), batch=1)
    painted = footprint.of_painting(family.loader.outlined(configs, side), settings, place, (side, side))
    return {"train": trained.peak, "paint": painted.peak}


def machine(device: torch.device) -> str:
    """What was measured on, and with which libraries."""
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "peft"))
    return f"{card}, {platform.machine()}; {libraries}"


if __name__ == "__main__":
    main()

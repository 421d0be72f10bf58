"""Train the miniature Stable Diffusion that ships in src/avignon/demo/base, from nothing. Run it from the checkout.

    python -m tools.train_miniature all            every stage; continues from the newest checkpoint if there is one
    python -m tools.train_miniature vae --steps N  one stage, with another number of steps
    python -m tools.train_miniature vae --warm     without a checkpoint here: continue from the weights that ship
    python -m tools.train_miniature all --minutes 8 --size 256 --to FOLDER --cache FOLDER
                                                   what the time allows, on a CUDA card if there is one

Stages: `scenes` renders the training pictures once, `vae` trains the autoencoder on neutral and painted ones, `latents`
encodes the neutral ones, `decoder` continues with the decoder alone, `words` teaches the text encoder what captions
mean, `unet` trains the denoiser on both, `export` writes the newest averaged weights as a diffusers directory, `report`
draws curves and samples.

The default numbers of steps are what two CPU cores can do in an hour, and are trained on the CPU. With `--minutes` the
whole call takes that long, each stage its share of it (clock.py), and `all` keeps the words that ship, or those of
`--warm`. Called again with the same cache it goes on: pictures and latents are done, and the decoder and the denoiser
train further.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tools.train_miniature import BEGAN, autoencoder, data, denoiser, export, figures, text_encoder
from tools.train_miniature.clock import Clock
from tools.train_miniature.settings import BASE, CACHE, DOCS, SIZE, Run


def scenes(run: Run) -> None:
    """Render the pictures; where time is short, make their captions too."""
    data.render(run)
    if run.clock:
        text_encoder.write_tokens(run)


STAGES: dict[str, Callable[[Run, int | None], None]] = {
    "scenes": lambda run, _: scenes(run),
    "vae": autoencoder.train_vae,
    "latents": lambda run, _: autoencoder.encode_latents(run),
    "decoder": autoencoder.train_decoder,
    "words": text_encoder.train_words,
    "unet": denoiser.train_unet,
    "export": lambda run, _: export.export(run),
    "report": lambda run, _: figures.report(run),
}
MULTIPLE = 32
"""Pixels of a side come in steps of so many: the autoencoder halves them three times, the denoiser twice more."""


def main(began: float) -> None:
    """Parse the stages and run them; `began` is when the call's time begins to count."""
    args = arguments()
    names = [name for name in STAGES if name in args.stages or "all" in args.stages]
    cache = args.cache or (CACHE if args.size == SIZE else CACHE.with_name(f"{CACHE.name}-{args.size}"))
    if args.minutes and "all" in args.stages:
        names.remove("words")
        print(f"words: kept, those of {args.warm or BASE}")
        if (cache / "latents.npy").exists():
            names = [name for name in names if name not in ("scenes", "vae", "latents")]
            print(f"scenes, vae, latents: done before, in {cache}; decoder and unet go on")
    ships = args.size == SIZE and not args.minutes
    place = args.to or (None if ships else cache / "result")
    run = Run(
        size=args.size,
        cache=cache,
        base=place / "base" if place else BASE,
        report=place / "report" if place else DOCS,
        warm=args.warm,
        clock=Clock(args.minutes, names, began) if args.minutes else None,
        device=torch.device("cuda" if args.minutes and torch.cuda.is_available() else "cpu"),
    )
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    for folder in (run.cache, run.report):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seconds, start = run.clock.begin(name) if run.clock else None, time.monotonic()
        STAGES[name](run, args.steps)
        if seconds is not None:
            print(f"{name}: took {time.monotonic() - start:.1f} s of its {seconds:.1f} s", flush=True)
    if args.minutes:
        print(f"all: took {time.monotonic() - began:.1f} s of {60 * args.minutes:.1f} s on {run.device}")


def arguments() -> argparse.Namespace:
    """What the command line says, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_miniature", description="Train the miniature Stable Diffusion."
    )
    parser.add_argument(
        "stages", nargs="+", choices=[*STAGES, "all"], metavar="stage", help=", ".join([*STAGES, "all"])
    )
    parser.add_argument("--steps", type=int, help="steps of training of a stage, instead of the constant's")
    parser.add_argument("--minutes", type=float, help="minutes of the whole call, instead of numbers of steps")
    parser.add_argument("--size", type=int, default=SIZE, help=f"pixels of a side, a multiple of {MULTIPLE}")
    parser.add_argument("--cache", type=Path, help="folder of pictures and checkpoints (.cache/miniature…)")
    parser.add_argument("--to", type=Path, help="folder of the result: base/ is the model, report/ curves and samples")
    parser.add_argument(
        "--warm",
        type=Path,
        nargs="?",
        const=BASE,
        help="where there is no checkpoint yet, begin from the weights of this model (the shipped one)",
    )
    args = parser.parse_args()
    if args.size < 2 * MULTIPLE or args.size % MULTIPLE:
        parser.error(f"--size: {args.size} is not allowed; multiples of {MULTIPLE} from {2 * MULTIPLE} on are")
    if args.minutes is not None and not (0 < args.minutes < math.inf):
        parser.error(f"--minutes: {args.minutes} is not allowed; numbers above 0 are")
    if args.minutes is not None and args.steps is not None:
        parser.error("--steps: not together with --minutes, which give each stage a time")
    if args.warm and not (args.warm / "model_index.json").is_file():
        parser.error(f"--warm: {args.warm} holds no model_index.json; a model in diffusers' format is wanted")
    return args


if __name__ == "__main__":
    main(BEGAN)

"""Train the miniature Stable Diffusion that ships in src/avignon/demo/base, from nothing. Run it from the checkout.

    python -m tools.train_miniature all            every stage; continues from the newest checkpoint if there is one
    python -m tools.train_miniature vae --steps N  one stage, with another number of steps
    python -m tools.train_miniature vae --warm     without a checkpoint here: continue from the weights that ship

Stages: `scenes` renders the training pictures once, `vae` trains the autoencoder on neutral and painted ones, `latents`
encodes the neutral ones, `decoder` continues with the decoder alone, `words` teaches the text encoder what captions
mean, `unet` trains the denoiser on both, `export` writes the newest averaged weights as a diffusers directory, `report`
draws curves and samples.

Work files lie in .cache/miniature, curves and samples in docs/miniature. The default numbers of steps are what two CPU
cores can do in an hour; with a night, or more cores, raise them.
"""

import argparse
from collections.abc import Callable

from tools.train_miniature import autoencoder, data, denoiser, export, figures, settings, text_encoder

STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "scenes": lambda _: data.render(),
    "vae": lambda args: autoencoder.train_vae(args.steps, warm=args.warm),
    "latents": lambda _: autoencoder.encode_latents(),
    "decoder": lambda args: autoencoder.train_decoder(args.steps),
    "words": lambda args: text_encoder.train_words(args.steps),
    "unet": lambda args: denoiser.train_unet(args.steps, warm=args.warm),
    "export": lambda _: export.export(),
    "report": lambda _: figures.report(),
}


def main() -> None:
    """Parse the stage and run it."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_miniature", description="Train the miniature Stable Diffusion."
    )
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--steps", type=int, help="steps of training of this stage, instead of the constant's")
    parser.add_argument("--warm", action="store_true", help="begin from the shipped weights")
    args = parser.parse_args()
    settings.DOCS.mkdir(parents=True, exist_ok=True)
    settings.CACHE.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if args.stage in (name, "all"):
            stage(args)


if __name__ == "__main__":
    main()

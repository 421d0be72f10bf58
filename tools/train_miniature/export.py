"""The newest averaged weights as a Stable Diffusion directory that the package carries."""

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from tools.train_miniature import settings
from tools.train_miniature.denoiser import new_scheduler, new_unet
from tools.train_miniature.text_encoder import tokenizer_of_run, trained_text_encoder


def export() -> None:
    """Write the newest averaged weights as a Stable Diffusion directory; every file appears whole.

    The text encoder stays in float32: transformers loads it as it was stored, and plain `from_pretrained` gives
    float32 for the rest.
    """
    tokenizer, unet = tokenizer_of_run(), new_unet()
    unet.load_state_dict(torch.load(settings.CACHE / "unet.pt", weights_only=True)["average"])
    vae = AutoencoderKL.from_pretrained(settings.CACHE / "vae")
    vae.register_to_config(_name_or_path="")  # where it was trained is of no use to others
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=trained_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made = settings.CACHE / "base"
    pipeline.save_pretrained(made)
    tokenizer.backend_tokenizer.model.save(str(made / "tokenizer"))  # vocab.json and merges.txt, for other programs
    for file in sorted(p for p in made.rglob("*") if p.is_file()):
        target = settings.BASE / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(file.read_bytes())
        part.replace(target)
    print("export:", sum(p.stat().st_size for p in settings.BASE.rglob("*")) / 2**20, "MiB in", settings.BASE)

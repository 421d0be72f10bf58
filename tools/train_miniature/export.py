"""The newest averaged weights as a Stable Diffusion directory that the package can carry."""

import shutil

from diffusers import AutoencoderKL, StableDiffusionPipeline

from tools.train_miniature.denoiser import new_scheduler, new_unet
from tools.train_miniature.settings import Run
from tools.train_miniature.text_encoder import tokenizer_of_run, trained_text_encoder
from tools.train_miniature.training import averaged

SHARD = "15MB"
"""The most that a file of weights holds where one is to travel; with its header it stays below 15 MiB (15.7 MB)."""


def export(run: Run) -> None:
    """Write the newest averaged weights as a Stable Diffusion directory; every file appears whole.

    The text encoder stays in float32: transformers loads it as it was stored, and plain `from_pretrained` gives
    float32 for the rest.
    """
    tokenizer, unet = tokenizer_of_run(run), new_unet(run)
    unet.load_state_dict(averaged(run, "unet"))
    vae = AutoencoderKL.from_pretrained(run.cache / "vae")
    vae.register_to_config(_name_or_path="")  # where it was trained is of no use to others
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=trained_text_encoder(run, tokenizer),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made = run.cache / "base"
    shutil.rmtree(made, ignore_errors=True)
    pipeline.save_pretrained(made, max_shard_size=SHARD if run.clock else None)
    tokenizer.backend_tokenizer.model.save(str(made / "tokenizer"))  # vocab.json and merges.txt, for other programs
    files = {file.relative_to(made) for file in made.rglob("*") if file.is_file()}
    for file in sorted(files):
        target = run.base / file
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes((made / file).read_bytes())
        part.replace(target)
    for old in run.base.rglob("*.safetensors*"):
        if old.relative_to(run.base) not in files:
            old.unlink()  # of an earlier model in one file, or in other shards
    sizes = [(run.base / file).stat().st_size / 2**20 for file in files]
    print(f"export: {sum(sizes):.1f} MiB in {run.base}, the largest file {max(sizes):.1f} MiB", flush=True)

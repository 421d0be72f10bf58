"""A complete Stable Diffusion 2.x in miniature: random weights, under one megabyte, 64×64 pictures."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 16

# Words that stay whole, so that captions of the tests' pictures come to a handful of tokens, as real ones do.
WORDS = (
    "a an and as at by for in of on style the with painting drawing portrait picture sea boat boy girl woman man house "
    "tree field light shadow blue red green white guitar table bottle glass window landscape still life studio wood "
    "oil canvas color cubist realist homer gris picasso"
)


def make_tiny_sd(folder: Path, *, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Write the whole pipeline into `folder`, the same bytes for the same seed, and return it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        _text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
        tiny_vae().save_pretrained(folder / "vae")
        _unet().save_pretrained(folder / "unet")
    tokenizer.save_pretrained(folder / "tokenizer")
    tiny_scheduler(prediction_type).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_index(), indent=2) + "\n", encoding="utf-8")
    return folder


def _index() -> dict[str, Any]:
    """What StableDiffusionPipeline.save_pretrained would write, without loading a pipeline to write it."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def tiny_tokenizer(pad: str = "!") -> CLIPTokenizer:
    """CLIP's byte-level BPE over all 256 bytes, so that any text has tokens, and whole words for a few.

    It pads with token 0, as in Stable Diffusion 2; version 1 pads with the end token.
    """
    symbols = _byte_symbols()
    merges: Any = _merges(WORDS.split())  # its annotation knows pairs only as lines of text
    pieces = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
        merges=merges,
        pad_token=pad,
        model_max_length=77,
    )


def _byte_symbols() -> list[str]:
    """GPT-2's printable symbol of each byte, in the order of CLIP's vocabulary: "!" comes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """The merges that build each word from its letters, left to right."""
    pairs: dict[tuple[str, str], None] = {}
    for word in words:
        letters = [*word[:-1], word[-1] + "</w>"]
        while len(letters) > 1:
            pairs.setdefault((letters[0], letters[1]))
            letters[:2] = [letters[0] + letters[1]]
    return list(pairs)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(tiny_text_config(tokenizer, TEXT_WIDTH))


def tiny_text_config(tokenizer: CLIPTokenizer, width: int, **changes: Any) -> CLIPTextConfig:
    """A text encoder of two layers over a tokenizer's vocabulary."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act="gelu",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **changes,
    )


def tiny_vae(scaling_factor: float = 0.18215) -> Any:
    """Four levels: 8 pixels to a latent, as in the real one."""
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=scaling_factor,
    )


def _unet() -> Any:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),  # different, so that a mix-up of blocks fails on its shapes
        attention_head_dim=(1, 2),  # the number of heads, in spite of its name
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
    )


def tiny_scheduler(prediction_type: str) -> Any:
    """The values of Stable Diffusion 2.1-base.

    Its file also says `clip_sample`, of which the class knows nothing: DDIM, built from it without, clips latents.
    """
    scheduler: Any = PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    scheduler.register_to_config(clip_sample=False)
    return scheduler

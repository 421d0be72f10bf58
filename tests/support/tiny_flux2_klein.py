"""A complete FLUX.2 klein in miniature: random weights, half a megabyte, 64×64 pictures."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from transformers import Qwen3ForCausalLM

from tests.support.tiny_z_image import TEXT_WIDTH, qwen_encoder, qwen_tokenizer

TOKENS = 128
"""Of a text: the real one's 512 would take most of the time of every test."""

CHANNELS = 8
"""Of the VAE's latents; the denoiser's have four times as many, at half the width and height."""


def make_tiny_flux2_klein(
    folder: Path, *, seed: int = 0, distilled: bool = False, dynamic: bool = True, tokens: int = TOKENS
) -> Path:
    """Write the whole pipeline into `folder`, the same bytes for the same seed, and return it."""
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        qwen_encoder(tokenizer, 28, tokens, Qwen3ForCausalLM).save_pretrained(folder / "text_encoder")
        (folder / "text_encoder/generation_config.json").unlink()  # For writing on, which no picture asks for.
        _vae().save_pretrained(folder / "vae")
        _transformer().save_pretrained(folder / "transformer")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=dynamic)
    scheduler.save_pretrained(folder / "scheduler")
    index = _index() | ({"is_distilled": True} if distilled else {})
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder


def _index() -> dict[str, Any]:
    """What Flux2KleinPipeline.save_pretrained would write of a base."""
    return {
        "_class_name": "Flux2KleinPipeline",
        "_diffusers_version": diffusers.__version__,
        "is_distilled": False,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3ForCausalLM"],
        "tokenizer": ["transformers", "Qwen2TokenizerFast"],
        "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    }


def _vae() -> Any:
    """Four levels, 8 pixels to a latent; its batch norm has statistics, as a trained one has."""
    vae: Any = AutoencoderKLFlux2(
        sample_size=64,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=CHANNELS,
    )
    vae.bn.running_mean.normal_(0, 0.2)
    vae.bn.running_var.uniform_(0.3, 2.0)
    return vae


def _transformer() -> Any:
    """Two blocks of two streams, three of one; texts weigh enough to be seen in pictures."""
    transformer: Any = Flux2Transformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    with torch.no_grad():
        for block in transformer.transformer_blocks:
            block.attn.add_v_proj.weight.mul_(8)
    return transformer


def flux2_klein_transformer() -> Any:
    """Its transformer at the size of 4B, to be made on the meta device.

    `Klein4BParams` of https://github.com/black-forest-labs/flux2.
    """
    return Flux2Transformer2DModel(
        num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
    )

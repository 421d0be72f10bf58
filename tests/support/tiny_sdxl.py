"""A complete Stable Diffusion XL in miniature: random weights, about a megabyte, 64×64 pictures."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.support.tiny_sd import tiny_text_config, tiny_tokenizer, tiny_vae

WIDTHS, POOLED, TIME_WIDTH = (16, 24), 20, 8
"""Of the two text encoders, of the second's pooled output, of one embedded size."""


def make_tiny_sdxl(
    folder: Path, *, seed: int = 0, prediction_type: str = "epsilon", zeros: bool = True, layers: int = 1
) -> Path:
    """Write the whole pipeline into `folder`, the same bytes for the same seed, and return it.

    SDXL has two `layers` per block.
    """
    first, second = tiny_tokenizer("<|endoftext|>"), tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        one, two = tiny_text_config(first, WIDTHS[0]), tiny_text_config(second, WIDTHS[1], projection_dim=POOLED)
        CLIPTextModel(one).save_pretrained(folder / "text_encoder")
        CLIPTextModelWithProjection(two).save_pretrained(folder / "text_encoder_2")
        tiny_vae(0.13025).save_pretrained(folder / "vae")
        tiny_sdxl_unet(layers).save_pretrained(folder / "unet")
    first.save_pretrained(folder / "tokenizer")
    second.save_pretrained(folder / "tokenizer_2")
    _scheduler(prediction_type).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_index(zeros), indent=2) + "\n", encoding="utf-8")
    return folder


def _index(zeros: bool) -> dict[str, Any]:
    """What StableDiffusionXLPipeline.save_pretrained would write."""
    return {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "force_zeros_for_empty_prompt": zeros,
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def tiny_sdxl_unet(layers: int = 1) -> Any:
    """As SDXL's: no attention at the first level, and more transformer layers at the last."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 24),
        attention_head_dim=(1, 2, 3),
        transformer_layers_per_block=(1, 1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=layers,
        norm_num_groups=4,
        cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=POOLED + 6 * TIME_WIDTH,
    )


def sdxl_unet() -> Any:
    """SDXL's UNet at its full size, as its config.json has it; to be made on the meta device."""
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def sdxl_networks() -> dict[str, Any]:
    """SDXL's UNet and text encoders (CLIP ViT-L/14, OpenCLIP ViT-bigG/14) at their full size, without weights."""
    first = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    second = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )
    with torch.device("meta"):
        return {
            "unet": sdxl_unet(),
            "text_encoder": CLIPTextModel(first),
            "text_encoder_2": CLIPTextModelWithProjection(second),
        }


def tiny_sdxl_networks() -> dict[str, Any]:
    """The same in miniature, with as many blocks and layers in each, of random numbers."""
    texts = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99}
    return {
        "unet": tiny_sdxl_unet(2),
        "text_encoder": CLIPTextModel(CLIPTextConfig(hidden_size=WIDTHS[0], **texts)),
        "text_encoder_2": CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=WIDTHS[1], projection_dim=POOLED, **texts)
        ),
    }


def _scheduler(prediction_type: str) -> Any:
    """The values of stable-diffusion-xl-base-1.0."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        steps_offset=1,
        timestep_spacing="leading",
    )

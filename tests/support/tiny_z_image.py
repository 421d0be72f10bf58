"""A complete Z-Image in miniature: random weights, about a megabyte, 64×64 pictures."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from tokenizers import AddedToken
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from tests.support.tiny_sd import WORDS

TEXT_WIDTH, CHANNELS = 16, 16

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Qwen3's, as far as a single turn shows it."""


def make_tiny_z_image(folder: Path, *, seed: int = 0, shift: float = 6.0, dynamic: bool = False) -> Path:
    """Write the whole pipeline into `folder`, the same bytes for the same seed, and return it."""
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        qwen_encoder(tokenizer).save_pretrained(folder / "text_encoder")
        _vae().save_pretrained(folder / "vae")
        _transformer().save_pretrained(folder / "transformer")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift, use_dynamic_shifting=dynamic)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_index(), indent=2) + "\n", encoding="utf-8")
    return folder


def _index() -> dict[str, Any]:
    """What ZImagePipeline.save_pretrained would write."""
    return {
        "_class_name": "ZImagePipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def qwen_tokenizer() -> Any:
    """Qwen's byte-level BPE over all 256 bytes, with whole words for a few, each with and without a blank before it."""
    symbols = _byte_symbols()
    merges = list(dict.fromkeys(pair for word in WORDS.split() for lead in ("", "Ġ") for pair in _merged(lead + word)))
    pieces = [*symbols, *(one + other for one, other in merges)]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    own: Any = Qwen2Tokenizer
    tokenizer = own(vocab=vocab, merges=merges, eos_token="<|im_end|>", model_max_length=1024)
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True)])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _byte_symbols() -> list[str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]


def _merged(word: str) -> list[tuple[str, str]]:
    """The merges that build a word from its letters, left to right."""
    return [(word[:end], word[end]) for end in range(1, len(word))]


def qwen_encoder(tokenizer: Any, layers: int = 3, positions: int = 2048, kind: Any = Qwen3Model) -> Any:
    """Qwen3's network, with so many layers, for texts of so many tokens."""
    return kind(
        Qwen3Config(
            vocab_size=len(tokenizer) + 3,  # The real one has room to spare as well.
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=positions,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )


def _vae() -> Any:
    """Four levels, 8 pixels to a latent, and the real one's scale and shift."""
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=CHANNELS,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _transformer() -> Any:
    transformer: Any = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[640, 32, 32],
    )
    with torch.no_grad():  # They are trained; as zeros they would hide what is padded.
        transformer.x_pad_token.normal_()
        transformer.cap_pad_token.normal_()
    return transformer


def z_image_transformer() -> Any:
    """Z-Image's transformer at its full size, the defaults of its class; to be made on the meta device."""
    return ZImageTransformer2DModel()

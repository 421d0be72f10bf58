"""The text encoder and its tokenizer: trained to tell a caption's attributes, then frozen."""

import random
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name torch's own documentation uses)
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from avignon.demo import world
from tools.train_miniature.data import captions_of, pictures, scene_of, training_caption
from tools.train_miniature.settings import SEED, Run
from tools.train_miniature.training import autocast, averaged, train, weights_of

TEXT_WIDTH = 128
TEXT_LAYERS = 4
VOCABULARY = 1_024
WORD_STEPS = 500
WORD_BATCH = 64
WORD_RATE = 1e-3
ATTRIBUTES = (len(world.SUBJECTS), len(world.COLOURS), 3, len(world.TIMES), len(world.WEATHERS), 3, 2)
"""How many values each attribute of a caption has."""


def tokenizer_of_run(run: Run) -> Any:
    """The tokenizer that the weights at hand were trained with: this run's, else that of `words`, else a new one.

    Ids without their weights mean nothing, so what was learnt once is kept beside the checkpoints.
    """
    for folder in (run.cache / "tokenizer", run.words / "tokenizer"):
        if folder.exists():
            return CLIPTokenizer.from_pretrained(folder)
    tokenizer = new_tokenizer()
    tokenizer.save_pretrained(run.cache / "tokenizer")
    return tokenizer


def new_tokenizer() -> Any:
    """CLIP's tokenizer with a byte-level vocabulary of its own, learnt from the captions."""
    corpus = [world.caption(scene_of("neutral", k)) for k in range(4_000)]
    filler = "a painting of an oil painting, a picture, a drawing, in the style of"
    counts = Counter(re.findall("[a-z]+|[^a-z ]+", " ".join([*corpus, *[filler] * len(corpus)])))
    merges = learn_merges(counts, VOCABULARY - 514)
    alphabet = sorted(ByteLevel.alphabet())
    words = dict.fromkeys([*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges)])
    vocabulary = {w: k for k, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def learn_merges(counts: Counter[str], most: int) -> list[tuple[str, str]]:
    """Byte-pair merges of words with their counts (Sennrich et al. 2016), ties broken by the alphabet.

    The tokenizers library's trainer breaks ties anew in every process: the same words, but other ids.
    """
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = {word: _merged(parts, best) for word, parts in split.items()}
    return merges


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def new_text_encoder(tokenizer: Any) -> Any:
    """CLIP's text model, four layers of 128."""
    torch.manual_seed(SEED + 1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_WIDTH // 32,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """Ids (B, 77), padded and cut as Stable Diffusion's pipeline does."""
    ids: Tensor = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return ids


def attributes(scene: world.Scene) -> list[int]:
    """What a caption says, as the index of each value among its attribute's."""
    return [
        list(values).index(value)
        for values, value in (
            (world.SUBJECTS, scene.subject),
            (world.COLOURS, scene.colour),
            ((1, 2, 3), scene.number),
            (world.TIMES, scene.time),
            (world.WEATHERS, scene.weather),
            (world.SIDES, scene.side),
            (world.DISTANCES, scene.distance),
        )
    ]


def write_tokens(run: Run) -> None:
    """Ids of captions of each neutral picture, (N, captions, 77): a card would wait while they are made one by one."""
    with ProcessPoolExecutor() as pool:
        texts = list(pool.map(captions_of, range(len(pictures(run, "neutral"))), chunksize=100))
    tokenizer = tokenizer_of_run(run)
    parts = [token_ids(tokenizer, list(chain(*texts[k : k + 500]))).short() for k in range(0, len(texts), 500)]
    np.save(run.cache / "tokens.npy", torch.cat(parts).view(len(texts), -1, 77).numpy())


class AttributeTask:
    """The text encoder's own task: predict a caption's attributes from its end, and from any padding after it.

    Denoising alone would teach it the same, more slowly.
    """

    def __init__(self, text: Any, tokenizer: Any, device: torch.device) -> None:
        self.text, self.tokenizer, self.device = text, tokenizer, device
        self.heads = torch.nn.Linear(TEXT_WIDTH, sum(ATTRIBUTES))
        self.both = torch.nn.ModuleDict({"text": text, "heads": self.heads}).to(device)

    def loss(self, step: int) -> Tensor:
        """Cross-entropy over all attributes, at the end of the caption and at one place after it."""
        rng = random.Random(f"{SEED}/words/{step}")
        scenes = [scene_of("words", step * WORD_BATCH + k) for k in range(WORD_BATCH)]
        texts = [training_caption(scene, rng) for scene in scenes]
        wanted = torch.tensor([attributes(scene) for scene in scenes]).to(self.device)  # (B, 7)
        ids = token_ids(self.tokenizer, texts)
        with autocast(self.device):
            hidden = self.text(ids.to(self.device)).last_hidden_state  # (B, 77, C)
        end = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        after = torch.tensor([rng.randint(min(int(k) + 1, 76), 76) for k in end])
        row = torch.arange(WORD_BATCH)
        told = torch.stack([hidden[row, end], hidden[row, after]]).float()  # (2, B, C)
        parts = self.heads(told).flatten(0, 1).split(ATTRIBUTES, -1)
        errors = [F.cross_entropy(part, wanted[:, k].repeat(2)) for k, part in enumerate(parts)]
        return torch.stack(errors).sum()


def train_words(run: Run, steps: int | None) -> None:
    """Train the text encoder."""
    tokenizer = tokenizer_of_run(run)
    task = AttributeTask(new_text_encoder(tokenizer), tokenizer, run.device)
    train(run, "words", task.both, task.loss, steps or WORD_STEPS, WORD_RATE, dict)


def trained_text_encoder(run: Run, tokenizer: Any) -> Any:
    """The text encoder with its averaged weights, or those of `words` if none was trained here; frozen."""
    text = new_text_encoder(tokenizer)
    if (run.cache / "words.pt").exists():
        state = averaged(run, "words")
        text.load_state_dict({k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")})
    else:
        text.load_state_dict(weights_of(run.words, "text_encoder"))
    return text.eval().requires_grad_(False)

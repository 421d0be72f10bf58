"""Bases: found, checked and loaded from a directory and from a hub, and what is said when they cannot be."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL

from avignon.adapters import inject
from avignon.core.errors import ModelError, RecipeError
from avignon.core.events import Event, Reporter
from avignon.models import hub as models
from avignon.models import runtime
from avignon.models.registry import SAMPLERS
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Ranks
from tests.support.bases import load_base
from tests.support.hub import LocalHub, take_for_the_hub
from tests.support.runs import small_recipe
from tests.support.tiny_sd import make_tiny_sd

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@dataclass
class Loader:
    """Loads bases by recipe, and remembers what was said."""

    folder: Path
    heard: list[Event] = field(default_factory=list)

    def __call__(self, model: Path | str, **base: Any) -> StableDiffusion:
        """The base of a recipe with these values in its `base`."""
        recipe = small_recipe(self.folder, model, base=base)
        self.heard.clear()
        return load_base(recipe, torch.float32, Reporter("train", self.heard.append))

    def refused(self, model: Path | str, **base: Any) -> str:
        """The one line by which a base is refused."""
        with pytest.raises(ModelError) as refused:
            self(model, **base)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    @property
    def warnings(self) -> list[str]:
        """The warnings of the last load."""
        return [event.text for event in self.heard if event.kind == "warning"]


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    """A loader with a folder of its own."""
    return Loader(tmp_path / "recipe")


@pytest.fixture
def copy(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to spoil."""
    return shutil.copytree(tiny_sd, tmp_path / "copy")


def test_loads_a_directory(load: Loader, tiny_sd: Path) -> None:
    """A directory is loaded frozen, in evaluation mode, under its name and without a revision, with nothing to warn."""
    base = load(tiny_sd)
    assert (base.model, base.revision, base.resolution) == (tiny_sd.name, "", 64)
    for part in (base.denoiser, base.pipeline.vae, base.pipeline.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert load.heard == []
    told = {
        "family",
        "model",
        "architecture",
        "prediction_type",
        "licence",
        "revision",
        "fingerprint",
        "parts",
        "resolution",
    }
    assert set(base.card) == told


def unet_of(base: Path) -> str:
    """What tells which adapters fit a base: the SHA-256 of its UNet's weights, rounded."""
    return models.rounded(models.weight_files(base / "unet", "diffusion_pytorch_model"))


def edited(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a file."""
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def without(name: str) -> Callable[[Path], None]:
    """Remove a file or folder."""

    def spoil(base: Path) -> None:
        target = base / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return spoil


def with_text(name: str, text: str) -> Callable[[Path], None]:
    """Replace a file's text."""

    def spoil(base: Path) -> None:
        (base / name).write_text(text, encoding="utf-8")

    return spoil


def with_class(name: Any) -> Callable[[Path], None]:
    """Say that the folder is another pipeline."""
    return with_text("model_index.json", json.dumps({"_class_name": name}))


def truncated(name: str, keep: float = 0.5) -> Callable[[Path], None]:
    """Keep the first part of a file."""

    def spoil(base: Path) -> None:
        content = (base / name).read_bytes()
        (base / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def pickled(name: str) -> Callable[[Path], None]:
    """Replace safetensors by a pickle file, as old repositories have them."""

    def spoil(base: Path) -> None:
        tensors = safetensors.torch.load_file(base / name)
        torch.save(tensors, (base / name).with_suffix(".bin"))
        (base / name).unlink()

    return spoil


def first_reshaped(name: str) -> Callable[[Path], None]:
    """Give a file's first tensor another shape."""
    return lambda base: edited(base / name, lambda tensors: tensors.update({min(tensors): torch.zeros(5)}))


def first_lost(name: str) -> Callable[[Path], None]:
    """Take a file's first tensor away."""
    return lambda base: edited(base / name, lambda tensors: tensors.__delitem__(min(tensors)))


BAD = {
    "no index": (without("model_index.json"), "model_index.json is missing"),
    "damaged index": (with_text("model_index.json", "{"), "model_index.json: damaged"),
    "index is a list": (with_text("model_index.json", "[]"), "model_index.json: damaged"),
    "another pipeline": (with_class("StableDiffusion3Pipeline"), "_class_name is 'StableDiffusion3Pipeline'"),
    "no unet": (without("unet"), "unet/config.json is missing"),
    "no vae": (without("vae"), "vae/config.json is missing"),
    "no text encoder": (without("text_encoder"), "text_encoder/config.json is missing"),
    "no tokenizer": (without("tokenizer"), "tokenizer/vocab.json is missing"),
    "no scheduler": (without("scheduler"), "scheduler/scheduler_config.json is missing"),
    "no unet weights": (without(UNET), f"{UNET} is missing"),
    "no text encoder weights": (without(TEXT), f"{TEXT} is missing"),
    "pickled unet": (pickled(UNET), "diffusion_pytorch_model.bin"),
    "pickled text encoder": (pickled(TEXT), "model.bin"),
    "damaged unet config": (with_text("unet/config.json", "{"), "unet/config.json"),
    "damaged scheduler": (with_text("scheduler/scheduler_config.json", "{"), "scheduler_config.json"),
    "damaged tokenizer": (with_text("tokenizer/tokenizer.json", "{"), "cannot be loaded"),
    "truncated unet": (truncated(UNET), "unet: damaged"),
    "truncated vae": (truncated(VAE, 0.01), "vae: damaged"),
    "truncated text encoder": (truncated(TEXT), "text_encoder: damaged"),
    "empty unet": (truncated(UNET, 0), "unet: damaged"),
    "unet of another shape": (first_reshaped(UNET), "unet: damaged, or not of the shape"),
    "vae of another shape": (first_reshaped(VAE), "vae: damaged, or not of the shape"),
    "text encoder of another shape": (first_reshaped(TEXT), "text_encoder: damaged, or not of the shape"),
    "unet lacks a tensor": (first_lost(UNET), "unet: incomplete: 1 tensors are missing"),
    "vae lacks a tensor": (first_lost(VAE), "vae: incomplete: 1 tensors are missing"),
    "text encoder lacks a tensor": (first_lost(TEXT), "text_encoder: incomplete: 1 tensors are missing"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_bad_directories_are_named(load: Loader, copy: Path, spoil: Callable[[Path], None], said: str) -> None:
    """Whatever a directory lacks or holds wrongly is one line that names it; nothing is made up in its place."""
    spoil(copy)
    line = load.refused(copy)
    assert said in line
    assert str(copy) in line


def test_missing_directory_is_named(load: Loader, tmp_path: Path) -> None:
    """A directory that is not there is named."""
    assert str(tmp_path / "nowhere") in load.refused(tmp_path / "nowhere")


def test_pickles_are_never_opened(load: Loader, copy: Path, tmp_path: Path) -> None:
    """A pickle beside sound safetensors is not read: its code does not run."""

    class Trap:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in (UNET, VAE, TEXT):
        torch.save({"x": Trap()}, (copy / name).with_suffix(".bin"))
    load(copy)
    assert not (tmp_path / "sprung").exists()


def test_variant_is_asked_for_by_name(load: Loader, copy: Path) -> None:
    """`variant` loads the weights of that name, and misses them by that name."""
    assert "unet/diffusion_pytorch_model.fp16.safetensors is missing" in load.refused(copy, variant="fp16")
    for name in (UNET, VAE, TEXT):
        path = copy / name
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert f"{UNET} is missing" in load.refused(copy)
    assert load(copy, variant="fp16").fingerprint


def test_resolution_must_fit_the_base(load: Loader, copy: Path) -> None:
    """A resolution that the base's VAE cannot divide is the recipe's fault; 8 is checked by the schema itself."""
    config = json.loads((copy / "vae/config.json").read_text(encoding="utf-8"))
    config |= {"block_out_channels": [8] * 5}
    config |= {"down_block_types": ["DownEncoderBlock2D"] * 5, "up_block_types": ["UpDecoderBlock2D"] * 5}
    deeper = AutoencoderKL.from_config(config)
    deeper.save_pretrained(copy / "vae")
    with pytest.raises(RecipeError, match=r"base.resolution: 72 is not a multiple of 16"):
        load(copy, resolution=72)
    with pytest.raises(RecipeError, match=r"base.resolution"):
        load(copy, resolution=36)


def test_another_resolution_is_warned_of(load: Loader, tiny_sd: Path) -> None:
    """A resolution that the base was not trained at is named, and used."""
    assert load(tiny_sd, resolution=96).resolution == 96
    assert load.warnings == ["tiny-sd was trained at 64 pixels, 96 are asked for"]


def test_weight_bytes_are_those_of_the_file(load: Loader, tiny_sd: Path) -> None:
    """A base tells how much memory its denoiser takes, in any precision, with an adapter on or not."""
    base = load(tiny_sd)
    file = tiny_sd / "unet" / "diffusion_pytorch_model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert base.weight_bytes(torch.float32) == file.stat().st_size - header
    inject.add(base.denoiser, base.targets, "new", Ranks(attention=2, projection=0, convolution=0), 0.0, 1)
    assert base.weight_bytes(torch.float16) == (file.stat().st_size - header) // 2


def test_fingerprint_is_of_the_unets_weights(load: Loader, tiny_sd: Path, copy: Path, tmp_path: Path) -> None:
    """Equal weights have equal fingerprints wherever they lie, other weights another; the VAE does not count."""

    def first_changed(tensors: dict[str, torch.Tensor]) -> None:
        tensors[min(tensors)].add_(1)

    edited(copy / VAE, first_changed)
    assert load(tiny_sd).fingerprint == load(copy).fingerprint
    edited(copy / UNET, first_changed)
    assert load(tiny_sd).fingerprint != load(copy).fingerprint


def test_fingerprint_reads_the_name_of_a_blob(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights are a link to a file named by its SHA-256, as in the hub's cache, the file is not read."""
    name = models.fingerprint(copy / "unet", "diffusion_pytorch_model")
    (copy / UNET).rename(tmp_path / name)
    (copy / UNET).symlink_to(tmp_path / name)
    monkeypatch.setattr(models, "sha256_of", None)
    assert models.fingerprint(copy / "unet", "diffusion_pytorch_model") == name


REPO = "someone/tiny-sd"


@pytest.fixture
def hub(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with the tiny base on it, which huggingface_hub takes for the real one, and an empty cache."""
    with LocalHub() as hub:
        hub.add(REPO, tiny_sd)
        take_for_the_hub(hub, tmp_path / "hub-cache", monkeypatch)
        yield hub


def test_hub_by_branch_and_commit(load: Loader, hub: LocalHub, tmp_path: Path) -> None:
    """A branch is loaded as its newest commit, which is noted; a commit is loaded as itself, and told apart."""
    old = hub.commit(REPO)
    newer = hub.add(REPO, make_tiny_sd(tmp_path / "newer", seed=1), revision="next")
    main, following, pinned = load(REPO), load(REPO, revision="next"), load(REPO, revision=old)
    assert (main.model, main.revision, following.revision, pinned.revision) == (REPO, old, newer, old)
    assert main.fingerprint == pinned.fingerprint != following.fingerprint
    assert following.fingerprint == unet_of(tmp_path / "newer")


def test_a_base_is_the_same_from_hub_and_directory(load: Loader, hub: LocalHub, tiny_sd: Path) -> None:
    """Fingerprint and identity of a base from the hub are those of the same base in a directory."""
    assert load(REPO).fingerprint == unet_of(tiny_sd)
    assert load(REPO).parts == load(tiny_sd).parts


@pytest.mark.parametrize("cached", [True, False])
def test_silent_hub(load: Loader, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    """A hub that never answers is given up after one time-out, of less than ten seconds; then the cache has to do."""
    assert models.TIMEOUT < 10
    first = load(REPO) if cached else None
    monkeypatch.setattr(models, "TIMEOUT", 0.3)
    monkeypatch.setattr(hub, "answer", lambda _: time.sleep(2))
    start = time.monotonic()
    if first:
        assert load(REPO).fingerprint == first.fingerprint
    else:
        assert "could not be had" in load.refused(REPO)
    assert time.monotonic() - start < 1.5


@pytest.fixture
def token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token in the environment, and a hub that takes another one alone."""
    hub.tokens = frozenset({"hf_good"})
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    return "hf_old"


REFUSALS = ["Invalid credentials in Authorization header", 'User Access Token "old" is expired']


@pytest.mark.parametrize("said", REFUSALS)
@pytest.mark.parametrize("cached", [True, False])
def test_refused_token(load: Loader, hub: LocalHub, token: str, said: str, cached: bool) -> None:
    """With an expired or mistyped token a public base is had without it, or from the cache; a warning says so."""
    if cached:
        hub.tokens = None
        load(REPO)
        hub.tokens = frozenset()
        hub.status["/resolve/"] = 503
    hub.refusal = said
    assert load(REPO).revision == hub.commit(REPO)
    assert [f"{hub.url} refuses the token of this machine" in line for line in load.warnings] == [True]
    assert "hf_" not in load.warnings[0], "a token is nobody's to read"


def test_refused_token_of_odd_letters(load: Loader, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """So with a token that cannot even be sent."""
    monkeypatch.setenv("HF_TOKEN", "hf_…")
    assert load(REPO).revision == hub.commit(REPO)
    assert "refuses the token" in load.warnings[0]


def test_hub_that_refuses_everybody(load: Loader, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that answers 403 with a token and without one does so for another reason: nothing is said of the token."""
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    hub.status["/api/"] = 403
    assert "403" in load.refused(REPO)
    assert load.warnings == []


def test_refused_token_and_no_such_base(load: Loader, hub: LocalHub, token: str) -> None:
    """Where the base is not to be had without the token either, the line says both."""
    line = load.refused("someone/private")
    assert "not on http" in line
    assert "without the token, which is refused" in line


def test_good_token_is_sent(load: Loader, hub: LocalHub, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that the hub takes opens what is gated, and nothing is said."""
    hub.tokens = frozenset({"hf_good"})
    hub.add("someone/gated", tiny_sd, gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert load("someone/gated").revision == hub.commit("someone/gated")
    assert load.warnings == []
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert load("someone/gated").revision == hub.commit("someone/gated"), "from the cache"
    assert ["refuses the token" in line for line in load.warnings] == [True]
    hub.add("someone/other", tiny_sd, gated=True)
    assert "accept the terms" in load.refused("someone/other")


def test_gone_from_the_hub_and_in_the_cache(load: Loader, hub: LocalHub) -> None:
    """A base that its owner took away is still had from the cache; a warning says so."""
    first = load(REPO)
    del hub._repos[REPO]
    assert load(REPO).fingerprint == first.fingerprint
    assert ["going on with the copy in the cache" in line for line in load.warnings] == [True]


def _configured(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change values of a JSON file."""

    def spoil(base: Path) -> None:
        told = json.loads((base / name).read_text(encoding="utf-8"))
        (base / name).write_text(json.dumps(told | changes), encoding="utf-8")

    return spoil


AHEAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "inpainting": (_configured("unet/config.json", in_channels=9), "in_channels is 9"),
    "another pipeline": (with_class("StableDiffusionInpaintPipeline"), "_class_name is 'StableDiffusionInpaint"),
    "flow": (_configured("scheduler/scheduler_config.json", prediction_type="flow_prediction"), "'flow_prediction'"),
}


@pytest.mark.parametrize(("spoil", "said"), AHEAD.values(), ids=AHEAD.keys())
def test_no_weights_are_fetched_of_what_is_no_base(
    load: Loader, hub: LocalHub, copy: Path, spoil: Callable[[Path], None], said: str
) -> None:
    """A repository that cannot be used is refused by its small files, before any weights are fetched."""
    spoil(copy)
    hub.add("someone/else", copy)
    assert said in load.refused("someone/else")
    assert not any(".safetensors" in path for _, path in hub.requests)


def test_long_prompts_are_named(load: Loader, tiny_sd: Path) -> None:
    """Of a prompt longer than the tokenizer takes, the warning names the words that are cut, once; it is still read."""
    base = load(tiny_sd)
    prompt = "the sea " * 40
    heard: list[Event] = []
    read = base.encode_prompts([f"{prompt}lighthouse", "short", f"{prompt}lighthouse"], CPU,
                                     Reporter("generate", heard.append)).tensors["text"]  # fmt: skip
    assert [event.kind for event in heard] == ["warning"]
    assert "longer than the base's 77 tokens" in heard[0].text
    assert heard[0].text.endswith("sea lighthouse'")
    assert heard[0].text.count("sea") == 3, "75 of 81 words fit"
    assert read.shape == (3, 77, 16)
    fitting = base.encode_prompts(["the sea " * 37 + "the"], CPU, Reporter("generate", heard.append)).tensors["text"]
    assert len(heard) == 1
    assert torch.allclose(read[0], fitting[0], atol=1e-6)


def test_texts_in_parts(load: Loader, tiny_sd: Path) -> None:
    """More texts than go through the encoder at once are embedded as each alone, in order."""
    base = load(tiny_sd)
    texts = [f"boat {number}" for number in range(base.texts_at_once * 2 + 3)]
    together = base.encode_prompts(texts, CPU, Reporter("train", load.heard.append)).tensors["text"]
    assert together.shape == (len(texts), 77, 16)
    for place in (0, base.texts_at_once - 1, base.texts_at_once, len(texts) - 1):
        alone = base.encode_prompts([texts[place]], CPU, Reporter("train", load.heard.append)).tensors["text"]
        assert torch.allclose(together[place], alone[0], atol=1e-6)


@pytest.mark.parametrize("native", [True, False])
def test_precision_table(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """`auto` is fp16 on CUDA, bf16 on a CPU that multiplies it, else fp32; what is asked for is obeyed."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    for stage in ("train", "generate"):
        chosen = {device.type: runtime.precision_for("auto", stage, device) for device in (CPU, CUDA, MPS)}
        assert chosen == {"cpu": "bf16" if native else "fp32", "cuda": "fp16", "mps": "fp32"}
    for asked in ("fp32", "bf16"):
        assert runtime.precision_for(asked, "train", CPU) == asked
    assert runtime.precision_for("fp16", "generate", CUDA) == "fp16"
    assert runtime.precision_for("auto", "generate", CUDA, "bf16") == "bf16"


@pytest.mark.parametrize("stage", ["train", "generate"])
def test_half_precision_needs_a_gpu(stage: str) -> None:
    """fp16 on a CPU is the recipe's fault, named by its field."""
    with pytest.raises(RecipeError, match=rf"^{stage}\.precision: 'fp16' needs a GPU"):
        runtime.precision_for("fp16", stage, CPU)


@pytest.mark.parametrize("installed", [True, False])
def test_attention_table(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """With CUDA and the package, and only then, `auto` takes xFormers; to ask for it otherwise is an error."""
    monkeypatch.setattr(runtime, "has_xformers", lambda _: installed)
    assert runtime.attention_for("auto", CUDA) == ("xformers" if installed else "sdpa")
    assert runtime.attention_for("auto", CPU) == runtime.attention_for("sdpa", CUDA) == "sdpa"
    for device in (CPU, CUDA):
        if installed and device is CUDA:
            assert runtime.attention_for("xformers", device) == "xformers"
        else:
            with pytest.raises(RecipeError, match=r"train\.attention: 'xformers' needs"):
                runtime.attention_for("xformers", device)
    assert runtime.attention_for("auto", CUDA, masked=True) == "sdpa"
    with pytest.raises(RecipeError, match=r"train\.attention: 'xformers' reads the base's masks wrongly"):
        runtime.attention_for("xformers", CUDA, masked=True)


def test_xformers_without_kernels_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, but built for another PyTorch: `auto` takes PyTorch's own, instead of failing at the first step."""

    def attend(*_: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("No operator found for `memory_efficient_attention_forward`")

    for works, attention in ((attend, False), (lambda q, *_: q, True)):
        monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
        monkeypatch.setitem(sys.modules, "xformers.ops", SimpleNamespace(memory_efficient_attention=works))
        assert runtime.has_xformers(CPU) is attention


def test_compiling_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch.compile fails, as without Triton or a C compiler, it is said before anything depends on it."""

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Cannot find a working triton installation")

    monkeypatch.setattr(torch, "compile", fails)
    assert not runtime.compiles(CPU)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert runtime.compiles(CPU)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_out_of_memory_by_any_name(failed: RuntimeError, expected: bool) -> None:
    """Drivers, libraries and devices say in words of their own that memory ran out; another error is none of that."""
    assert runtime.is_out_of_memory(failed) is expected


@pytest.mark.parametrize("name", SAMPLERS)
def test_schedulers_keep_the_bases_noise(load: Loader, tmp_path: Path, name: str) -> None:
    """Each scheduler takes the base's betas and, above all, its prediction type."""
    base = load(make_tiny_sd(tmp_path / "v", prediction_type="v_prediction"))
    config = base.sampler(name, 2, 64, 64).config
    assert config.prediction_type == "v_prediction"
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")

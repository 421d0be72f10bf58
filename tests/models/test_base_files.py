"""Bases told by their small files: noise schedules of whichever sampler saved them, and what is no base at all."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
)

from avignon import pipeline
from avignon.core.errors import InputError, ModelError, RecipeError
from avignon.core.events import Event, Reporter
from avignon.core.records import Frame
from avignon.generation import sampler as painting
from avignon.models.registry import SAMPLERS
from avignon.models.stable_diffusion import files as bases
from avignon.models.stable_diffusion.model import StableDiffusion
from avignon.recipe.schema import Recipe
from tests.support.bases import load_base
from tests.support.runs import carried, small_recipe

SILENT = Reporter("generate", lambda _: None)
CPU = torch.device("cpu")
SCHEDULER = "scheduler/scheduler_config.json"

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _savers() -> list[Any]:
    """Every scheduler class of diffusers that has a beta schedule."""
    found = (getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler"))
    known = [kind for kind in found if isinstance(kind, type) and issubclass(kind, SchedulerMixin)]
    return [kind for kind in known if "beta_schedule" in kind._get_init_keys(kind)]  # type: ignore[attr-defined]


SAVERS = _savers()


def saved_by(base: Path, saver: Any, **changes: Any) -> Path:
    """Have another sampler's class save the base's scheduler, with its own defaults for all but the betas."""
    known = {name: value for name, value in {**BETAS, **changes}.items() if name in saver._get_init_keys(saver)}
    if saver is diffusers.UnCLIPScheduler:
        known["beta_schedule"] = "squaredcos_cap_v2"  # It knows no other.
    with warnings.catch_warnings():  # Some classes are older than the installed numpy.
        warnings.simplefilter("ignore", DeprecationWarning)
        saver(**known).save_pretrained(base / "scheduler")
    index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
    index["scheduler"] = ["diffusers", saver.__name__]
    (base / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return base


def clean(sampler: str, **changes: Any) -> Any:
    """A sampler built for latents from the betas alone."""
    betas = {**BETAS, **changes}
    if sampler == "ddim":
        return DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    if sampler == "pndm":
        return PNDMScheduler(**betas, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    kind = EulerDiscreteScheduler if sampler == "euler" else DPMSolverMultistepScheduler
    return kind(**betas, steps_offset=1)


@pytest.fixture
def copy(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to spoil."""
    return shutil.copytree(tiny_sd, tmp_path / "copy")


def recipe_of(base: Path, **generate: Any) -> Recipe:
    """A recipe over a base."""
    return small_recipe(base.parent / "recipe", base, generate=generate)


def loaded(base: Path, **generate: Any) -> StableDiffusion:
    """A recipe's base."""
    return load_base(recipe_of(base, **generate), torch.float32, SILENT)


def denoised(base: StableDiffusion, recipe: Recipe, sampler: str, steps: int = 4) -> Any:
    """A picture, as numbers of 0 to 255."""
    frame = Frame("scene-1", "base", "a boat", "", 3, steps, 5.0, sampler, 64, 64, {}, "", {}, "fp32")
    return np.asarray(painting.ImageSampler(base, recipe, CPU, SILENT).paint([frame])[0], int)


def described(base: Path, name: str, **changes: Any) -> Path:
    """Change values of a JSON file; None takes one away."""
    path = base / name
    told = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in told.items() if value != "gone"}), encoding="utf-8")
    return base


CLEAN: dict[str, dict[str, Any]] = {}
"""Pictures by samplers of a clean configuration, which all tests of one have in common."""


def pictures(base: StableDiffusion, recipe: Recipe) -> dict[str, Any]:
    """One by each sampler."""
    return {sampler: denoised(base, recipe, sampler) for sampler in SAMPLERS}


def test_there_are_savers() -> None:
    """The property below is about all of them."""
    assert len(SAVERS) >= 24
    assert FlowMatchEulerDiscreteScheduler not in SAVERS


COMMON = ("DDIM", "PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LMSDiscrete")
"""Those that most bases were saved by; the others take their turn among the slow tests."""


@pytest.mark.slow_but_one
@pytest.mark.parametrize(
    "saver",
    [pytest.param(each, marks=() if each.__name__.removesuffix("Scheduler") in COMMON else pytest.mark.slow)
     for each in SAVERS],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
@pytest.mark.parametrize("predicts", ["epsilon", pytest.param("v_prediction", marks=pytest.mark.slow)])
def test_whoever_saved_the_scheduler(copy: Path, monkeypatch: pytest.MonkeyPatch, saver: Any, predicts: str) -> None:
    """All four samplers paint what they paint from a clean configuration, within 2/255, whichever class saved it."""
    if predicts == "v_prediction" and "prediction_type" not in saver._get_init_keys(saver):
        pytest.skip("this class knows no prediction type")
    saved_by(copy, saver, prediction_type=predicts)
    # A file that says "leading" is followed by all; the default of the other classes is each sampler's own.
    told = json.loads((copy / SCHEDULER).read_text(encoding="utf-8"))
    changes = {"prediction_type": predicts, "beta_schedule": told["beta_schedule"]}
    if told.get("timestep_spacing") == "leading":
        changes["timestep_spacing"] = "leading"
    recipe = recipe_of(copy)
    base = load_base(recipe, torch.float32, SILENT)
    ours = pictures(base, recipe)

    def sampler_of(_: StableDiffusion, name: str, steps: int, width: int, height: int) -> Any:
        sampler = clean(name, **changes)
        sampler.set_timesteps(steps)
        return sampler

    monkeypatch.setattr(StableDiffusion, "sampler", sampler_of)
    key = json.dumps(changes, sort_keys=True)
    CLEAN[key] = CLEAN.get(key) or pictures(base, recipe)
    for sampler in SAMPLERS:
        assert np.abs(ours[sampler] - CLEAN[key][sampler]).max() <= 2, sampler
        assert ours[sampler].std() > 5, f"{sampler}: fog"


def test_samplers_have_nothing_else_of_the_base(copy: Path) -> None:
    """Clipping, thresholding, noise of its own, other spacings, PNDM's warm-up: nothing of it is taken over."""
    strange = {
        "clip_sample": True, "thresholding": True, "skip_prk_steps": False, "set_alpha_to_one": True, "steps_offset": 0,
        "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True, "final_sigmas_type": "sigma_min",
        "solver_order": 3, "timestep_type": "continuous", "timestep_spacing": "linspace", "euler_at_final": True,
    }  # fmt: skip
    base = loaded(described(copy, SCHEDULER, **strange))
    configs = {name: base.sampler(name, 2, 64, 64).config for name in SAMPLERS}
    for name, config in configs.items():
        expected = dict(clean(name).config)
        assert {key: config[key] for key in expected if not key.startswith("_")} == {
            key: value for key, value in expected.items() if not key.startswith("_")
        }


def test_training_takes_betas_from_any_class(copy: Path) -> None:
    """A file that lacks what its class has a default for is not read with another class's default."""
    saved_by(copy, diffusers.UniPCMultistepScheduler, prediction_type="v_prediction")
    ours = DDPMScheduler.from_config(loaded(copy).pipeline.scheduler.config)
    assert torch.equal(ours.betas, DDPMScheduler(**BETAS).betas)
    assert ours.config.prediction_type == "v_prediction"
    betas = np.linspace(0.001, 0.02, 500).tolist()
    described(copy, SCHEDULER, trained_betas=betas, num_train_timesteps=500)
    base = loaded(copy)
    for name in SAMPLERS:
        assert torch.allclose(base.sampler(name, 2, 64, 64).betas, torch.tensor(betas))
    assert len(DDPMScheduler.from_config(base.pipeline.scheduler.config).betas) == 500


# No signal at the last noise level ------------------------------------------------------------------------------------


def zero_betas() -> list[float]:
    """Betas after which nothing of the picture is left."""
    return [*np.linspace(0.00085, 0.012, 999).tolist(), 1.0]


ZERO: dict[str, dict[str, Any]] = {
    "rescaled": {"rescale_betas_zero_snr": True},
    "trained": {"trained_betas": zero_betas()},
}


@pytest.mark.parametrize("zero", ZERO.values(), ids=ZERO.keys())
def test_zero_terminal_snr_with_epsilon_is_refused(copy: Path, zero: dict[str, Any]) -> None:
    """Where the last level is pure noise, a prediction of the noise says nothing about the picture: one line."""
    described(copy, SCHEDULER, **zero)
    with pytest.raises(ModelError, match=r"scheduler_config\.json: .*prediction_type is 'epsilon'.*'v_prediction'"):
        loaded(copy)


@pytest.mark.parametrize("end", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_levels_without_any_signal_are_refused(copy: Path, end: float, kind: str) -> None:
    """Betas that leave nothing of the picture long before the last level are no Stable Diffusion's: one line."""
    described(copy, SCHEDULER, beta_schedule="linear", beta_start=0.001, beta_end=end, prediction_type=kind)
    with pytest.raises(ModelError, match=r"scheduler_config\.json: no signal is left before the last noise level"):
        loaded(copy)


@pytest.mark.slow_but_one
@pytest.mark.parametrize("zero", ZERO.values(), ids=ZERO.keys())
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_zero_terminal_snr_with_v_is_painted(copy: Path, zero: dict[str, Any], spacing: str) -> None:
    """With a prediction of v, pictures begin at the level of pure noise and are pictures; one sampler cannot."""
    described(copy, SCHEDULER, prediction_type="v_prediction", timestep_spacing=spacing, **zero)
    recipe = recipe_of(copy)
    base = load_base(recipe, torch.float32, SILENT)
    found = {}
    for sampler in ("ddim", "euler", "dpm++"):
        scheduler = base.sampler(sampler, 10, 64, 64)
        assert int(scheduler.timesteps[0]) == 999
        found[sampler] = denoised(base, recipe, sampler, 20)
        assert found[sampler].std() > 5
    assert np.abs(found["ddim"] - found["euler"]).mean() < 40
    with pytest.raises(RecipeError, match=r"generate\.scheduler: 'pndm' cannot be used .*allowed are ddim, euler, dpm"):
        loaded(copy, scheduler="pndm")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_prediction_of_the_sample(copy: Path, sampler: str) -> None:
    """Of a base that predicts the sample, two samplers know how; the others are refused in one line."""
    described(copy, SCHEDULER, prediction_type="sample")
    if sampler in ("ddim", "dpm++"):
        recipe = recipe_of(copy, scheduler=sampler)
        denoised(load_base(recipe, torch.float32, SILENT), recipe, sampler)
    else:
        with pytest.raises(RecipeError, match=r"generate\.scheduler: .* predicts 'sample'; allowed are ddim, dpm"):
            loaded(copy, scheduler=sampler)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_steps_than_noise_levels(copy: Path, sampler: str) -> None:
    """As many steps as the base's noise schedule allows are painted; one more is refused in one line."""
    described(copy, SCHEDULER, num_train_timesteps=20, timestep_spacing="gone")
    recipe = recipe_of(copy, scheduler=sampler, num_inference_steps=19)
    denoised(load_base(recipe, torch.float32, SILENT), recipe, sampler, 19)
    with pytest.raises(
        RecipeError, match=r"generate\.num_inference_steps: 20 is not allowed; .* 20 levels, so at most 19"
    ):
        loaded(copy, scheduler=sampler, num_inference_steps=20)


def test_shifted_noise_is_said(copy: Path) -> None:
    """What a video sampler wrote beside the betas is not used, and a warning says so."""
    saved_by(copy, diffusers.CogVideoXDDIMScheduler)
    heard: list[Event] = []
    load_base(recipe_of(copy), torch.float32, Reporter("train", heard.append))
    assert ["snr_shift_scale" in event.text for event in heard if event.kind == "warning"] == [True]


# What is no base ------------------------------------------------------------------------------------------------------

UNET = {
    "in_channels": 9,
    "out_channels": 8,
    "cross_attention_dim": 24,
    "class_embed_type": "timestep",
    "num_class_embeds": 1000,
    "addition_embed_type": "text_time",
    "encoder_hid_dim_type": "text_proj",
    "time_cond_proj_dim": 8,
    "_class_name": "UNet2DModel",
}
VAE = {
    "latent_channels": 16,
    "scaling_factor": float("nan"),
    "shift_factor": 0.1,
    "latents_mean": [0.0] * 4,
    "_class_name": "AutoencoderTiny",
}
NOISE: dict[str, tuple[dict[str, Any], str]] = {
    "flow prediction": ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'; allowed are"),
    "unknown prediction": ({"prediction_type": "magic"}, "prediction_type is 'magic'; allowed are epsilon"),
    "flow sigmas": ({"use_flow_sigmas": True}, "flow matching"),
    "flow matching with betas": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteSched"),
    "EDM": ({"_class_name": "EDMEulerScheduler", "beta_schedule": "gone"}, "EDMEulerScheduler: flow matching and EDM"),
    "no schedule": ({"beta_schedule": "gone"}, "beta_schedule is None; allowed are linear, scaled_linear"),
    "unknown schedule": ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'; allowed are"),
    "no betas": ({"beta_end": "gone"}, "2 numbers between 0 and 1 are needed; there are [0.00085, None]"),
    "betas beyond one": ({"beta_end": 12}, "2 numbers between 0 and 1 are needed"),
    "betas as text": ({"beta_start": "0.1"}, "2 numbers between 0 and 1 are needed"),
    "too few trained betas": ({"trained_betas": [0.1, 0.2]}, "1000 numbers between 0 and 1 are needed"),
    "no levels": ({"num_train_timesteps": 0}, "num_train_timesteps is 0"),
    "not a number": ({"beta_end": float("nan")}, "2 numbers between 0 and 1 are needed"),
}

NO_BASE: dict[str, tuple[str, dict[str, Any], str]] = {
    **{f"unet {key}": ("unet/config.json", {key: value}, f"{key} is {value!r}") for key, value in UNET.items()},
    **{f"vae {key}": ("vae/config.json", {key: value}, f"{key} is {value!r}") for key, value in VAE.items()},
    **{name: (SCHEDULER, changes, said) for name, (changes, said) in NOISE.items()},
}
NO_BASE["vae latent_channels"] = ("vae/config.json", {"latent_channels": 16}, "in_channels is 4, and only 16")
NO_BASE["text encoder"] = ("text_encoder/config.json", {"hidden_size": 32}, "cross_attention_dim is 16, and only 32")


@pytest.mark.parametrize(("file", "changes", "said"), NO_BASE.values(), ids=NO_BASE.keys())
def test_no_base_is_refused_before_anything_is_fetched(
    copy: Path, tmp_path: Path, file: str, changes: dict[str, Any], said: str
) -> None:
    """Inpainting, depth, class-conditional, flow matching, parts that do not fit: one line, and no work is fetched."""
    described(copy, file, **changes)
    with pytest.raises(ModelError) as refused:
        carried(recipe_of(copy), tmp_path / "runs", "generate")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    where = "unet/config.json" if "in_channels" in said or "cross_attention" in said else file
    assert str(copy / where) in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_a_sampler_is_refused_before_anything_is_fetched(copy: Path, tmp_path: Path) -> None:
    """So is a sampler that the base cannot be used with; what needs no base goes on without."""
    described(copy, SCHEDULER, prediction_type="sample")
    recipe = recipe_of(copy, scheduler="euler")
    with pytest.raises(InputError, match=r"generate\.scheduler"):
        carried(recipe, tmp_path / "runs", "train")
    assert not (tmp_path / "runs").exists()
    shutil.rmtree(copy)
    assert carried(recipe, tmp_path / "runs", "curate")[0].read_ledger()
    with pytest.raises(InputError, match=r"base\.model: .*: no such directory"):
        carried(recipe, tmp_path / "runs", "train")


def test_looking_at_a_base_needs_no_torch(copy: Path) -> None:
    """The check at a run's start reads small files alone."""
    code = "import sys; from pathlib import Path; from avignon.models.stable_diffusion import files; " \
           "files.check(Path(sys.argv[1]), ''); " \
           "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True)


def _halved(base: Path) -> None:
    """Keep the weights of one variant alone."""
    for part, stem in bases.LAYOUT.weights.items():
        path = base / part / f"{stem}.safetensors"
        path.rename(path.with_suffix(".fp16.safetensors"))


def test_other_variant_is_named(copy: Path) -> None:
    """Where only the other variant is there, the line says what to set in the recipe, both ways round."""
    with pytest.raises(ModelError, match=r'fp16\.safetensors is missing, there is diff.*; set base\.variant = ""$'):
        bases.check(copy, "fp16")
    _halved(copy)
    with pytest.raises(
        ModelError, match=r'there is diffusion_pytorch_model\.fp16\.safetensors; set base\.variant = "f'
    ):
        bases.check(copy, "")
    bases.check(copy, "fp16")


SHARDED: dict[str, tuple[str, str]] = {
    "plain": ("model-00001-of-00002.safetensors", ""),
    "variant": ("model.fp16-00001-of-00002.safetensors", "fp16"),
    "older variant": ("model-00001-of-00002.fp16.safetensors", "fp16"),
}


@pytest.mark.parametrize(("name", "variant"), SHARDED.values(), ids=SHARDED.keys())
def test_variants_of_shards(name: str, variant: str) -> None:
    """Weights in several files are of the variant that their names say, in both spellings."""
    from avignon.models import hub

    names = [name, name.replace("-00001-", "-00002-"), f"model.safetensors.index{variant and '.'}{variant}.json"]
    hub.check_names(names, Path("text_encoder"), "model", variant, "base.variant")
    other = "" if variant else "fp16"
    with pytest.raises(ModelError, match=f'set base.variant = "{variant}"'):
        hub.check_names(names, Path("text_encoder"), "model", other, "base.variant")


# The tokenizer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["gone", 512])
def test_tokenizer_is_as_long_as_its_encoder(copy: Path, told: Any) -> None:
    """Without `model_max_length`, or with one beyond the text encoder's positions, the encoder's own length counts."""
    described(copy, "tokenizer/tokenizer_config.json", model_max_length=told)
    base = loaded(copy)
    assert base.pipeline.tokenizer.model_max_length == 77
    heard: list[Event] = []
    read = base.encode_prompts(["the sea " * 60], CPU, Reporter("train", heard.append)).tensors["text"]
    assert read.shape == (1, 77, 16)
    assert "longer than the base's 77 tokens" in heard[0].text


def test_tokenizer_of_another_base(copy: Path) -> None:
    """More tokens than the text encoder has embeddings for: one line, not an index out of range."""
    path = copy / "tokenizer/tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = told["model"]["vocab"]
    vocabulary |= {f"more{number}": len(vocabulary) + number for number in range(3)}
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer: \d+ tokens, and text_encoder/config\.json has a vocab_size of"):
        loaded(copy)


def test_tiny_base_is_as_stable_diffusions_own_files(tiny_sd: Path) -> None:
    """The base of the tests does not clip latents, whoever builds a sampler from its file."""
    theirs = DDIMScheduler.from_config(DDIMScheduler.load_config(tiny_sd / "scheduler"))
    assert theirs.config.clip_sample is False
    assert pipeline.NAMES.index("train") > 0
    assert UNet2DConditionModel.load_config(tiny_sd / "unet")["in_channels"] == 4
    assert AutoencoderKL.load_config(tiny_sd / "vae")["latent_channels"] == 4

"""Adapters of other programs, read: each way to write a layer's change, and what is refused by its name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avignon.adapters.formats import kohya as kohya_format
from avignon.adapters.formats import names, registry
from avignon.adapters.state import AdapterState, LayerChange
from avignon.core.errors import AdapterError
from tests.support.adapters import layers_of, networks, random_state, same
from tests.support.programs import stability

Tensors = dict[str, torch.Tensor]

LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "unet.mid_block.resnets.0.conv1"


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random numbers of a shape, others for each shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).float()


def read(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> AdapterState:
    """What is read of a file with these tensors."""
    folder.mkdir(exist_ok=True)
    path = folder / "anything at all.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return registry.read(folder)


def only(adapter: AdapterState) -> LayerChange:
    """The change of an adapter's one layer."""
    (change,) = adapter.layers.values()
    return change


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal within 1e-6 of the largest number."""
    return float((one - other).abs().max()) <= 1e-6 * float(other.abs().max())


# Names of keys --------------------------------------------------------------------------------------------------------


def scripts_of_2024(key: str) -> str:
    """Diffusers' training scripts: attention is renamed, nothing else."""
    if ".attn" in key or key.startswith("text_encoder"):
        down, up = ("lora.down", "lora.up") if key.startswith("unet") else LINEAR_LAYER
        return key.replace("lora_A", down).replace("lora_B", up)
    return key


LINEAR_LAYER = ("lora_linear_layer.down", "lora_linear_layer.up")


def scripts_of_2023(key: str) -> str:
    """Diffusers in 2023: attention processors."""
    for part in ("to_q", "to_k", "to_v", "to_out"):
        for letter, word in (("A", "down"), ("B", "up")):
            new = f".processor.{part}_lora.{word}.weight"
            key = key.replace(f".{part}{'.0' if part == 'to_out' else ''}.lora_{letter}.weight", new)
    return key


@pytest.mark.parametrize("renamed", [scripts_of_2024, scripts_of_2023, lambda key: key])
def test_names_of_diffusers(tmp_path: Path, renamed: Callable[[str], str]) -> None:
    """Every name that diffusers had for the tensors leads to the same changes; without metadata the scale is 1."""
    adapter = random_state(layers_of(networks("tiny 2")), 1).map(lambda c: LayerChange(c.down, c.up, float(c.rank)))
    if renamed is scripts_of_2023:
        adapter = AdapterState({name: each for name, each in adapter.layers.items() if ".attn" in name})
    tensors = {f"{part}.{key}": tensor for part in adapter.components for key, tensor in adapter.tensors(part).items()}
    changed = {renamed(key): tensor for key, tensor in tensors.items()}
    assert len(changed) == len(tensors)
    assert (changed != tensors) is (renamed(LINEAR + ".lora_A.weight") != LINEAR + ".lora_A.weight")
    back = read(tmp_path / "a", changed)
    assert back.format == "diffusers"
    assert same(adapter, back)


def test_attention_processors_alone(tmp_path: Path) -> None:
    """The first files of diffusers held a UNet's attention processors without a prefix."""
    key = LINEAR.removeprefix("unet.").replace(".to_q", ".processor.to_q_lora")
    back = read(tmp_path / "a", {f"{key}.down.weight": numbers(2, 8), f"{key}.up.weight": numbers(8, 2)})
    assert list(back.layers) == [LINEAR]


def kohya(adapter: AdapterState, renamed: Callable[[str], str]) -> Tensors:
    """Tensors of an adapter by kohya's names, each layer's changed by `renamed`."""
    tensors: Tensors = {}
    for layer, change in adapter.layers.items():
        stem = renamed(names.kohya(layer))
        tensors |= {f"{stem}.lora_down.weight": change.down, f"{stem}.lora_up.weight": change.up}
        tensors[f"{stem}.alpha"] = torch.tensor(change.alpha)
    return tensors


@pytest.mark.parametrize("kind", ["StabilityAI", "SimpleTuner", "SDXL's encoder"])
def test_names_of_kohya(tmp_path: Path, kind: str) -> None:
    """StabilityAI's blocks, SimpleTuner's prefix, and SDXL's name of the first encoder lead to the same changes."""
    adapter = random_state(layers_of(networks("tiny 1")), 1)
    blocks = stability(map(names.kohya, adapter.layers))
    rules: dict[str, Callable[[str], str]] = {
        "StabilityAI": lambda name: blocks.get(name, name),
        "SimpleTuner": lambda name: name.replace("lora_", "lycoris_", 1),
        "SDXL's encoder": lambda name: name.replace("lora_te_", "lora_te1_"),
    }
    back = read(tmp_path / "a", kohya(adapter, rules[kind]))
    assert back.format == "kohya"
    assert same(adapter, back)


def test_lycoris_of_a_transformer_by_itself() -> None:
    """LyCORIS names a transformer's layers without saying what they are of."""
    for layer in ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.3.attn.to_qkv_mlp_proj"):
        assert kohya_format.layer_of(f"lycoris_{layer.replace('.', '_')}") == f"transformer.{layer}"
    assert kohya_format.layer_of("lycoris_layers_0_attention_to_q") == "transformer.layers.0.attention.to_q"
    assert kohya_format.layer_of("lycoris_unheard_of") == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    """Files in half precision are read as they are, alphas too."""
    adapter = random_state({LINEAR: (8, 8)}, 1, dtype=dtype)
    tensors = {key: tensor.to(dtype) for key, tensor in kohya(adapter, str).items()}
    assert same(adapter, read(tmp_path / "a", tensors))


def test_missing_alpha_is_a_scale_of_one(tmp_path: Path) -> None:
    """As every program takes it."""
    tensors = {key: each for key, each in kohya(random_state({LINEAR: (8, 8)}, 1), str).items() if "alpha" not in key}
    assert only(read(tmp_path / "a", tensors)).scale == 1


# LyCORIS: ΔW by the definition of each, computed in another way than the reader does ---------------------------------


def stem(layer: str) -> str:
    """A layer's name in kohya's format."""
    return names.kohya(layer)


def test_locon(tmp_path: Path) -> None:
    """A convolution in three parts is the convolution of their product: W[o,i] = Σ up·mid·down."""
    down, mid, up = numbers(3, 5, 1, 1), numbers(3, 3, 3, 3), numbers(7, 3, 1, 1)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(6.0)}
    change = only(read(tmp_path / "a", {f"{stem(CONVOLUTION)}.{key}": each for key, each in parts.items()}))
    image = numbers(1, 5, 6, 6)
    inner = torch.nn.functional.conv2d(torch.nn.functional.conv2d(image, down), mid, padding=1)
    expected = 6.0 / 3 * torch.nn.functional.conv2d(inner, up)
    assert torch.allclose(torch.nn.functional.conv2d(image, change.delta, padding=1), expected, atol=1e-4)
    assert change.rank == 3


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_loha(tmp_path: Path, rank: int) -> None:
    """ΔW = (α/r)·(B₁A₁)∘(B₂A₂), element by element; exact with r² factors, or in full where that is no more."""
    parts = {
        "hada_w1_a": numbers(9, rank),
        "hada_w1_b": numbers(rank, 11, seed=1),
        "hada_w2_a": numbers(9, rank, seed=2),
        "hada_w2_b": numbers(rank, 11, seed=3),
        "alpha": torch.tensor(4.0),
    }
    change = only(read(tmp_path / "a", {f"{stem(LINEAR)}.{key}": each for key, each in parts.items()}))
    one, other = parts["hada_w1_a"] @ parts["hada_w1_b"], parts["hada_w2_a"] @ parts["hada_w2_b"]
    assert close(change.delta, 4.0 / rank * one * other)
    assert change.rank == min(rank**2, 9)


def test_loha_of_tucker(tmp_path: Path) -> None:
    """Each side as LyCORIS rebuilds it: einsum("i j k l, j r, i p -> p r k l", t, b, a)."""
    parts = {"alpha": torch.tensor(1.0)}
    for n in (1, 2):
        parts |= {f"hada_t{n}": numbers(2, 2, 3, 3, seed=n), f"hada_w{n}_a": numbers(2, 9, seed=n)}
        parts[f"hada_w{n}_b"] = numbers(2, 7, seed=n)
    change = only(read(tmp_path / "a", {f"{stem(CONVOLUTION)}.{key}": each for key, each in parts.items()}))
    one, other = (
        torch.einsum("ijkl,jr,ip->prkl", parts[f"hada_t{n}"], parts[f"hada_w{n}_b"], parts[f"hada_w{n}_a"])
        for n in (1, 2)
    )
    assert close(change.delta, 0.5 * one * other)


LOKR = {
    "both whole": ({"lokr_w1": (2, 3), "lokr_w2": (4, 5)}, None, (8, 15)),
    "one low-rank": ({"lokr_w1": (2, 3), "lokr_w2_a": (9, 2), "lokr_w2_b": (2, 7)}, 2, (18, 21)),
    "both low-rank": (
        {"lokr_w1_a": (6, 2), "lokr_w1_b": (2, 6), "lokr_w2_a": (9, 2), "lokr_w2_b": (2, 7)},
        2,
        (54, 42),
    ),
    "convolution": ({"lokr_w1": (2, 3), "lokr_w2": (4, 5, 3, 3)}, None, (8, 15, 3, 3)),
    "Tucker": (
        {"lokr_w1": (2, 3), "lokr_t2": (2, 2, 3, 3), "lokr_w2_a": (2, 9), "lokr_w2_b": (2, 7)},
        2,
        (18, 21, 3, 3),
    ),
}


@pytest.mark.parametrize(("shapes", "rank", "shape"), LOKR.values(), ids=LOKR.keys())
def test_lokr(tmp_path: Path, shapes: dict[str, tuple[int, ...]], rank: int | None, shape: tuple[int, ...]) -> None:
    """ΔW = (α/r)·W₁⊗W₂, Kronecker's product of the sides as LyCORIS rebuilds them; α says nothing of whole ones."""
    parts = {key: numbers(*each) for key, each in shapes.items()}
    tensors = {f"{stem(LINEAR)}.{key}": each for key, each in parts.items()}
    change = only(read(tmp_path / "a", tensors | {f"{stem(LINEAR)}.alpha": torch.tensor(3.0)}))
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_t2" in parts:
        second = torch.einsum("ijkl,jr,ip->prkl", parts["lokr_t2"], parts["lokr_w2_b"], parts["lokr_w2_a"])
    else:
        second = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    whole = torch.kron(first.reshape(*first.shape, *(1 for _ in second.shape[2:])), second.contiguous())
    assert tuple(change.shape) == shape == tuple(whole.shape)
    assert close(change.delta, (3.0 / rank if rank else 1.0) * whole)


def test_full_change(tmp_path: Path) -> None:
    """`.diff` is ΔW itself."""
    for layer, delta in ((LINEAR, numbers(8, 5)), (CONVOLUTION, numbers(4, 6, 3, 3))):
        change = only(read(tmp_path / layer, {f"{stem(layer)}.diff": delta}))
        assert torch.equal(change.delta, delta)


# What is refused ------------------------------------------------------------------------------------------------------


REFUSED = {
    "oft_blocks": "OFT adapters are not read: ",
    "oft_diag": "OFT adapters are not read: ",
    "w_norm": "changes of normalisation layers are not read: ",
    "diff_b": "changes of biases are not read: ",
    "a1.weight": "GLoRA adapters are not read: ",
    "on_input": "IA3 adapters are not read: ",
    "something_new": "is no part of an adapter that is read",
}


@pytest.mark.parametrize(("part", "told"), REFUSED.items(), ids=REFUSED.keys())
def test_what_is_not_read_is_told_by_name(tmp_path: Path, part: str, told: str) -> None:
    """One key that is not understood is an error that names it, and counts the others; it is not called damaged."""
    tensors = kohya(random_state({LINEAR: (8, 8)}, 1), str)
    others = {f"{stem(layer)}.{part}": numbers(4) for layer in (CONVOLUTION, "unet.conv_in")}
    with pytest.raises(AdapterError) as refused:
        read(tmp_path / "a", tensors | others)
    said = str(refused.value)
    assert told in said
    assert f"lora_unet_mid_block_resnets_0_conv1.{part} (and 1 more)" in said or "lora_unet_conv_in" in said
    assert "damaged" not in said
    assert "\n" not in said


FOREIGN = {
    "Stable Diffusion XL": "lora_te3_text_model_encoder_layers_0_mlp_fc1_add_embedding",
    "FLUX": "transformer.single_transformer_blocks.0.attn.to_q",
    "Z-Image or Lumina": "diffusion_model.layers.0.attention.q_proj",
    "a transformer such as FLUX or Stable Diffusion 3": "transformer.transformer_blocks.0.ff.net.2",
}


@pytest.mark.parametrize(("family", "key"), FOREIGN.items(), ids=FOREIGN.keys())
def test_adapter_of_another_family(tmp_path: Path, family: str, key: str) -> None:
    """The line says for which family of bases an adapter seems to be."""
    with pytest.raises(AdapterError, match=f"; it seems to be for {family}"):
        read(tmp_path / "a", {f"{key}.lora_A.weight": numbers(2, 8), f"{key}.lora_B.weight": numbers(8, 2)})


def test_peft_adapter_of_another_kind(tmp_path: Path) -> None:
    """Peft's configuration of something else than a LoRA is refused by that name; so is a folder without one."""
    folder = tmp_path / "a"
    registry.FORMATS["peft"].write(folder, random_state({LINEAR: (8, 8)}, 1), {})
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"LORA"', '"OFT"'), encoding="utf-8")
    with pytest.raises(AdapterError, match="peft_type is 'OFT'; only 'LORA' is read"):
        registry.read(folder)
    config.unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        registry.read(folder)


Q = stem(LINEAR)


def lora(**other: torch.Tensor) -> Tensors:
    """A LoRA of one layer in kohya's names, with other tensors beside or instead."""
    good = {"lora_down.weight": numbers(4, 8), "lora_up.weight": numbers(6, 4), "alpha": torch.tensor(4.0)}
    return {f"{Q}.{part.replace('_weight', '.weight')}": each for part, each in (good | other).items()}


INF, NAN = float("inf"), float("nan")
UP = "lora_up.weight"
DAMAGED: dict[str, tuple[Tensors, str]] = {
    "rank 0": (lora(**{"lora_down.weight": numbers(0, 8), UP: numbers(6, 0)}), "has a rank of 0"),
    "ranks differ": (lora(**{UP: numbers(6, 5)}), r"B \(6, 5\) by A \(4, 8\)"),
    "no dimension": (lora(**{UP: torch.tensor(1.0)}), r"B \(\) by A \(4, 8\)"),
    "infinite": (lora(**{UP: torch.full((6, 4), INF)}), "NaN or infinity in the tensor lora_unet_.*lora_up"),
    "alpha": (lora(alpha=torch.tensor(NAN)), "NaN or infinity in the tensor lora_unet_.*alpha"),
    "alphas": (lora(alpha=torch.ones(2)), "damaged: only one element tensors"),
    "alphas 0": (lora(alpha=torch.tensor(0.0)), "changes nothing: alpha is 0"),
    "complex": (lora(**{UP: torch.ones(6, 4, dtype=torch.complex64)}), "is of complex64; read are floats"),
    "integers": (lora(**{UP: torch.ones(6, 4, dtype=torch.int32)}), "is of int32; read are floats"),
    "magnitudes": (lora(dora_scale=torch.ones(5)), "has 5 magnitudes"),
    "middle": (lora(**{"lora_mid.weight": numbers(4, 4)}), "damaged: RuntimeError: einsum"),
    "LoHa": ({f"{Q}.hada_w{n}_{x}": numbers(3) for n in (1, 2) for x in "ab"}, "shapes that nothing has"),
    "LoKr": ({f"{Q}.lokr_w{n}": numbers(3) for n in (1, 2)}, "shapes that nothing has"),
    "norm": ({f"{Q}.diff": numbers(3)}, "changes of normalisation layers are not read"),
    "nothing": ({f"{Q}.diff": torch.tensor(1.0)}, "shapes that nothing has"),
}


@pytest.mark.parametrize(("tensors", "told"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_change_of_a_layer_is_a_line(tmp_path: Path, tensors: Tensors, told: str) -> None:
    """Factors, alphas and magnitudes that fit no layer at all are told as they are read, without any base."""
    with pytest.raises(AdapterError, match=told) as refused:
        read(tmp_path / "a", tensors)
    assert "\n" not in str(refused.value)


CONFIGS = {
    "[]": "no JSON object",
    "[" * 100_000: "nested too deeply",
    '{"unet.r": "4", "unet.lora_alpha": 4}': "r is '4', no number",
    '{"unet.r": 4, "unet.lora_alpha": NaN}': "lora_alpha is 'nan', no number",
    '{"unet.r": 4}': "lora_alpha is 'None', no number",
    '{"unet.r": 8, "unet.lora_alpha": 8}': "has a rank of 4, and by its configuration one of 8",
    '{"unet.r": 4, "unet.lora_alpha": 4, "unet.rank_pattern": {"(": 4}}': "damaged: ",
    '{"unet.r": 4, "unet.lora_alpha": 4, "unet.rank_pattern": [1]}': "rank_pattern is ",
    '{"unet.r": 4, "unet.lora_alpha": 4, "unet.use_rslora": "no"}': "neither true nor false",
    '{"unet.r": 4, "unet.lora_alpha": 4, "unet.init_lora_weights": "pissa"}': "is 'pissa': factors of a base",
}


@pytest.mark.parametrize(("text", "told"), CONFIGS.items(), ids=CONFIGS.values())
def test_configuration_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    """What peft's configuration in a header says is held against what it may say, before a base is there."""
    tensors = {f"{LINEAR}.lora_A.weight": numbers(4, 8), f"{LINEAR}.lora_B.weight": numbers(6, 4)}
    with pytest.raises(AdapterError, match=told):
        read(tmp_path / "a", tensors, {"lora_adapter_metadata": text})


def test_fields_of_a_newer_peft_are_passed_over(tmp_path: Path) -> None:
    """Every release of peft has more fields; those that tell no layer and no scale are left out."""
    tensors = {f"{LINEAR}.lora_A.weight": numbers(4, 8), f"{LINEAR}.lora_B.weight": numbers(6, 4)}
    told = '{"unet.r": 4, "unet.lora_alpha": 2, "unet.of_2031": false, "unet.lora_dropout": 0.1}'
    adapter = read(tmp_path / "a", tensors, {"lora_adapter_metadata": told})
    assert only(adapter).alpha == 2
    assert adapter.configs == {"unet": {"r": 4, "lora_alpha": 2}}


def test_summary_of_what_was_read(tmp_path: Path) -> None:
    """Format, layers, ranks, alphas and the family of bases, in one line."""
    layers = layers_of(networks("2.1"))
    chosen = [name for name in layers if ".attn2.to_k" in name or "layers.0.mlp.fc1" in name]
    adapter = random_state({name: layers[name] for name in chosen}, 1, ranks=(1, 4))
    registry.FORMATS["kohya"].write(tmp_path / "mine.safetensors", adapter, {})
    assert registry.find(tmp_path).summary == (
        "mine.safetensors: kohya format, LoRA, 17 of 17 layers read (text_encoder 1, unet 16), ranks 1 to 4, "
        "an alpha for each layer, for Stable Diffusion 2.x"
    )

"""Several adapters in one pass: what the pass does not reproduce of peft's own is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from avignon.adapters import inject, route
from avignon.core.errors import AvignonError
from avignon.core.events import Reporter
from avignon.recipe.schema import Ranks
from tests.support.bases import TARGETS, load_base
from tests.support.runs import small_recipe

RANKS = Ranks(attention=2, projection=0, convolution=0)


@pytest.fixture
def denoiser(tmp_path: Path, tiny_sd: Path) -> Any:
    """A tiny base's denoiser without adapters."""
    return load_base(small_recipe(tmp_path, tiny_sd), torch.float32, Reporter("test", lambda _: None)).denoiser


def test_dropout_is_refused(denoiser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA dropout, which peft applies before A, is refused with the layer's name: for two adapters, not for one."""
    config = inject.lora_config
    monkeypatch.setattr(
        inject, "lora_config", lambda *rest, **more: dataclasses.replace(config(*rest, **more), lora_dropout=0.1)
    )
    for seed, name in enumerate("ab"):
        inject.add(denoiser, TARGETS, name, RANKS, 0.0, seed)
    with pytest.raises(
        AvignonError, match=r"^down_blocks\..*to_[qkv].*do not reproduce LoRA dropout; set train\.together"
    ):
        route.routed(denoiser, ["a", "b"]).__enter__()
    with route.routed(denoiser, ["a"]):
        pass


def test_mixed_variants_are_refused(denoiser: Any) -> None:
    """A LoRA and a DoRA in one pass are refused: peft's own pass computes them in different ways."""
    inject.add(denoiser, TARGETS, "a", RANKS, 0.0, 1)
    inject.add(denoiser, TARGETS, "b", RANKS, 0.0, 2, dora=True)
    with pytest.raises(AvignonError, match="LoRA variants beside plain LoRA"):
        route.routed(denoiser, ["a", "b"]).__enter__()


def test_other_layers_are_refused(denoiser: Any) -> None:
    """Adapters that are not on the same layers are refused."""
    inject.add(denoiser, TARGETS, "a", RANKS, 0.0, 1)
    inject.add(denoiser, TARGETS, "b", Ranks(attention=2, projection=2, convolution=0), 0.0, 2)
    with pytest.raises(AvignonError, match="adapters on other layers"):
        route.routed(denoiser, ["a", "b"]).__enter__()


@pytest.mark.slow
def test_compiled_blocks_of_one_shape_share_their_code(denoiser: Any) -> None:
    """Both adapters, then one, in compiled blocks: what uncompiled ones give, and a graph for each shape and route."""
    for seed, name in enumerate("ab"):
        inject.add(denoiser, TARGETS, name, RANKS, 0.0, seed=seed)
    torch.manual_seed(0)
    for key, parameter in denoiser.named_parameters():
        if "lora_B" in key:  # It begins at 0.
            parameter.data.normal_(0, 0.1)
    inputs = torch.randn(4, 4, 8, 8), torch.tensor([1, 300, 600, 900]), torch.randn(4, 77, 16)

    def said(names: str) -> torch.Tensor:
        with route.routed(denoiser, list(names)), torch.no_grad():
            found: torch.Tensor = denoiser(*inputs).sample
        return found

    plain = [said(names) for names in ("ab", "a")]
    torch.compiler.reset()
    counters.clear()
    denoiser.compile_repeated_blocks(dynamic=False, backend="eager")
    compiled = [said(names) for names in ("ab", "a")]
    blocks = [module for module in denoiser.modules() if type(module).__name__ == "BasicTransformerBlock"]
    torch.compiler.reset()
    assert all(torch.equal(one, other) for one, other in zip(plain, compiled, strict=True))
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2 * 2 < 2 * len(blocks), "2 shapes"

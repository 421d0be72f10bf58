"""peft's configurations as files have them: what is used of them, checked before it is."""

import json
import re
from collections.abc import Mapping
from typing import Any

_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of `init_lora_weights` with which peft takes the first factors out of the base's own weights.

Such factors are no change of the base that everybody has, and loading them would alter the base under all adapters.
"""

_USED = (
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights"),
)
"""What tells the layers and their scales; the rest is of training, or of a peft that is newer than this one."""


LARGEST = 1e9
"""Of ranks and alphas; those of real adapters stay far below."""


def json_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object; `name` is for messages.

    Raises:
        ValueError: it is none.
    """
    try:
        told = json.loads(text)
    except RecursionError:
        raise ValueError(f"{name}: nested too deeply") from None
    if not isinstance(told, dict):
        raise ValueError(f"{name}: no JSON object")
    return told


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is used of a configuration.

    Raises:
        ValueError: naming the field whose value cannot be, or the method that is not read.
    """
    first = config.get("init_lora_weights")
    if isinstance(first, str) and first.startswith(_CHANGES_THE_BASE):
        raise ValueError(
            f"init_lora_weights is {first!r}: factors of a base that was changed with them; peft's save_pretrained "
            "with path_initial_model_for_weight_conversion makes a LoRA of them"
        )
    for field in ("r", "lora_alpha"):
        _check_number(field, config.get(field))
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict):
            raise ValueError(f"{field} is {patterns!r}, no JSON object")
        for pattern, number in patterns.items():
            re.compile(pattern)
            _check_number(f"{field} of {pattern!r}", number)
    for field in ("use_rslora", "use_dora"):
        if not isinstance(config.get(field), bool | None):
            raise ValueError(f"{field} is {config[field]!r}, neither true nor false")
    return {key: config[key] for key in _USED if key in config}


def _check_number(field: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST  # not NaN
    if not is_number:
        raise ValueError(f"{field} is {str(value)[:40]!r}, no number up to {LARGEST:g}")

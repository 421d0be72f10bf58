"""What this machine offers."""

import os
import shutil

import click

from avignon import __version__
from avignon.cli.tables import print_table
from avignon.models.names import KNOWN


@click.command()
def doctor() -> None:
    """Say what this machine offers and can reach. It lists device, precision, attention, memory, disk and servers.

    Then the bases that a recipe may call by a short name, each with its home and its licence.
    """
    import platform

    import torch

    from avignon.core.files import cache_folder
    from avignon.core.records import NGA_TABLES
    from avignon.models import runtime
    from avignon.museums.http import reachable

    device = runtime.best_device()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    rows = [
        ("avignon", __version__),
        ("python, torch", f"{platform.python_version()}, {torch.__version__}"),
        ("device", f"{device}" + (f" ({torch.cuda.get_device_name()})" if device.type == "cuda" else "")),
        ("processor cores", str(os.cpu_count())),
        ("precision", runtime.precision_for("auto", "train", device)),
        ("attention", runtime.attention_for("auto", device)),
        ("base.quantize", "int8, nf4"),
        ("train.offload", "yes" if device.type == "cuda" else "of no use: only a CUDA device has memory of its own"),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown"),
        ("free disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB"),
        ("tables' cache", str(cache_folder())),
        ("museum", reachable(f"{NGA_TABLES}/objects.csv")),
        ("model hub", reachable(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))),
    ]  # fmt: skip
    if device.type == "cuda":
        rows.insert(7, ("GPU memory", f"{torch.cuda.mem_get_info()[1] / 2**30:.1f} GiB"))
    rows += [
        (f"base {name}", f"{known.homes[0]}, {known.resolution} pixels; licence: {known.licence}")
        for name, known in KNOWN.items()
    ]
    print_table("doctor", ("what", "here"), rows)

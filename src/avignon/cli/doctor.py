"""What this machine offers."""

import os
import shutil

import click

from avignon import __version__
from avignon.cli.tables import print_table
from avignon.models.names import KNOWN


@click.command()
@click.option("--base", metavar="NAME", help="the memory of this base: a short name, a path, or a repository")
def doctor(base: str | None) -> None:
    """Say what this machine offers and can reach. It lists device, precision, attention, memory, disk and servers.

    Then the bases that a recipe may call by a short name, each with its home, its licence and the memory it takes. With
    --base that is told setting by setting, and which of them fit.
    """
    if base:
        from avignon.cli.memory import print_memory

        print_memory(base)
        return
    import platform

    import torch

    from avignon.cli.memory import in_short
    from avignon.core.files import cache_folder
    from avignon.core.records import NGA_TABLES
    from avignon.models import runtime
    from avignon.museums.http import reachable

    device = runtime.best_device()
    memory = runtime.memory_of(torch.device("cpu"))
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
        (f"base {name}", f"{known.homes[0]}, {known.resolution} pixels; licence: {known.licence}; {in_short(name)}")
        for name, known in KNOWN.items()
    ]
    print_table("doctor", ("what", "here"), rows)

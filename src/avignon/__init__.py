"""From museum open data to a dialogue of eras: curated works, LoRA adapters, a series of images, a page to show."""

from importlib.metadata import version

__version__ = version("avignon")

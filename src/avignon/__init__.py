"""From museum open data to a dialogue of eras: curated works, LoRA adapters, a series of images, a page to show."""

__version__ = "0.1.0"
"""The one place that has it; the package's metadata reads it here."""

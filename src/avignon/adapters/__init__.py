"""Adapters: put on a denoiser, mixed, trained in one pass, saved and loaded, and what they say of themselves."""

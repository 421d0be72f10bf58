"""Stable Diffusion 1.x and 2.x: a UNet that denoises a VAE's latents by a CLIP text encoder's embeddings."""

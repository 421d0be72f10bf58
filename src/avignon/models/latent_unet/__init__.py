"""What Stable Diffusion and SDXL share: a UNet that denoises a VAE's latents by CLIP's readings of a text."""

"""Stable Diffusion XL: two text encoders, and a UNet that is told of each picture's size and crop as well."""

"""Frames to pictures: plans of series, the sampler, and what a picture says of itself."""

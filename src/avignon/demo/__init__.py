"""The embedded world: a museum, its painters and a miniature Stable Diffusion that need no network."""

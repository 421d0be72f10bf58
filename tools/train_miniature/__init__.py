"""Training of the miniature Stable Diffusion that ships in `src/avignon/demo/base`, from nothing, by its parts."""

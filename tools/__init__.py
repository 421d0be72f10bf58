"""Programs that made what ships in `src/avignon/demo`: the museum's tables and the miniature Stable Diffusion."""

"""Training of the miniature Stable Diffusion that ships in `src/avignon/demo/base`, from nothing, by its parts."""

import time

BEGAN = time.monotonic()
"""When this package was imported, before torch: the time that `--minutes` gives counts from here."""

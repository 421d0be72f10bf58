"""The parts of `benchmarks/gpu.py`, one module each.

A part's module has `GOAL` (one line), `measure(plan, record)` and `rows(results)`. `record(key, value)` adds a value
that JSON can hold and writes the part's file at once. `rows` makes the part's section of the page, Markdown, of what
was recorded, be it all or not.
"""

PARTS = {"agreement": 80, "demo": 70, "training": 75, "painting": 55, "original": 115, "profile": 25,
         "families": 600}  # fmt: skip
"""In the order of the table, with the seconds that each may take."""

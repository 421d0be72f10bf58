"""The tests; a package, so that this runs before anything that they import."""

import os

# Read once, when torch is imported: on tensors as small as the tests', threads cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

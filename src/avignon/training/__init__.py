"""Training: what is learned, from what, how, and what is kept of it."""

"""FLUX.2 klein: a transformer of two streams, then one, that reads three layers of Qwen3 beside a picture."""

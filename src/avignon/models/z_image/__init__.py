"""Z-Image: a transformer that reads the tokens of a picture and of a text by Qwen3 as one sequence."""

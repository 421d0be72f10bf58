"""Base models: one protocol, a row and a module for each family, and the one way to a loaded base."""

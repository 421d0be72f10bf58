"""Formats of adapter files: one program, one module."""

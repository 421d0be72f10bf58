"""Curation: which works a training set takes, and why."""

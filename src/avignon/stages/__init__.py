"""The stages of a run: one page each. Each reads the folders of its parents and writes its own."""

"""The command line: commands by job, and how a run's events are shown."""

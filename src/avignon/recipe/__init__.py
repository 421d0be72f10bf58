"""The recipe: its schema, how it is read, those that are shipped, and what is said of a mistake in one."""

"""The recipe: its schema, how it is read, those that are shipped, and the messages about mistakes in one."""

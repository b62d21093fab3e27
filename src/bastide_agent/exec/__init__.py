"""Commands run on request: tasks, their output, and who listens (spec runtime 6)."""

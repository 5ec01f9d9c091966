"""A user's own models: add, test, compare and remove."""

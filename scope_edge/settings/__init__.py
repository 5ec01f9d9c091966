"""The settings file, its schema and checks."""

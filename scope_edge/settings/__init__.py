"""The settings file, its schema, and the checks that every value goes through."""

"""Outcomes measured elsewhere, brought in: one file a format, and what all formats share. Nothing imported is executed."""

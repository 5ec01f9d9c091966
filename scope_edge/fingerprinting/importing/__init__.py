"""Import outcomes that were measured elsewhere: one file per format, and what all formats share. Nothing is executed."""

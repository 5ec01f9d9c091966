"""Fingerprinting: a model answers the anchors of a core set and is graded, or its outcomes are imported."""

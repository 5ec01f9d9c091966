"""Difficulty told by those who were measured: anchors that the map placed, updated by the models' outcomes on them."""

"""Labelled queries replayed: predictions and choices of scope-edge and other routers, scored and drawn."""

"""Estimates of P(correct) and answer length by item response theory, from fingerprints and a map of difficulty."""

"""Estimates to a decision: costs, constraints, utility, ranking."""

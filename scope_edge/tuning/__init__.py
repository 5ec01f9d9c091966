"""Forecasts of what each alpha buys in a pool, and a user's own calibration."""

"""The bank, the map, the population and the calibration, learned from labelled queries. Fitting needs scipy (extra `eval`)."""

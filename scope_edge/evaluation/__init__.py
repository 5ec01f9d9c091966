"""Replay of labelled queries: what the router would have done, what it would have been worth, beside other routers.

data.py       labelled queries as one table: outcomes, lengths, prompt tokens, vectors
splits.py     what a seed holds out, so that nothing is scored with what was fitted on it
fitting.py    bank, calibration and fingerprints learned anew on the training part
predicting.py every router's word on every scored query and model      baselines.py  the learned ones (scikit-learn)
scores.py     what predictions are worth      paired.py  differences with intervals
routing.py    what choices are worth at every alpha      curves.py  accuracy against cost
run.py        all of it, as a Report      report.py  what a Report holds
"""

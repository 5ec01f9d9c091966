"""Everything the prior needs, learned from labelled queries. Needs scipy (extra `eval`); deciding a query needs none of it.

pooled.py          labelled queries of one or more sets as one table; splits
naming.py          which spellings are the same model      embeddings.py  vectors of many texts, kept
joint_fit.py       how hard each query is and how able each model, from every outcome at once
fit_map.py         the map from embedding and features to difficulty, log-length, domains
fit_population.py  what models are like, the prior of a new one
core_anchors.py    which questions tell most of a new model
learn.py           all of them in their order, and the calibration
"""

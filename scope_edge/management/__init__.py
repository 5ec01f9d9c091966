"""A user's own models: a card for one, whether it can be loaded and answers, which of two is better, and taking things away.

draft.py     a GGUF or an endpoint's model as a card in the making     served.py    what an endpoint says it serves
adding.py    the card into the settings file, the model into a pool    loadable.py  can a GGUF be loaded here
trying.py    one tiny call                                             comparing.py two models, paired where that can be
removing.py  a card, fingerprints, an anchor set: with what hangs on it
"""

"""The SCOPE estimator: its prompt, what it makes of a query's slices, and how a GGUF of it comes to this machine."""

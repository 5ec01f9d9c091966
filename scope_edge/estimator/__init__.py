"""The SCOPE estimator: a language model that reads a model's outcomes on similar questions and predicts the outcome on yours.

scope.py         a query's estimates, refined for as long as an answer could change the decision
prompt.py        prompts and answer lines; the examples a prompt shows      template.txt  the bundled prompt
refined.py       samples -> estimates
calibration.py   the map from an estimator's answers to estimates           calibrate.py  where it comes from
factory.py       the parts put together for a router or a command
install.py       a GGUF, a checkpoint or a hub id (sources.py) becomes an entry of the store (store.py)
convert/         a Qwen3 checkpoint becomes a GGUF, quantized; a model card becomes a template
"""

"""The SCOPE estimator: a language model that reads how others did on similar questions and says how they will do on yours.

scope.py       slices -> prompts -> estimates, for as long as an answer could change the decision
examples.py    what it is shown      prompt.py  how, and how answers are read    template.txt  in whose words    card.py  its own
prompter.py    prompts and jobs      reading.py, refined.py  samples to estimates    pace.py  what there is time for
calibrated.py  its calibration       leave_one_out.py, scored.py, calibrate.py   where that comes from
use.py         puts the parts together for a router, examined.py for doctor
install.py     a file, a checkpoint or a hub id (sources.py) becomes an installed.py entry
convert.py     a Qwen3 checkpoint (checkpoint.py, vocabulary.py) becomes a GGUF    quantize.py  a smaller one
paper_data.py  anchors with text and what models did on them, from tables.py
"""

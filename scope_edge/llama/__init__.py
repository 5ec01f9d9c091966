"""llama.cpp, which lives in child processes only: native code can crash, and a decision must come all the same.

The parent's side
  client.py      start a worker, ask it, outlive it      child.py     one worker process    ladder.py  how it is restarted
  reply.py       a stream of one worker                  counting.py  a prompt's tokens     memo.py    what worked here
  memory.py      what a model may take of this machine   jobs.py      what is asked and answered    frames.py  over pipes
Device models for an application
  host.py        ask a model by its card                 generation.py  how, checked    stream.py  its answer as it is read
  residents.py   those that are loaded                   turns.py     whose turn it is      budget.py  what they may take
The child's side
  worker.py      requests in, answers out                warmup.py    does it compute sense, and how fast
  streams.py     requests that come and go               native.py    the only hands on llama.cpp
  batch.py       many samples and streams decoded together: the heart    tasks.py  what is under way    slots.py  what is cached
  drawing.py     from logits to tokens    sampling.py  drawing one    answer.py  a sample token by token    plain.py  plain text
  chat.py        a model's own chat template
Others
  header.py      what a GGUF says of itself, read without llama.cpp
  describe.py, probe.py, quantize.py   smaller children: can a GGUF be read, what llama.cpp was built with, its quantizer
"""

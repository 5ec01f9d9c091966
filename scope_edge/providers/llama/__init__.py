"""llama.cpp, which runs in child processes only: native code can crash, and a decision must come all the same.

The parent's side
  client.py    start a worker, ask it, outlive it     process.py  one worker process       messages.py  what goes over the pipes
  speed.py     the configuration that worked here, and how fast                            memory.py    where a model goes
Device models for an application
  host.py      ask a model by its card, read its answer as it is written
  model_manager.py  the loaded models                 scheduling.py  which is loaded next, and which are evicted for it
The child's side
  worker.py    requests in, answers out               warmup.py   does it compute sense, and how fast
  streams.py   requests that come and go              native.py   the only code that calls llama.cpp
  batch.py     many samples and streams decoded together: the heart    tasks.py  jobs under way    prompt_cache.py  cached prompts
  sampling.py  from logits to tokens                  decoding.py a sample token by token          chat_template.py  the model's own
Others
  gguf.py      what a GGUF says of itself, read without llama.cpp
  probe.py, probe_child.py, quantize.py   smaller children: what llama.cpp was built with, can it read a GGUF, its quantizer
"""

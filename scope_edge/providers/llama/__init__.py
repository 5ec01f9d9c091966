"""llama.cpp, which runs in child processes only: native code can crash, and a decision must come all the same.

The parent's side
  client.py    starts a worker, sends it requests              process.py  child processes   messages.py  requests, answers, frames
  speed.py     the fallback configurations, and the speed cache           memory.py   where a model goes, GPUs
  gguf.py      the header of a GGUF    loadable.py  whether a GGUF can be loaded here    probe.py  how llama.cpp was built
Device models for an application
  host.py      a conversation in, its answer as it is written             model_manager.py  loaded models, and which is loaded next
The child's side
  child.py     the script of every child          worker.py  requests in, answers out     native.py  the only code that calls llama.cpp
  batch.py     many samples and streams decoded together                  tasks.py    jobs, samples and cached prompts
  sampling.py  from logits to tokens              decoding.py  one sample, token by token  chat_template.py  the model's own template
  warmup.py    checks a loaded model and measures its speed
"""

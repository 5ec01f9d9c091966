"""llama.cpp, which lives in child processes only: native code can crash, and a decision must come all the same.

client.py      the parent's side: start, ask, outlive      ladder.py  how it is restarted    memo.py  what worked here
memory.py      what it may take of this machine             jobs.py    what is asked and answered    frames.py  over pipes
worker.py      the child's side      warmup.py  does it compute sense, and how fast    native.py  the only hands on llama.cpp
batch.py       many samples of many prompts decoded together: the heart
slots.py       prompts kept in the cache    answer.py  a sample's answer, token by token    sampling.py  drawing tokens
header.py      what a GGUF says of itself, read without llama.cpp
describe.py, probe.py, quantize.py   smaller children: can a GGUF be read, what llama.cpp was built with, its quantizer
"""

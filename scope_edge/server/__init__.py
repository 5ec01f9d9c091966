"""An OpenAI-compatible server on this machine. The web framework lives only here.

app.py       the application: addresses and errors      run.py          a process that serves it
chat.py      answers                                    plain.py        models, decisions, embeddings, health, metrics
state.py     how the commands find this server          page.py         the page at / and what it needs
wire.py      requests, checked                          shapes.py       answers in OpenAI's format
names.py     the model that a request names             problems.py     errors in OpenAI's format
desk.py      decides and asks                           counters.py     what is loaded for that
sticky.py    conversations keep their model             service.py      what endpoints share
gate.py      a queue with limits                        guard.py        access: Host, Origin, token
asgi.py      bodies, disconnects, held responses        bridge.py       an answer's thread, read in the event loop
connections.py  limits for slow and idle clients        memory.py       memory returned to the system
metrics.py   counts for Prometheus
"""

"""An OpenAI-compatible server on this machine. The web framework lives only here.

problems.py  what goes wrong, as a status and in OpenAI's words        wire.py    requests, read with distrust
names.py     which model a request means                               shapes.py  answers as the format has them
desk.py      a request goes to the router of its settings              counters.py  the routers, and the parts they share
sticky.py    conversations keep their model                            gate.py    how many at once, and how many wait
pump.py      an answer out of its thread into the event loop           exchange.py  a request's body, and who hangs up
guard.py     who may ask at all: Host, Origin, token, size             metrics.py   what was done, for Prometheus
chat.py      /v1/chat/completions, /v1/completions                     plain.py    the other addresses of /v1, /health
state.py     the state file by which commands find the server          page.py     the page at /, and what it needs
doors.py     connections: how many, and how long each may idle         app.py      all of it as one application
run.py       a process that serves it                                  thrift.py   memory given back
"""

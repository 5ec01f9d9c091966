"""The user's own server, as the user's own commands find it and talk to it.

token.py     the secret that both know, and how one proves to the other that it does
runtime.py   where a server that runs is noted
standing.py  whether a server would decide as this process would
wire.py      decisions, answers and errors on the way from one to the other
client.py    the connection: to this machine's loopback, and to nothing else
asking.py    a decision, or an answer as it comes, from a server
"""

"""System calls of a process and its children that have to do with the network, as strace sees them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_CALLS = "trace=execve,connect,sendto,sendmsg,sendmmsg,bind"


@dataclass(frozen=True)
class Trace:
    """What was written down. command: what to run a program with."""

    path: Path

    @property
    def command(self) -> list[str]:
        return ["strace", "-f", "-qq", "-s", "500", "-e", _CALLS, "-o", str(self.path)]

    def ran(self, program: str) -> bool:
        """Whether a program was started, by a part of its command line."""
        started = re.findall(r"execve\(.* = 0$", self.path.read_text(), re.MULTILINE)
        return any(program in line for line in started)

    def outside(self) -> list[str]:
        """Calls that have to do with another machine: an address of the internet's families that is not loopback."""
        return [
            line
            for line in self.path.read_text().splitlines()
            if re.search(r"AF_INET6?\b", line) and not re.search(r'"(127\.[\d.]+|::1)"', line)
        ]

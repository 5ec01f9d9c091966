"""The command prefix that runs a program with no network at all."""

CUT = ("unshare", "--user", "--map-root-user", "--net")

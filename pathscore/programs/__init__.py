"""Pyro programs seen from outside: where they are found, what one run of them does, how its trace is read."""

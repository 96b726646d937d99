"""The program that starts a driver and stays as its guardian.

It runs as ``python -I -S`` in a process of its own, off the data path: the driver reads and writes the
host's pipes directly. Standard library only, and little of it, for every restart waits for its start.
`kmsplug_host._spawn` starts it.
"""

"""Preheat's Python runtime: the standard library only, loaded in the function's process under a name of its own.

`zygote` forks environments, `loop` is AWS's Runtime API client loop, `handler` finds the handler, `stream` writes
streamed answers, `context` and `logs` are what a handler sees. Nothing here imports the rest of Preheat.
"""

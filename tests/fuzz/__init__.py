"""Fuzzer: damaged and hostile files must end in one line of error, or in the same numbers as the whole file.

A file in ``tests/fuzz/kinds`` adds a kind of input: a function with the decorator `fuzzer` that writes one
mutant and returns its trial. ``python -m tests.fuzz --n 5000`` runs all kinds; `runner` says what a fault is.
"""

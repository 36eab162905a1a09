"""Timings, to be run on a quiet machine: `python -m benchmarks NAME`. README.md has results and how to read them."""

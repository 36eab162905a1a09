"""Timings, for a quiet machine: `python -m benchmarks NAME`. README.md here has results and how to read them."""

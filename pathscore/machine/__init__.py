"""The machine: random streams, memory, precision, fused kernels, signals. Nothing here depends on a program."""

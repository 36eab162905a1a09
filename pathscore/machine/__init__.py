"""What lies below the mathematics: random streams, memory, precision, fused kernels, signals. It knows no program."""

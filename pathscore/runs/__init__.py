"""One run, from a configuration to a directory: assembly, training, checkpoints, metrics, pictures, opening it."""

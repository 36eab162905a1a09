"""The entries of `MODELS`, one per file: a program's options, data, evaluation and pictures for the command line."""

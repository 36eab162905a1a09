"""Programs of Pyro's tutorials in short, on data that they make themselves: `build(seed) -> (model, guide, args)`.

Each file runs as a script, as in `python examples/vae.py`. `python -m examples.walk` tries every part of Pathscore on
each of them and writes the table of `docs/examples.md`.
"""

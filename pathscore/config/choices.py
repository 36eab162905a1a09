"""The names that the command line offers, one tuple per table, in the order of the tables.

The tables themselves (`pathscore.elbos.ELBOS`, `pathscore.data.DATASETS`, …) import torch, which takes seconds. Help
texts and errors about misspelt names must not wait for it, so the names are repeated here.
`tests/command/test_tables.py` fails when a tuple and its table differ.
"""

CHOICES: dict[str, tuple[str, ...]] = {
    "elbo": (
        *("trace", "tracegraph", "meanfield", "enum", "renyi", "rws", "tail-adaptive"),
        *("iwae", "vimco", "ovis", "dreg", "vr", "wake-sleep"),
    ),
    "kl": ("sampled", "analytic", "auto", "relaxed", "discrete"),
    "fill": ("geometric", "arithmetic", "none"),
    "estimator": (
        *("auto", "pathwise", "stl", "score", "score-avg", "nvil", "rloo", "arm", "disarm", "rebar", "relax", "muprop"),
        *("gumbel", "st", "st-gumbel", "reinmax", "enum", "local", "unordered", "sum-and-sample"),
        *("measure-valued", "delta", "flipout", "local-reparameterisation", "group-mean", "grpo"),
    ),
    "dataset": ("digits", "breast-cancer", "mnist", "fashion-mnist", "omniglot"),
    "binarize": ("static", "dynamic", "threshold", "none"),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine", "linear", "iwae"),
    "dtype": ("float32", "float64"),
    "compile": ("auto", "on", "off"),
    "matmul_precision": ("highest", "high", "medium"),
}

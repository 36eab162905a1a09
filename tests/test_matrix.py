"""The tables, the names that the command line offers, and the legality matrix against what runs really do."""

import subprocess
import sys
from pathlib import Path

import pytest

import guides
import models
from pathscore import cli, job, matrix
from pathscore.choices import CHOICES
from pathscore.data import BINARIZE, DATASETS
from pathscore.elbos import ELBOS
from pathscore.estimators import ESTIMATORS
from pathscore.optimiser import OPTIMIZERS
from pathscore.schedules import SCHEDULES

TABLES = {
    "model": models.MODELS,
    "latent": models.LATENTS,
    "likelihood": models.LIKELIHOODS,
    "trunk": models.TRUNKS,
    "activation": models.ACTIVATIONS,
    "prior": models.PRIORS,
    "guide": guides.GUIDES,
    "elbo": ELBOS,
    "estimator": ESTIMATORS,
    "dataset": DATASETS,
    "binarize": BINARIZE,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "dtype": ("float32", "float64"),
}

CELLS = [(elbo, latent, x) for elbo in ELBOS for latent in models.LATENTS for x in models.LIKELIHOODS]
SHORT = ["--steps", "3", "--eval-samples", "4", "--hidden", "8", "--quiet"]


def test_the_command_line_offers_exactly_what_the_tables_hold():
    assert {kind: tuple(table) for kind, table in TABLES.items()} == CHOICES


def train(*words: str) -> int:
    return cli.main(["train", *SHORT, *words])

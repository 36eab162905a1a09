"""Three short runs and their figures: `run(name, folder) -> dict`. `python tests/support/recorded.py` records them
anew.

They were recorded before the source tree was rearranged, and hold it to the same results. Bits depend on the kernels
that a processor gets, so the file says on which they were recorded; on others the figures agree to rounding.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch

from pathscore.command.cli import main

FILE = Path(__file__).resolve().parents[1] / "runs" / "golden" / "recorded-runs.json"

DEEP = ["--elbo", "tracegraph", "--latent", "bernoulli", "--layers", "12,6", "--estimator", "z1=disarm,z2=rebar"]
VIMCO = ["--elbo", "vimco", "--latent", "categorical", "--layers", "3", "--classes", "4", "--likelihood", "normal"]
CONV = ["--guide", "factorised", "--trunk", "conv", "--hidden", "4,8", "--prior", "learned"]
RUNS = {
    "digits": ["--elbo", "tracegraph", "--estimator", "default", "--epochs", "2"],
    "bernoulli": [*DEEP, "--particles", "3", "--kl-warmup", "1", "--epochs", "2", "--dtype", "float64"],
    "categorical": [
        *(*VIMCO, *CONV, "--particles", "4", "--steps", "40", "--optimizer", "adamw", "--schedule", "cosine"),
        *("--clip", "5", "--dtype", "float64"),
    ],
}
FIGURES = ("test_elbo", "test_elbo_se", "test_log_likelihood", "rate", "distortion", "train_elbo")


def here() -> str:
    """What decides about the bits: processor, its instructions, and the version of torch."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="ascii").split("\n\n")[0].splitlines() if path.exists() else []
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    told = {key.strip(): value.strip() for key, value in told.items()}
    chip = [told.get(key, "") for key in ("model name", "cpu family", "model")]
    return f"{' '.join(chip)}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__.split('+')[0]}"


def run(name: str, folder: Path) -> dict:
    """Train one of `RUNS` and gather its figures, and a digest of everything that training moves."""
    words = [*RUNS[name], "--eval-samples", "50", "--quiet", "--threads", "1", "--out", str(folder / name)]
    assert main(["train", *words]) == 0
    summary = json.loads((folder / name / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    table = json.loads((folder / name / "gradients.json").read_text())["estimators"]
    return {
        "figures": {key: summary[key] for key in FIGURES},
        "counts": {key: summary[key] for key in ("active_units", "parameters", "steps")},
        "gradient_norm": [line["gradient_norm"] for line in lines if "gradient_norm" in line],
        "valid_elbo": [line["valid_elbo"] for line in lines if "valid_elbo" in line],
        "variance": {row["name"].replace(", ", ","): row["total_variance"] for row in table},
        "state": digest(torch.load(folder / name / "checkpoint.pt", weights_only=True)["svi"]),
    }


def digest(state: dict) -> str:
    """A hash of every tensor of a state, by its path."""
    found = hashlib.sha256()

    def walk(value, path):
        if isinstance(value, torch.Tensor):
            found.update(path.encode())
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value):
                walk(value[key], f"{path}/{key}")

    for part in ("modules", "params", "optim"):
        walk(state[part], "")
    return found.hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: run(name, Path(folder)) for name in RUNS}
    FILE.write_text(json.dumps({"recorded on": here(), "runs": runs}, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"written: {FILE}\n")

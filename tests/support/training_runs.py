"""Small runs that the training, checkpoint and crash tests share, and the script that the crash tests kill.

`make(latent, …)` builds everything from a seed; `python training_runs.py DIR …` trains in DIR, prints "saved N" after
every checkpoint, and writes the final weights to DIR/final.pt.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from guides import AmortizedGuide
from models import VAE
from pathscore.elbos import KLWeight, make_elbo
from pathscore.errors import PathscoreError
from pathscore.machine.signals import Interrupted
from pathscore.runs import checkpoint, rundir
from pathscore.runs.training import Loop, Training
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec

ROWS, WIDTH = 50, 12


def data() -> torch.Tensor:
    """Grey values, (50, 12); 50 rows in batches of 8 leave a ragged last batch of 2."""
    return torch.rand(ROWS, WIDTH, generator=torch.Generator().manual_seed(11))


def make(
    latent: str = "normal",
    elbo: str = "trace",
    seed: int = 0,
    estimators: str | None = None,
    particles: int = 1,
    wrap: Callable = lambda elbo: elbo,
    **optim,
) -> SVI:
    """A fresh run of a small model, seeded; `wrap` is applied to the objective."""
    torch.manual_seed(seed)
    sizes = {"data_size": WIDTH, "layers": (4,), "hidden": (8,), "latent": latent, "classes": 3}
    spec = OptimizerSpec(**{"lr": 0.01, "clip_norm": 2.0, "schedule": "cosine", "total_steps": 200, **optim})
    objective = wrap(make_elbo(elbo, estimators, particles))
    return SVI(VAE(**sizes), AmortizedGuide(**sizes), spec, objective, per_datum=True, publish=False)


def training(steps: int, **options) -> Training:
    """`steps` steps on dynamically binarised batches of 8, 7 batches an epoch."""
    return Training(**{"batch_size": 8, "steps": steps, "binarize": "dynamic", "seed": 3, "quiet": True, **options})


def weights(svi: SVI) -> dict[str, torch.Tensor]:
    """Everything that training moves: parameters, buffers and the optimiser's moments."""
    state = svi.state_dict()
    flat = {f"{kind}.{n}": t for kind, module in state["modules"].items() for n, t in module.items()}
    moments = {f"optim.{n}.{k}": torch.as_tensor(v) for n, s in state["optim"]["by_name"].items() for k, v in s.items()}
    return {n: t.detach().clone() for n, t in {**flat, **state["params"], **moments}.items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two runs hold the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


class Announcing(Loop):
    """A loop that says when a checkpoint is safe on the disk."""

    def save(self):
        path = super().save()
        print(f"saved {self.at.step}", flush=True)
        return path


def make_loop(directory: Path, latent: str, steps: int, every: int) -> Announcing:
    """A run in a directory with everything that has state: warm-up, schedule, clipping, validation."""
    plan = training(steps, checkpoint_steps=every)
    loop = Announcing(make(latent), data(), plan, directory, KLWeight(1.0, 30), {"latent": latent})
    loop.x_valid = data()[:20].round()
    return loop


def main() -> None:
    """Train in a directory until done or killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--latent", default="normal")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        with checkpoint.lock(args.directory):
            rundir.sweep(args.directory)
            loop = make_loop(args.directory, args.latent, args.steps, args.every)
            if args.resume:
                loop.resume()
            print("ready", flush=True)
            loop.run()
            torch.save(weights(loop.svi), args.directory / "final.pt")
    except PathscoreError as error:
        sys.exit(f"{error} [{error.exit_code}]")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()

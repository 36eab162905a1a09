"""Write the table of docs/which-estimator.md: `python docs/which_estimator.py`, from the recorded measurements.

`python docs/which_estimator.py record [NAME …]` first takes the measurements anew, docs/measured/which-estimator.json:
on each of twelve programs every candidate at every group of sites is measured, all combinations of them, the best ones
for long; some twenty minutes on one core. `python docs/which_estimator.py pick [NAME …]` runs `recommend` for thirty
seconds on each of them, from another seed, and keeps what it picked.

The rule was fixed on the examples in `TUNED`, before any of the others had been measured.
"""

import importlib
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pathscore import SVI, make_elbo, recommend
from pathscore.gradients.budget import progress_bar
from pathscore.gradients.candidates import grouped, standing, words_for
from pathscore.gradients.filling import by_site
from pathscore.gradients.lab import Lab
from pathscore.gradients.racing import Block, compared
from pathscore.gradients.recommend import Live
from pathscore.gradients.table import number

HERE = Path(__file__).resolve().parent
MEASURED, PAGE = HERE / "measured" / "which-estimator.json", HERE / "which-estimator.md"
START, END = "<!-- table -->\n", "\n<!-- end -->"

TUNED = ("ssvae", "vae", "zinb")
SECONDS, STEPS, BATCH = 30, 300, 64
FIRST, NEXT, LONG = 8, 24, 100
"""Blocks of every combination; further ones of those within `NEAR`; and those that say which is best."""
NEAR, NEAREST = 3.0, 1.6
LEARNING = 1.0
"""Seconds in which what a combination learns is trained, 200 steps at most."""
FRESH = 100_000
"""Number of the first block of the long measurement: draws that no race has seen."""


def example(name: str) -> tuple[Any, Any, tuple]:
    """A program of examples/."""
    return importlib.import_module(f"examples.{name}").build(0)


def vae(**choices: Any) -> tuple[Any, Any, tuple]:
    """The deep latent variable model on digits, a batch of 64."""
    from guides import AmortizedGuide
    from models import VAE
    from pathscore.data import load_dataset

    torch.manual_seed(0)
    x = (load_dataset("digits").x[:BATCH] > 0.5).float()
    return VAE(64, **choices), AmortizedGuide(64, **choices), (x,)


def bandit() -> tuple[Any, Any, tuple]:
    """A softmax policy for a hundred bandits of ten arms."""
    from guides.policy import BanditPolicy
    from models.bandit import Bandit

    torch.manual_seed(0)
    program = Bandit(4 + torch.randn(100, 10), temperature=0.1)
    return program, BanditPolicy(program), ()


def logistic() -> tuple[Any, Any, tuple]:
    """Bayesian logistic regression on breast cancer, a batch of 64."""
    from guides import COVARIANCES
    from models.logistic import LogisticRegression
    from pathscore.data import load_dataset

    data = load_dataset("breast-cancer")
    assert data.labels is not None
    x = data.x[:BATCH]
    return LogisticRegression(len(data.x)), COVARIANCES["diagonal"]("w", x.shape[1] + 1), (x, data.labels[:BATCH])


def poisson() -> tuple[Any, Any, tuple]:
    """Two Poisson counts behind five measurements of each of thirty rows."""
    torch.manual_seed(0)
    counts = torch.poisson(2 * torch.ones(30, 2))
    x = counts @ torch.randn(2, 5) + 0.3 * torch.randn(30, 5)
    decoder, encoder = nn.Linear(2, 5), nn.Linear(5, 2)

    def model(x: torch.Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(2 * torch.ones(2)).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(nn.functional.softplus(encoder(x)) + 0.05).to_event(1))

    return model, guide, (x,)


PARTICLES = {"bandit": 4, "sequence": 4, "poisson": 2}
"""K of a step; 1 for the others."""


def gamma() -> tuple[Any, Any, tuple]:
    """Two Gamma variables behind five measurements of each of thirty rows."""
    torch.manual_seed(0)
    scales = torch.distributions.Gamma(2 * torch.ones(30, 2), 1.0).sample()
    x = scales @ torch.randn(2, 5) + 0.3 * torch.randn(30, 5)
    decoder, encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(x: torch.Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2 * torch.ones(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        pyro.module("encoder", encoder)
        shape, rate = (nn.functional.softplus(encoder(x)) + 0.1).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(shape, rate).to_event(1))

    return model, guide, (x,)


PROGRAMS: dict[str, tuple[str, Callable[[], tuple[Any, Any, tuple]]]] = {
    "coin": ("a Beta, `examples/coin.py`", lambda: example("coin")),
    "logistic": ("31 Normal weights, `--model logistic`", logistic),
    "sequence": ("four Normal states of a chain, `examples/dmm.py`", lambda: example("dmm")),
    "poisson": ("two Poisson counts, `docs/which_estimator.py`", poisson),
    "gamma": ("two Gammas, `docs/which_estimator.py`", gamma),
    "bandit": ("100 actions of ten arms, `--model bandit`", bandit),
    "categorical": (
        "8 categoricals of five classes, `--model vae`",
        lambda: vae(latent="categorical", layers=(8,), classes=5),
    ),
    "digits": ("16 Normals, `--model vae`", lambda: vae(latent="normal", layers=(16,))),
    "fifty bits": ("50 bits, `--model vae`", lambda: vae(latent="bernoulli", layers=(50,))),
    "two layers": ("12 and 6 bits, `--model vae`", lambda: vae(latent="bernoulli", layers=(12, 6))),
    "mixture": ("Normal and assignments, `examples/gmm_assignments.py`", lambda: example("gmm_assignments")),
    "objects": ("bits and Normals in turn, `examples/air_lite.py`", lambda: example("air_lite")),
}


def trained(name: str) -> tuple[SVI, tuple]:
    """A program after 300 steps with `auto`."""
    model, guide, args = PROGRAMS[name][1]()
    torch.manual_seed(0)
    elbo = make_elbo("trace", "auto", PARTICLES.get(name, 1), max_plate_nesting=2)
    svi = SVI(model, guide, "adam(lr=0.01)", elbo)
    for _ in range(STEPS):
        svi.step(*args)
    return svi, args


def record(name: str) -> dict[str, Any]:
    """What long measurements of all combinations say of a program."""
    svi, args = trained(name)
    with svi.scope():
        bench, lab = live(name, svi, args)
        groups = grouped(lab.pair.latents)
        words = [words_for(lab, group, False) for group in groups]
        auto = {site: word for site, (word, _) in standing(lab, "auto").items()}
        specs = {by_site(auto): auto}
        for combination in itertools.product(*words):
            pairs = zip(groups, combination, strict=True)
            spec = {site: word for group, word in pairs for site in group.names}
            specs.setdefault(by_site({site: spec[site] for site in auto}), spec)
        usable = bench.usable(specs, bench.clock() + LEARNING * len(specs) / 0.3)
        blocks = measured(bench, usable, FIRST, 0)
        near = within(blocks, usable, NEAR) | {by_site(auto)}
        for label, more in measured(bench, {n: usable[n] for n in near}, NEXT, FIRST).items():
            blocks[label] += more
        last = within(blocks, usable, NEAREST) | {by_site(auto)}
        truth = measured(bench, {n: usable[n] for n in last}, LONG, FRESH)
    return {
        "groups": [{"names": g.names, "family": g.family, "plates": g.plates} for g in groups],
        "words": words,
        "particles": lab.particles,
        "auto": auto,
        "specs": usable,
        "blocks": {
            n: [[*(short(s) for s in b.squares), short(b.milliseconds)] for b in bs] for n, bs in blocks.items()
        },
        "truth": judged(truth),
    }


def picked(name: str, known: dict[str, Any]) -> dict[str, Any]:
    """What `recommend` says of a program. known: what was recorded; a pick that was not among the best is added."""
    svi, args = trained(name)
    found = recommend(svi, *args, seconds=SECONDS, seed=1, progress=False)
    pick, best = by_site(found.spec), next(iter(known["truth"]))
    truth = dict(known["truth"])
    if pick not in truth:
        with svi.scope():
            bench, _ = live(name, svi, args)
            specs = bench.usable({best: known["specs"][best], pick: found.spec}, bench.clock() + 20)
            truth[pick] = judged(measured(bench, specs, LONG, FRESH))[pick]
    gain = [short(v) for v in (found.gain.value, found.gain.low, found.gain.high)]
    kept = {"picked": pick, "gain": gain, "separated": found.separated, "seconds": round(found.seconds, 1)}
    return {**known, **kept, "truth": truth}


def live(name: str, svi: SVI, args: tuple) -> tuple[Live, Lab]:
    """Where steps of a program are taken, from a seed that no race has."""
    lab = Lab(svi.model, svi.guide, args, particles=PARTICLES.get(name, 1), of="all")
    return Live(lab, 2, False, progress_bar(1, False), {}), lab


def measured(bench: Live, specs: dict, count: int, start: int) -> dict[str, list[Block]]:
    """Blocks of each spec, one after the other in each round, so that the machine's moods fall on all alike."""
    found: dict[str, list[Block]] = {name: [] for name in specs}
    for at in range(count):
        for name, spec in specs.items():
            found[name].append(bench.block(spec, start + at))
    return found


def within(blocks: dict[str, list[Block]], specs: dict, factor: float) -> set[str]:
    """The specs whose score is within a factor of the least."""
    scores = {name: score(blocks[name]) for name in specs}
    return {name for name, value in scores.items() if value <= factor * min(scores.values())}


def score(blocks: list[Block]) -> float:
    """Mean variance × median time."""
    times = sorted(b.milliseconds for b in blocks)
    return sum(b.variance for b in blocks) / len(blocks) * times[len(times) // 2]


def judged(truth: dict[str, list[Block]]) -> dict[str, list[float]]:
    """Score over that of the best, with a 95 % interval, and variance and milliseconds, by label, best first.

    Steps of one round are compared with each other: the machine is slower at some times than at others.
    """
    one = next(iter(truth))
    order = sorted(truth, key=lambda name: compared(truth[name], truth[one], 0.05).value)
    ratios = {name: compared(truth[name], truth[order[0]], 0.05) for name in order}
    means = {name: sum(b.variance for b in truth[name]) / LONG for name in order}
    times = {name: sorted(b.milliseconds for b in truth[name])[LONG // 2] for name in order}
    return {n: [short(v) for v in (r.value, r.low, r.high, means[n], times[n])] for n, r in ratios.items()}


def kept_numbers(block: Block) -> list[float]:
    """A block as it is kept: its squares, then its milliseconds."""
    return [short(value) for value in (*block.squares, block.milliseconds)]


def short(value: float) -> float:
    """Four digits."""
    return float(f"{value:.3e}")


def rows(kept: dict[str, Any]) -> list[str]:
    """The table's lines in Markdown."""
    lines = [
        "| program | latent sites | `auto` | picked | its variance × time / the best's | the best | `auto`'s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in kept.items():
        truth, auto = found["truth"], by_site(found["auto"])
        cells = [PROGRAMS[name][0], f"`{auto}`", f"`{found['picked']}`", shown(truth[found["picked"]])]
        lines.append(f"| {name} | {' | '.join([*cells, f'`{next(iter(truth))}`', shown(truth[auto])])} |")
    return lines


def shown(ratio: list[float]) -> str:
    """A ratio with its interval."""
    value, low, high, *_ = ratio
    return "1" if value == 1 else f"{number(value)} ({number(low)} to {number(high)})"


def hits(kept: dict[str, Any], factor: float = 1.2) -> int:
    """Programs on which the pick is within a factor of the best."""
    return sum(found["truth"][found["picked"]][0] <= factor for found in kept.values())


def page() -> str:
    """The page with the table of the recorded measurements."""
    kept = json.loads(MEASURED.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    said = f"Within 1.2 times the best on {hits(kept)} of {len(kept)} programs."
    return f"{before}{START}" + "\n".join([*rows(kept), "", said]) + f"{END}{rest.partition(END)[2]}"


WORK: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "record": lambda name, known: record(name),
    "pick": lambda name, known: picked(name, known[name]),
}


def main(words: list[str]) -> None:
    """Record or pick if asked to, then write the page."""
    if words[:1]:
        warnings.simplefilter("ignore")
        kept = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
        for name in words[1:] or PROGRAMS:
            start = time.time()
            kept[name] = WORK[words[0]](name, kept)
            ordered = {n: kept[n] for n in PROGRAMS if n in kept}
            MEASURED.write_text(json.dumps(ordered, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
            print(name, f"{time.time() - start:.0f} s", kept[name].get("picked"), kept[name]["truth"], flush=True)
    if all("picked" in found for found in json.loads(MEASURED.read_text(encoding="utf-8")).values()):
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

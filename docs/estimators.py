"""Write docs/estimators.md: `python docs/estimators.py`, from the classes' attributes and the measurements beside it.

`python docs/estimators.py --measure` first takes the measurements anew (docs/measured/NAME.json), each with the command
that stands above its table; about ten minutes on one core.
"""

import inspect
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyro.distributions as dist
import torch

from pathscore.command.cli import main as pathscore
from pathscore.estimators import ESTIMATORS, Estimator
from pathscore.gradients.table import number

HERE = Path(__file__).resolve().parent
MEASURED, PAGE, GUIDE = HERE / "measured", HERE / "estimators.md", HERE / "estimators.md.in"

DISCRETE = "score,score-avg,nvil,rloo,arm,disarm,rebar,relax,muprop,gumbel,st,st-gumbel,reinmax"
COUPLED = ("", *(f"(draws={name})" for name in ("stratified", "antithetic", "sobol")))
RUNS = {
    "normal": "train --out runs/normal --quiet",
    "bernoulli": "train --latent bernoulli --estimator disarm --out runs/bernoulli --quiet",
    "two": "train --latent bernoulli --layers 16,8 --estimator disarm --out runs/two --quiet",
}
TABLES = {
    "toy-bernoulli": ("Six Bernoulli variables", "gradients --latent bernoulli --size 6"),
    "toy-categorical": ("Four categorical variables of three classes", "gradients --latent categorical --size 4"),
    "toy-hundred": (
        "One categorical variable of a hundred classes",
        'gradients --latent categorical --size 1 --classes 100 --replicates 20000 --estimators "rloo;disarm;'
        'unordered(k=2);unordered;unordered(k=8);sum-and-sample(k=2);sum-and-sample;enum"',
    ),
    "toy-normal": ("Six normal variables", "gradients --latent normal --size 6"),
    "toy-gamma": ("Two gamma variables", "gradients --latent gamma --size 2"),
    "toy-poisson": ("Two Poisson variables", "gradients --latent poisson --size 2"),
    "toy-square": (
        "E[(b − p₀)²], b one bit, p₀ = .499",
        "gradients --cost square --target 0.499 --replicates 100000 --warmup 2000",
    ),
    "digits-normal": ("Trained on digits, 16 normal latents", "gradients runs/normal"),
    "digits-coupled": (
        "The same with sixteen coupled particles",
        "gradients runs/normal --particles 16 --estimators "
        + '"'
        + ";".join(f"{e}{d}" for e in ("pathwise", "stl") for d in COUPLED)
        + '"',
    ),
    "digits-bernoulli": (
        "Trained on digits, 16 Bernoulli latents",
        f"gradients runs/bernoulli --warmup 1000 --estimators {DISCRETE},local,measure-valued",
    ),
    "two-plate": (
        "Two layers, 16 and 8 bits, Rao–Blackwellised by plate",
        "gradients runs/two --elbo trace --estimators score,score-avg,rloo,disarm,rebar",
    ),
    "two-graph": (
        "The same, Rao–Blackwellised by dependency",
        "gradients runs/two --elbo tracegraph --estimators score,score-avg,rloo,disarm,rebar",
    ),
}
SITES = {
    "bernoulli": lambda n: dist.Bernoulli(logits=torch.zeros(n)).to_event(1),
    "normal": lambda n: dist.Normal(torch.zeros(n), 1.0).to_event(1),
}
ONE_VARIABLE = {"categorical": lambda n: dist.Categorical(logits=torch.zeros(9 + n))}
COLUMNS = {
    "max abs z": "max_abs_z",
    "p": "hotelling_p",
    "variance": "total_variance",
    "× best": "relative_variance",
    "SNR": "snr",
    "cosine": "cosine",
    "evals": "evaluations",
    "ms": "milliseconds",
    "var × time": "relative_cost",
}


def measure() -> None:
    """Take every measurement anew, in a folder of its own."""
    MEASURED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for words in RUNS.values():
            run(words.replace("runs/", f"{folder}/"))
        for name, (_, words) in TABLES.items():
            run(words.replace("runs/", f"{folder}/") + f" --json {MEASURED / name}.json --picture {folder}/{name}.png")


def run(words: str) -> None:
    """One command of Pathscore; a refusal ends the measuring."""
    if code := pathscore(shlex.split(words)):
        raise SystemExit(code)


def page() -> str:
    """The whole page."""
    guide = GUIDE.read_text(encoding="utf-8")
    parts = [fill(guide), "## All estimators\n", overview(), *(entry(cls) for cls in ESTIMATORS.values())]
    return "\n".join([*parts, "## Measured\n", *(measured(name) for name in TABLES)])


def fill(text: str) -> str:
    """The guide with `{table:estimator:field}` replaced by the measured number."""
    for name in TABLES:
        for row in rows(name):
            for field, value in row.items():
                if isinstance(value, int | float):
                    text = text.replace(f"{{{name}:{row['name']}:{field}}}", number(value))
    return text


def rows(name: str) -> list[dict]:
    """The measured rows of a table."""
    return json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))["estimators"]


def overview() -> str:
    """One line per estimator, from the class attributes."""
    head = "| name | families | K | unbiased | model's derivative | evaluations a particle | reference |\n" + "|---" * 7
    return "\n".join([head + "|", *(f"| {' | '.join(facts(cls))} |" for cls in ESTIMATORS.values()), ""])


def facts(cls: type[Estimator]) -> tuple[str, ...]:
    """The cells of an estimator's line."""
    return (
        f"[`{cls.name}`](#{cls.name})",
        ", ".join(cls.families) if cls.families else families_of(cls),
        f"≥ {cls.min_particles}",
        "yes" if cls.unbiased else "**no**",
        "needed" if cls.differentiable_cost else "—",
        evaluations(cls),
        cls.reference,
    )


def families_of(cls: type[Estimator]) -> str:
    """In words, for classes that take more than a list of families."""
    return "reparameterised" if cls.pathwise else "any"


def evaluations(cls: type[Estimator]) -> str:
    """1 + R as a formula in D, for each kind of site where they differ."""
    if cls.name == "auto":
        return "those of its choice"
    served = {k: make for k, make in SITES.items() if cls.families is None or k in cls.families} or ONE_VARIABLE
    formulas = {k: growth(cls, make) for k, make in served.items()}
    if len(set(formulas.values())) == 1:
        return next(iter(formulas.values()))
    return ", ".join(f"{formula} ({kind})" for kind, formula in formulas.items())


def growth(cls: type[Estimator], make: Callable) -> str:
    """1 + R in D, read off sites of one to four variables."""
    counts = [1 + cls().rows(make(n)) for n in (1, 2, 3, 4)]
    step = counts[1] - counts[0]
    if step == 0:
        return str(counts[0])
    if counts == [1 + step * n for n in (1, 2, 3, 4)]:
        return f"1 + {f'{step} ' if step > 1 else ''}D"
    assert counts == [1 + 2**n for n in (1, 2, 3, 4)], counts
    return "1 + values of the site"


def entry(cls: type[Estimator]) -> str:
    """An estimator's formula, description and options, from its class."""
    text = inspect.cleandoc(cls.__doc__ or "")
    body, _, references = text.partition("References:")
    signature = inspect.signature(cls.__init__).parameters.values()
    options = [f"`{p.name}={p.default}`" for p in signature if p.default is not p.empty]
    lines = [f"### {cls.name}\n", f"`{cls.formula}`{'' if cls.unbiased else ' — **biased**'}\n", body.strip() + "\n"]
    lines += [f"Options: {', '.join(options)}.\n"] if options else []
    lines += [f"References: {' '.join(references.split())}\n"] if references else []
    return "\n".join(lines)


def measured(name: str) -> str:
    """A measured table, its command above it."""
    title, words = TABLES[name]
    found = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    before = [f"pathscore {line}" for line in RUNS.values() if f"runs/{line.split('runs/')[1].split()[0]}" in words]
    commands = "\n".join([*before, f"pathscore {words}"])
    head = f"| estimator | {' | '.join(COLUMNS)} |\n" + "|---" * (len(COLUMNS) + 1) + "|"
    lines = [
        f"| `{row['name']}`{'' if row['unbiased'] else ' (biased)'} | "
        + " | ".join(cell(row, field) for field in COLUMNS.values())
        + " |"
        for row in found["estimators"]
    ]
    what = f"{found['replicates']:,} gradients each, reference: {found['reference']}."
    return "\n".join([f"### {title}\n", f"```bash\n{commands}\n```\n", head, *lines, "", f"{what}\n"])


def cell(row: dict, field: str) -> str:
    """A number of the table; an infinite signal-to-noise ratio is stored as null."""
    return "∞" if field == "snr" and row[field] is None else number(row[field])


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        measure()
    PAGE.write_text(page(), encoding="utf-8")

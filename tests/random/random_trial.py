"""Objectives and estimators of random programs against exact sums: `trial(seed) -> Outcome`, or from the command line

    PYTHONPATH=tests/support python tests/random/random_trial.py --seed 123 --show
    PYTHONPATH=tests/support python tests/random/random_trial.py --seed 1 --count 1000 --out runs.jsonl

The first runs one program and prints its source, the second runs many, and continues where it was stopped.

A program's gradient is drawn N times: as N copies on a plate, or, where the program runs bare, in N steps.

The rule: a coordinate of the gradient, or the loss, whose |z| is above FIRST is drawn anew with four times as many
replicates, and is wrong where its |z| is then above SECOND with the same sign.  A right coordinate of normal noise is
called wrong with probability 2e-11.  For heavier tails, see docs/random_programs.md.  A bias of 5.5 standard errors,
0.086 standard deviations of one gradient at N = 4096 and 0.49 at N = 128, is found with probability above 0.93.
"""

import argparse
import fnmatch
import itertools
import json
import math
import random
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyro
import torch
from random_program import Program, Site, draw_program
from random_reference import Reference
from random_source import run, source
from scipy.stats import norm, t
from torch import Tensor

from pathscore.elbos import ELBOS, make_elbo
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS
from pathscore.programs.traces import sample_sites, traces

FIRST, SECOND = 4.0, 5.0
COPIES, CALLS, STEPS = 256, 16, 128
"""Copies on a plate and calls of a program that has them; steps of a bare one."""
MAX_ROWS, MAX_PASSES = 64, 6
"""Most rows of a step in one pass, and pass by pass: the time of a trial has a bound."""
FLOOR = 2e-6
"""Standard error below which the error of the quadrature decides."""


@dataclass(frozen=True)
class Choice:
    """An objective with its estimators, and the quantity that it estimates."""

    objective: str
    estimators: dict | str | None
    particles: int
    options: dict

    def __str__(self) -> str:
        named = "" if self.estimators is None else f", {self.estimators}"
        options = "".join(f", {k}={v}" for k, v in self.options.items())
        return f"make_elbo({self.objective!r}{named}, num_particles={self.particles}{options})"


@dataclass(frozen=True)
class Finding:
    """What one choice gave on one program: "right", "wrong", "refused" or "crashed"."""

    seed: int
    choice: str
    verdict: str
    comparisons: int = 0
    max_z: float = 0.0
    text: str = ""


# Parameters and data


def leaves(program: Program) -> dict[str, Tensor]:
    """Parameters of one copy, (loop, *plate dimensions, *event) each."""
    made, noise = {}, torch.Generator().manual_seed(program.seed)
    for key, site, law in program.parameters():
        shape = _shape(program, site) + (2,) * bool(site.width) + (law.tail,) * (bool(law.tail) and key.endswith("s"))
        made[key] = 1.6 * torch.rand(shape, generator=noise, dtype=torch.float64) - 0.8
    return made


def _shape(program: Program, site: Site) -> tuple[int, ...]:
    sizes = {f.dim: f.members for f in site.plates}
    loop = tuple(f.members for f in site.frames if f.looped)
    return (*loop, *(sizes.get(dim, 1) for dim in range(-program.depth, 0)))


def copied(program: Program, single: dict[str, Tensor], copies: int) -> dict[str, Tensor]:
    """Parameters of all copies (loop, copies, *plate dimensions, *event), or of a bare program in the shapes it has."""
    made = {}
    for key, site, _ in program.parameters():
        value, loops = single[key], sum(f.looped for f in site.frames)
        if program.bare:
            value = value.reshape(_trimmed(program, site, value.shape))
        else:
            value = value.unsqueeze(loops).expand(*value.shape[:loops], copies, *value.shape[loops:])
        made[key] = value.clone()
    return made


def _trimmed(program: Program, site: Site, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the dimensions outside a site's outermost plate."""
    loops = sum(f.looped for f in site.frames)
    outside = program.depth - max((-f.dim for f in site.plates), default=0)
    return tuple(shape[:loops]) + tuple(shape[loops + outside :])


def observed(program: Program) -> dict[str, Tensor]:
    """Observed values (loop, *plate dimensions)."""
    made = {}
    for site in program.model:
        if site.data:
            value = torch.zeros(_shape(program, site), dtype=torch.tensor(site.data).dtype)
            for place, chosen in enumerate(itertools.product(*(range(f.members) for f in site.frames))):
                at = {f.dim: i for f, i in zip(site.frames, chosen, strict=True) if not f.looped}
                loop = [i for f, i in zip(site.frames, chosen, strict=True) if f.looped]
                value[(*loop, *(at.get(dim, 0) for dim in range(-program.depth, 0)))] = site.data[place]
            made[site.name] = value.reshape(_trimmed(program, site, value.shape)) if program.bare else value
    return made


# Choices


def choices(bench: "Bench", rng: random.Random) -> Iterator[Choice]:
    """Objectives with random estimators for each site, particles 1–4, without end."""
    program, reference = bench.program, Reference(bench.program, bench.single)
    rescaled = any(s.observed and s.scale != 1 for s in program.model)  # refused by all importance weights
    names = [name for name in OBJECTIVES if not (rescaled and name in WEIGHTED)]
    names = [name for name in names if name != "rws" or _one_datum(program)]
    while True:
        name = rng.choice(names)
        least = 2 if name in ("vimco", "ovis", "wake-sleep", "renyi", "rws") else 1
        most = reference.most_particles(name in ("renyi", "rws")) if name in WEIGHTED else 4
        if most < least or (name in WITHOUT_STRAIGHT and _straight(program)):
            continue
        if name == "enum" and not _enumerable(program):
            continue
        particles = rng.randint(least, most)
        options = {"alpha": rng.choice([-1.0, 0.5])} if name == "vr" else {}
        spec = None if name in STOCK or _pyros_own(program, name, rng) else _estimators(program, rng)
        if spec and name in ("trace", "tracegraph") and rng.random() < 0.2:
            options = {"kl": "auto"}
        yield Choice(name, spec, particles, options)


def _enumerable(program: Program) -> bool:
    """Whether Pyro can enumerate: in one pass, and with the dimensions that it has for plates in a loop."""
    reads = [r.how for s in (*program.model, *program.guide) for r in s.all_reads]
    return not {"branch", "mixed"} & set(reads) and not any(f.kind == "sequential" for f in program.frames)


def _pyros_own(program: Program, name: str, rng: random.Random) -> bool:
    """Whether to take Pyro's own gradient of the ELBO, where it is right.

    It is biased at straight-through laws; where a later draw couples the members of a plate (coupled); and, credited by
    dependency, where a value is read as a Python number.
    """
    if name not in ("trace", "tracegraph") or rng.random() < 0.6:
        return False
    numbers = any(r.how == "branch" for s in (*program.model, *program.guide) for r in s.all_reads)
    return not (_straight(program) or coupled(program) or (numbers and name == "tracegraph"))


def coupled(program: Program) -> bool:
    """Whether the guide draws a site outside a plate given the members of an earlier one inside it."""
    above: dict[str, set[str]] = {}
    plates = {s.name: {f for f in s.frames if not f.looped} for s in program.guide}
    for site in program.guide:
        read = {r.site for r in site.guide_reads}
        above[site.name] = read.union(*(above.get(name, set()) for name in read))
        if any(plates[name] - plates[site.name] for name in above[site.name]):
            return True
    return False


def _straight(program: Program) -> bool:
    return any("-st" in s.guide for s in program.guide)


def _one_datum(program: Program) -> bool:
    """Whether Pyro's reweighted wake-sleep takes the program for one data point, with a density at every site."""
    plates = [f for f in program.frames if not f.looped]
    return program.bare and all(f.full == 1 for f in plates) and all(s.guide != "point" for s in program.guide)


STOCK = ("meanfield", "enum", "renyi", "wake-sleep", "rws")
"""Objectives that take no estimators."""
WITHOUT_STRAIGHT = ("meanfield", "enum", "renyi", "rws")
"""Pyro's own, which warn that a straight-through law is biased there."""
WEIGHTED = ("iwae", "vimco", "ovis", "dreg", "vr", "renyi", "wake-sleep", "rws")
OBJECTIVES: dict[str, Callable[[Reference, Choice], tuple[Tensor, Tensor]]] = {
    **dict.fromkeys(("trace", "tracegraph", "meanfield", "enum"), lambda r, c: (r.elbo(),) * 2),
    **dict.fromkeys(("iwae", "vimco", "ovis", "dreg"), lambda r, c: (r.bound(c.particles),) * 2),
    "vr": lambda r, c: (r.bound(c.particles, c.options["alpha"]),) * 2,
    "renyi": lambda r, c: (r.bound(c.particles, whole=True),) * 2,
    "wake-sleep": lambda r, c: (r.bound(c.particles), r.wake(c.particles)),
    "rws": lambda r, c: (r.bound(c.particles, whole=True), r.wake(c.particles, whole=True)),
}
"""Objective → the exact value, and the quantity whose gradient it follows."""
NAMES = [name for name, cls in ESTIMATORS.items() if cls.unbiased and not cls.perturbs_rows]  # there are no layers


def _estimators(program: Program, rng: random.Random) -> dict[str, str]:
    """A random unbiased estimator for each site, which the site or the objective may refuse."""
    spec = {"*": "auto"}
    for site in program.guide:
        if site.random:
            spec[_name(site)] = rng.choice(NAMES)
    return spec


def _name(site: Site) -> str:
    return site.name + ("_*" if any(f.looped for f in site.frames) else "_u" * (site.law("guide").how == "auto"))


# The comparison


@contextmanager
def quiet() -> Iterator[None]:
    """Double precision and no warnings."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


class Bench:
    """A program with its parameters, ready to be run under any objective."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.single = leaves(program)
        self.copies = 1 if program.bare else COPIES
        pyro.clear_param_store()
        for key, value in copied(program, self.single, COPIES).items():
            pyro.param(key, value)
        self.p = {key: pyro.param(key).unconstrained() for key in self.single}
        self.pair = run(program, observed(program), COPIES)

    def exact(self, choice: Choice) -> tuple[float, Tensor]:
        """The exact loss and gradient of one copy."""
        p = {key: value.clone().requires_grad_() for key, value in self.single.items()}
        value, followed = OBJECTIVES[choice.objective](Reference(self.program, p), choice)
        if not followed.requires_grad:
            return -value.item(), torch.cat([torch.zeros(v.numel()) for v in p.values()])
        grads = torch.autograd.grad(-followed, list(p.values()), allow_unused=True)
        grads = [torch.zeros_like(v) if g is None else g for v, g in zip(p.values(), grads, strict=True)]
        return -value.item(), torch.cat([g.flatten() for g in grads])

    def elbo(self, choice: Choice):
        """The objective; estimators that their site or the objective refuses are replaced by "auto", one by one."""
        spec = choice.estimators
        elbo = make_elbo(
            choice.objective,
            dict(spec) if isinstance(spec, dict) else spec,
            num_particles=choice.particles,
            max_plate_nesting=self.program.depth + (not self.program.bare),
            **choice.options,
        )
        plan = elbo.prepare(*self.pair)
        if plan is not None and plan.rows > (MAX_PASSES if plan.obstacle else MAX_ROWS):
            raise UsageError(f"{plan.rows} rows in a step, more than a trial takes")
        sites = [s for trace in traces(*self.pair, (), {}) for s in sample_sites(trace).values()]
        if why := ELBOS[choice.objective].program_refusal(sites):  # as SVI asks at its first step
            raise UsageError(why)
        return elbo

    def gradients(self, elbo, times: int) -> tuple[Tensor, Tensor]:
        """Losses of a call, for one copy, and gradients of each copy in each call: (calls,), (N, P)."""
        calls = times * (STEPS if self.program.bare else CALLS)
        losses, found = [], []
        for _ in range(calls):
            for leaf in self.p.values():
                leaf.grad = None
            loss = elbo.loss_and_grads(*self.pair)  # Pyro's rws has one loss for the model, and one for the guide
            losses.append(float(loss[0] if isinstance(loss, tuple) else loss) / self.copies)
            found.append(self._gradient())
        return torch.tensor(losses), torch.cat(found)

    def _gradient(self) -> Tensor:
        parts = []
        for key, site, _ in self.program.parameters():
            leaf, loops = self.p[key], sum(f.looped for f in site.frames)
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            parts.append(grad.reshape(1, -1) if self.program.bare else grad.movedim(loops, 0).reshape(COPIES, -1))
        return torch.cat(parts, 1)


def scores(found: Tensor, exact: Tensor) -> Tensor:
    """z of the mean of (n, …) against the exact value; Student's law counts for few values."""
    n = len(found)
    error = found.mean(0) - exact
    z = error / (found.std(0) / math.sqrt(n)).clamp(min=FLOOR * (1 + exact.abs()))
    if n > 100:
        return z
    tail = torch.as_tensor(norm.isf(t.sf(z.abs().numpy(), n - 1).clip(1e-300)))
    return tail.copysign(z)


def compare(bench: Bench, choice: Choice) -> Finding:
    """One choice on one program."""
    seed, text = bench.program.seed, str(choice)
    try:
        elbo = bench.elbo(choice)
        loss, gradient = bench.exact(choice)
        exact = torch.cat([torch.tensor([loss]), gradient])
        z = both(bench.gradients(elbo, 1), exact)
        again = both(bench.gradients(elbo, 4), exact) if z.abs().max() > FIRST or z.isnan().any() else torch.zeros(())
    except UsageError as error:
        return Finding(seed, text, "refused", text=str(error))
    except Exception as error:
        if "Enumeration dim conflict" in str(error):  # Pyro's own refusal
            return Finding(seed, text, "refused", text="Enumeration dim conflict")
        return Finding(seed, text, "crashed", text=f"{type(error).__name__}: {error}"[:2000])
    wrong = ((z.abs() > FIRST) & (again.abs() > SECOND) & (z.sign() == again.sign())) | z.isnan()
    worst = (
        again[z.abs() > FIRST].abs().max().item() if again.ndim and (z.abs() > FIRST).any() else z.abs().max().item()
    )
    where = [_label(bench, i) for i in wrong.nonzero().flatten().tolist()]
    return Finding(seed, text, "wrong" if where else "right", len(z), worst, ", ".join(where))


def both(found: tuple[Tensor, Tensor], exact: Tensor) -> Tensor:
    return torch.cat([scores(found[0], exact[0])[None], scores(found[1], exact[1:])])


def _label(bench: Bench, i: int) -> str:
    names = [f"{key}[{j}]" for key, value in bench.single.items() for j in range(value.numel())]
    return "loss" if i == 0 else names[i - 1]


def trial(seed: int, count: int = 3) -> list[Finding]:
    """The findings of random choices on the program of a seed, of which `count` are not refused. The seed fixes all."""
    with quiet():
        pyro.set_rng_seed(seed)
        bench, findings = Bench(draw_program(seed)), []
        for choice in itertools.islice(choices(bench, random.Random(seed + 1)), 4 * count):
            findings.append(legal_choice(bench, choice))
            if sum(f.verdict != "refused" for f in findings) == count:
                break
        return findings


def legal_choice(bench: Bench, choice: Choice) -> Finding:
    """The choice, with "auto" in place of estimators that are refused; refused only where "auto" is, too."""
    finding = compare(bench, choice)
    while finding.verdict == "refused" and isinstance(choice.estimators, dict) and len(choice.estimators) > 1:
        choice = replace(choice, estimators=_without_refused(choice.estimators, finding.text))
        finding = compare(bench, choice)
    return finding


def _without_refused(spec: dict[str, str], text: str) -> dict[str, str]:
    """The named estimators without that of the site that a refusal names, or without the last one."""
    named = [name for name in spec if name != "*"]
    site = re.search(r"site '([^']+)'", text)
    refused = [name for name in named if site and fnmatch.fnmatchcase(site[1], name)] or named[-1:]
    return {name: estimator for name, estimator in spec.items() if name not in refused}


def report(finding: Finding) -> str:
    """A line, and for what is not right how to see it again."""
    figures = f"{finding.comparisons} comparisons, |z| ≤ {finding.max_z:.1f}"
    return f"{finding.seed} {finding.choice}: {finding.verdict}, {figures} {finding.text}".rstrip()


def main(words: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Random programs against exact sums.")
    parser.add_argument("--seed", type=int, help="the one program to run, or the first of --count")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--choices", type=int, default=3, help="of objective and estimators, for each program")
    parser.add_argument("--show", action="store_true", help="print the source of every program")
    parser.add_argument("--out", type=Path, help="findings, one JSON object per line; its seeds are not run again")
    options = parser.parse_args(words)
    first = secrets.randbelow(10**6) if options.seed is None else options.seed
    done = {json.loads(line)["seed"] for line in options.out.open()} if options.out and options.out.exists() else set()
    bad = 0
    for seed in range(first, first + options.count):
        if seed in done:
            continue
        start, findings = time.time(), trial(seed, options.choices)
        bad += sum(f.verdict in ("wrong", "crashed") for f in findings)
        if options.show:
            print(source(draw_program(seed)))
        print(*map(report, findings), f"  ({time.time() - start:.1f} s)", sep="\n", flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.writelines(json.dumps(asdict(f)) + "\n" for f in findings)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

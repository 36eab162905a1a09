"""Random programs as data: `draw_program(seed) -> Program`, small enough that every joint state can be visited.

A program is a list of frames (plates and loops) and of sites in them.  Guide and model visit the latent sites in orders
of their own, and each site's parameter moves with what was drawn before it.  `random_source` writes a program as Pyro
code, `random_reference` sums it out.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from random_laws import GUIDES, KINDS, OBSERVED, PRIORS, Law

MAX_STATES = 6_000
"""Most joint states of a whole program."""


@dataclass(frozen=True)
class Frame:
    """A plate or a loop. kind: "plate", "sequential" (`for i in pyro.plate`) or "range" (a Python loop).

    size: members in a run; full: members of the whole plate, more than `size` where it is subsampled; redrawn: whether
    each run draws its members; dim: of a vectorised plate; inside: the vectorised plate around it.
    """

    name: str
    size: int
    kind: str = "plate"
    dim: int = 0
    full: int = 0
    redrawn: bool = False

    @property
    def looped(self) -> bool:
        return self.kind != "plate"

    @property
    def members(self) -> int:
        """How many members have parameters of their own."""
        return self.full if self.redrawn else self.size

    @property
    def weight(self) -> float:
        return self.full / self.size


@dataclass(frozen=True)
class Read:
    """What a site reads of an earlier one: the site, a weight, and how.

    how: "plain"; "previous" (its own last iteration); "branch" (a Python number); "mixed" (a sum over all dimensions).
    """

    site: str
    weight: float
    how: str = "plain"


@dataclass(frozen=True)
class Site:
    """A latent or observed site, or a factor.

    guide, prior: names of laws; reads: what its parameter moves with, in guide and model; product: whether the first
    two reads enter as a product too; width: number of event elements, 0 for none; mask: of the members of its innermost
    plate, "block" or "fn" in `mask_how`; data: the observed value of every member.
    """

    name: str
    frames: tuple[Frame, ...]
    prior: str
    guide: str = ""
    width: int = 0
    guide_reads: tuple[Read, ...] = ()
    model_reads: tuple[Read, ...] = ()
    product: bool = False
    scale: float = 1.0
    mask: tuple[bool, ...] = ()
    mask_how: str = "block"
    data: tuple = ()

    @property
    def observed(self) -> bool:
        return not self.guide

    def law(self, side: str) -> Law:
        if self.observed:
            return OBSERVED[self.prior]
        return GUIDES[self.guide] if side == "guide" else PRIORS[self.prior]

    def reads(self, side: str) -> tuple[Read, ...]:
        return self.guide_reads if side == "guide" else self.model_reads

    @property
    def all_reads(self) -> tuple[Read, ...]:
        return (*self.guide_reads, *self.model_reads)

    @property
    def plates(self) -> tuple[Frame, ...]:
        return tuple(f for f in self.frames if not f.looped)

    @property
    def random(self) -> bool:
        return not self.observed and GUIDES[self.guide].how != "point"


@dataclass(frozen=True)
class Program:
    """A random program. depth: number of plate dimensions, without that of its copies; bare: whether it runs alone.

    Otherwise a plate of copies lies around it, whose members are independent replicates.
    """

    seed: int
    bare: bool
    depth: int
    guide: tuple[Site, ...]
    model: tuple[Site, ...] = field(default=())

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(dict.fromkeys(f for site in self.model for f in site.frames))

    def sites(self, side: str) -> tuple[Site, ...]:
        return self.guide if side == "guide" else self.model

    def parameters(self) -> Iterator[tuple[str, Site, Law]]:
        """Keys of the parameters, each with its site and law: "q.z1.s" of the guide, "p.z1.s" of the model."""
        for side in ("guide", "model"):
            for site in self.sites(side):
                law = site.law(side)
                yield f"{side[0].replace('g', 'q').replace('m', 'p')}.{site.name}.s", site, law
                if law.second:
                    yield f"{side[0].replace('g', 'q').replace('m', 'p')}.{site.name}.r", site, law


def states(sites: tuple[Site, ...]) -> int:
    """Joint states of one run."""
    sizes = (
        len(KINDS[s.law("guide").kind].atoms()[0]) ** (max(s.width, 1) * math.prod(f.size for f in s.frames))
        for s in sites
        if s.random
    )
    return math.prod(sizes)


def draw_program(seed: int) -> Program:
    """The program of a seed."""
    rng = random.Random(seed)
    while True:
        bare = rng.random() < 0.15
        depth, paths = _paths(rng, bare)
        guide = tuple(_latent(rng, i, paths) for i in range(rng.randint(1, 4)))
        if 2 <= states(guide) <= MAX_STATES:
            return _connected(rng, Program(seed, bare, depth, guide), paths)


def _paths(rng: random.Random, bare: bool) -> tuple[int, list[tuple[Frame, ...]]]:
    """Number of plate dimensions, and the paths of frames that sites may lie in."""
    layout = rng.choice(["none", "one", "one", "nested", "siblings"])
    depth = {"none": 0, "nested": 2}.get(layout, 1)
    a, b = _plate(rng, "a", -depth, bare), Frame("b", rng.randint(1, 2), dim=-1, full=0)
    b = Frame(b.name, b.size, dim=-1, full=b.size)
    paths = {"none": [()], "one": [(), (a,), (a,)], "nested": [(), (a,), (a, b)], "siblings": [(), (a,), (b,)]}[layout]
    if rng.random() < 0.35:
        kind = rng.choice(["range", "range", "sequential"])
        t = Frame("t", 2, kind, full=2)
        path = rng.choice(paths)
        paths = [*paths, (t, *path) if rng.random() < 0.5 else (*path, t)]
    return depth, paths


def _plate(rng: random.Random, name: str, dim: int, bare: bool) -> Frame:
    size = rng.randint(1, 3)
    if rng.random() < 0.75:
        return Frame(name, size, dim=dim, full=size)
    return Frame(name, size, dim=dim, full=size + rng.randint(1, 2), redrawn=bare)


def _latent(rng: random.Random, i: int, paths: list[tuple[Frame, ...]]) -> Site:
    kind = rng.choice(["bit"] * 5 + ["one-hot"] * 3 + ["class"] * 2 + [k for k in KINDS if k not in ("bit", "class")])
    guides = [name for name, law in GUIDES.items() if law.kind == kind]
    priors = [name for name, law in PRIORS.items() if law.kind == kind]
    width = 2 if kind != "simplex" and rng.random() < 0.2 else 0
    return _weighted(rng, Site(f"z{i}", rng.choice(paths), rng.choice(priors), rng.choice(guides), width))


def _weighted(rng: random.Random, site: Site) -> Site:
    """A site with a scale or a mask, sometimes."""
    scale = rng.choice([0.5, 2.0]) if rng.random() < 0.12 else 1.0
    plates, mask = site.plates, ()
    if plates and not plates[-1].redrawn and site.prior != "factor" and rng.random() < 0.15:
        mask = tuple(rng.random() < 0.5 for _ in range(plates[-1].size))
    return _replace(site, scale=scale, mask=mask, mask_how=rng.choice(["block", "fn"]))


def _replace(site: Site, **changes) -> Site:
    return Site(**{**site.__dict__, **changes})


def _connected(rng: random.Random, program: Program, paths: list[tuple[Frame, ...]]) -> Program:
    """The program with its dependences and observations."""
    guide = [
        _replace(s, guide_reads=_reads(rng, program, s, program.guide[:i]), product=rng.random() < 0.4)
        for i, s in enumerate(program.guide)
    ]
    order = rng.sample(range(len(guide)), len(guide))
    for place, i in enumerate(order):
        earlier = [guide[j] for j in order[:place]]
        guide[i] = _replace(guide[i], model_reads=_reads(rng, program, guide[i], earlier))
    observed: list[Site] = []
    for j in range(rng.randint(1, 2)):
        observed.append(_observation(rng, program, guide, paths, j))
    model = tuple(guide[i] for i in order)
    return Program(program.seed, program.bare, program.depth, tuple(guide), (*model, *observed))


def _observation(rng: random.Random, program: Program, latents, paths, j: int) -> Site:
    law = rng.choice(list(OBSERVED))
    site = Site(f"x{j}", rng.choice(paths), law)
    members = math.prod(f.members for f in site.frames)
    values = {"normal": lambda: rng.uniform(-1, 2), "bernoulli": lambda: float(rng.random() < 0.5)}
    value = values.get(law, lambda: rng.randint(0, 2))
    site = _replace(site, data=tuple(value() for _ in range(members)), product=rng.random() < 0.4)
    reads = _reads(rng, program, site, latents, chance=0.8)
    return _weighted(rng, _replace(site, model_reads=reads))


def _reads(rng: random.Random, program: Program, site: Site, earlier, chance: float = 0.55) -> tuple[Read, ...]:
    found = []
    for other in earlier:
        if rng.random() < chance:
            found.append(Read(other.name, _weight(rng), _how(rng, program, site, other)))
    if not site.observed and any(f.kind == "range" for f in site.frames) and rng.random() < 0.6:
        found.append(Read(site.name, _weight(rng), "previous"))
    return tuple(found)


def _weight(rng: random.Random) -> float:
    return rng.choice([-1, 1]) * rng.randint(4, 12) / 10


def _how(rng: random.Random, program: Program, site: Site, other: Site) -> str:
    """A way of reading that is right in a run by itself, and sometimes in no other."""
    if not program.bare or site.plates:
        return "plain"
    if other.plates:
        return "mixed"  # its sum has no dimension of a plate left
    if rng.random() < 0.5:
        return "plain"
    if other.frames == () and other.law("guide").kind == "bit" and not other.width:
        return "branch"
    return "plain"

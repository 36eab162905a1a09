"""What a random program's objectives should be, by visiting every joint state: no Pyro, and nothing of the package.

Every member of every site is one variable of S joint states, written out in Python loops.  `Reference(program, p)`
gives, as functions of the parameters: `elbo()`, `bound(K, alpha)` and `wake(K)`.  Tensors are (S,) in float64.
"""

import itertools
import math
from collections.abc import Iterator
from functools import cached_property, partial

import torch
from objective_reference import Joint, bound, wake
from random_laws import KINDS, SPREAD
from random_program import Frame, Program, Site
from torch import Tensor

Index = dict[Frame, int]


class States:
    """All joint states of the members of a program that `only` and the drawn `members` leave.

    members: which members of each plate are in the run; only: one member of some plates.
    """

    def __init__(self, program: Program, p: dict[str, Tensor], members: dict[Frame, tuple], only: Index) -> None:
        self.program, self.p, self.members, self.only = program, p, members, only
        self.values: dict[tuple, Tensor] = {}
        self.count = self._count()
        self.chance = torch.zeros(self.count, dtype=torch.float64)  # log
        self.stride = 1
        self.terms: list[tuple[str, Site, Index, Tensor]] = []
        for site in program.guide:
            self._visit("guide", site)
        for site in program.model:
            self._visit("model", site)

    def indices(self, site: Site) -> Iterator[Index]:
        """The members of a site."""
        choices = [(self.only[f],) if f in self.only else self.members[f] for f in site.frames]
        for chosen in itertools.product(*choices):
            yield dict(zip(site.frames, chosen, strict=True))

    def _count(self) -> int:
        sizes = [
            len(KINDS[s.law("guide").kind].atoms()[0]) ** (max(s.width, 1) * sum(1 for _ in self.indices(s)))
            for s in self.program.guide
            if s.random
        ]
        return math.prod(sizes)

    def _visit(self, side: str, site: Site) -> None:
        law = site.law(side)
        for index in self.indices(site):
            s, total = self._natural(side, site, index), 0.0
            r = self._own(side, site, index, "r") if law.second else s
            for e in range(max(site.width, 1)):
                se, re = (t[..., e, :] if law.tail else t[..., e] for t in (s, r)) if site.width else (s, r)
                if side == "guide":
                    self.values[self._key(site, index, e)], measure = self._place(site, se)
                z = self._observed(site, index) if site.observed else self.values[self._key(site, index, e)]
                log_prob = law.density(z, se, re)
                total = total + log_prob
                if side == "guide" and site.random:
                    self.chance = self.chance + log_prob + measure
            self.terms.append((side, site, index, total))

    def _key(self, site: Site, index: Index, e: int) -> tuple:
        return site.name, frozenset(index.items()), e

    def _place(self, site: Site, s: Tensor) -> tuple[Tensor, Tensor]:
        """Values of a new variable in every state, and the log of their measure."""
        if not site.random:
            return s.expand(self.count), torch.zeros(())
        atoms, measure = KINDS[site.law("guide").kind].atoms()
        digit = torch.arange(self.count) // self.stride % len(atoms)
        self.stride *= len(atoms)
        return atoms[digit], measure[digit]

    def _position(self, site: Site, index: Index) -> tuple:
        """Where a parameter (loop, *plate dimensions, …) holds a member's."""
        depth = self.program.depth
        at = {f.dim: i for f, i in index.items() if not f.looped}
        return (*(i for f, i in index.items() if f.looped), *(at.get(dim, 0) for dim in range(-depth, 0)))

    def _own(self, side: str, site: Site, index: Index, which: str) -> Tensor:
        return self.p[f"{'q' if side == 'guide' else 'p'}.{site.name}.{which}"][self._position(site, index)]

    def _observed(self, site: Site, index: Index) -> Tensor:
        place = 0
        for f in site.frames:
            place = place * f.members + index[f]
        value = torch.tensor(site.data[place]) if site.data else torch.zeros(())
        return value.expand(self.count)

    def _natural(self, side: str, site: Site, index: Index) -> Tensor:
        """The parameter s of a member: (S or nothing, *event)."""
        own, reads = self._own(side, site, index, "s"), site.reads(side)
        if not reads:
            return own
        read = [self._read(site, index, r.site, r.how) for r in reads]
        moved = sum(r.weight * value for r, value in zip(reads, read, strict=True))
        if site.product and len(read) > 1:
            moved = moved + read[0] * read[1]
        moved, tail = torch.tanh(torch.as_tensor(moved)), bool(site.law(side).tail)
        if site.width:
            return own + (moved[..., None, None] * SPREAD[:2, None] * SPREAD if tail else moved[..., None] * SPREAD[:2])
        return own + (moved[..., None] * SPREAD if tail else moved)

    def _read(self, site: Site, index: Index, name: str, how: str) -> Tensor:
        """The number that a member reads of another site: the sum over the members that it sees."""
        other = next(s for s in self.program.guide if s.name == name)
        if how == "previous":
            loop = next(f for f in site.frames if f.looped)
            if index[loop] == 0:
                return torch.zeros((), dtype=torch.float64)
            return self._feature(site, {**index, loop: index[loop] - 1})
        seen = [i for i in self.indices(other) if all(i[f] == index[f] for f in i if f in index)]
        return torch.stack([self._feature(other, i) for i in seen]).sum(0)

    def _feature(self, site: Site, index: Index) -> Tensor:
        feature = KINDS[site.law("guide").kind].feature
        found = [feature(self.values[self._key(site, index, e)]) for e in range(max(site.width, 1))]
        return sum(c * f for c, f in zip(SPREAD, found)) if site.width else found[0]  # noqa: B905


def weight(site: Site, index: Index, without: tuple[Frame, ...] = ()) -> float:
    """A term's scale N/B and mask; `without` the scale of some plates."""
    if site.mask and not site.mask[index[site.plates[-1]]]:
        return 0.0
    return site.scale * math.prod(f.weight for f in site.plates if f not in without)


def mean_log_weight(joint: Joint) -> Tensor:
    """E log w, which every bound of one particle is."""
    return (joint.chance * joint.log_w).sum()


class Reference:
    """The exact value of a program's objectives at parameters `p`, (loop, *plate dimensions, *event) each."""

    MOST_MULTISETS = 2_000

    def __init__(self, program: Program, p: dict[str, Tensor]) -> None:
        self.program, self.p = program, p

    def runs(self) -> list[dict[Frame, tuple]]:
        """The members that a run may hold, all equally probable."""
        choices = [
            itertools.combinations(range(f.full), f.size) if f.redrawn else [tuple(range(f.size))]
            for f in self.program.frames
        ]
        return [dict(zip(self.program.frames, chosen, strict=True)) for chosen in itertools.product(*choices)]

    def _mean(self, of) -> Tensor:
        found = [of(members) for members in self.runs()]
        return torch.stack(found).sum() / len(found)

    def elbo(self) -> Tensor:
        return self._mean(self._elbo)

    def _elbo(self, members: dict[Frame, tuple]) -> Tensor:
        states = States(self.program, self.p, members, {})
        total = sum(
            (1 if side == "model" else -1) * weight(site, index) * term for side, site, index, term in states.terms
        )
        return (states.chance.exp() * total).sum()

    @cached_property
    def shared(self) -> tuple[Frame, ...]:
        """The plates that all draws, and all terms that they move, have in common: weights are formed over them."""
        states = States(self.program, self.p, self.runs()[0], {})
        moved = [s for _, s, _, term in states.terms if term.ndim and bool((term.detach().std() > 1e-12).any())]
        sites = [*moved, *(s for s in self.program.guide if s.random)]
        return tuple(f for f in self.program.frames if not f.looped and all(f in s.frames for s in sites))

    def bound(self, K: int, alpha: float = 0.0, whole: bool = False) -> Tensor:
        """The K-sample bound of order alpha; whole: with one weight for the whole program."""
        of = partial(bound, K=K, alpha=alpha) if K > 1 else mean_log_weight
        return self._mean(partial(self._weighted, K=K, of=of, whole=whole))

    def most_particles(self, whole: bool = False) -> int:
        """The largest K, at most 4, whose multisets are few enough to visit; 1 always is."""
        shared = () if whole else self.shared
        only = {f: self.runs()[0][f][0] for f in shared}
        size = States(self.program, self.p, self.runs()[0], only).count
        return max((K for K in range(2, 5) if math.comb(size + K - 1, K) <= self.MOST_MULTISETS), default=1)

    def wake(self, K: int, whole: bool = False) -> Tensor:
        """What has the wake phases' gradient; whole: with one weight for the whole program."""
        return self._mean(partial(self._weighted, K=K, of=partial(wake, K=K), whole=whole))

    def _weighted(self, members: dict[Frame, tuple], K: int, of, whole: bool = False) -> Tensor:
        shared = () if whole else self.shared
        scale, total = math.prod(f.weight for f in shared), torch.zeros((), dtype=torch.float64)
        for chosen in itertools.product(*(members[f] for f in shared)):
            states = States(self.program, self.p, members, dict(zip(shared, chosen, strict=True)))
            total = total + scale * of(self._joint(states, shared))
        return total + self._outside(members, shared)

    def _joint(self, states: States, shared: tuple[Frame, ...]) -> Joint:
        logs = {"model": torch.zeros_like(states.chance), "guide": torch.zeros_like(states.chance)}
        for side, site, index, term in states.terms:
            if all(f in index for f in shared):
                logs[side] = logs[side] + weight(site, index, shared) * term
        return Joint(states.chance.exp(), logs["model"], logs["guide"])

    def _outside(self, members: dict[Frame, tuple], shared: tuple[Frame, ...]) -> Tensor:
        """The terms that no draw moves and that lie outside the plates of the weights."""
        total = torch.zeros((), dtype=torch.float64)
        if not shared:
            return total
        for side, site, index, term in States(self.program, self.p, members, {}).terms:
            if not all(f in index for f in shared):
                total = total + (1 if side == "model" else -1) * weight(site, index) * term.reshape(-1)[0]
        return total

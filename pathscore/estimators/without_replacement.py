"""k different values of one categorical variable, each evaluated once: draws without replacement.

The first value is the draw from q, the k − 1 others are counterfactual rows.  p(s) is the probability of class s.  All
sums over the set run over k values; where k is the number of classes both estimators are the exact sum.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import element_shape, family_name, one_hot_like, unwrap
from pathscore.estimators.relaxation import RELAXATIONS

MAX_VALUES = 8
"""Most values of a set: the sums over its subsets have 2^k terms."""

LEAST = -1e4
"""The log-probability of an impossible class, in place of −∞."""


class _WithoutReplacement(Estimator):
    """k different classes (k, rows, *plates), the first of them drawn from q; subclasses choose and weigh them."""

    families = ("onehot", "categorical")
    one_at_a_time = True  # the other rows are no draws from q

    def __init__(self, k: int = 4) -> None:
        super().__init__()
        if not 2 <= k <= MAX_VALUES:
            raise UsageError(f"k of {self.name} is the number of values evaluated, 2 to {MAX_VALUES}, got {k}")
        self.k = k

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        reason = super().refusal(fn, particles)
        if reason is None and element_shape(fn).numel() > 1:
            return f"{self.name} draws different values of one variable, and a draw here has several: use disarm"
        return reason

    def rows(self, fn: Any) -> int:
        return min(self.k, unwrap(fn).logits.shape[-1]) - 1

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        with torch.no_grad():
            logits = _log_probs(fn)
            keys = logits + RELAXATIONS["onehot"].noise(logits)
            classes, summed = self.choose(keys, logits, self.rows(fn) + 1)
            return _values(fn, classes[..., 0]), (classes, summed)

    def choose(self, keys: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The classes (rows, *plates, k), and which are summed; the first has the largest key, a draw from q."""
        raise NotImplementedError

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        classes = noise[0]  # an impossible class has weight 0 and a cost that is not finite: the draw stands in for it
        possible = _log_probs(fn).gather(-1, classes) > LEAST
        classes = torch.where(possible, classes, classes[..., :1])
        return torch.stack([_values(fn, index) for index in classes.unbind(-1)[1:]])

    def log_p(self, site: Site) -> Tensor:
        """log p of the classes, (k, K, *plates), with its graph."""
        return _log_probs(site.fn).gather(-1, site.noise[0]).movedim(-1, 0)

    def others(self, site: Site) -> Tensor:
        """log of the probability of all classes outside the set, (K, *plates)."""
        outside = _log_probs(site.fn).detach().scatter(-1, site.noise[0], -torch.inf)
        return outside.logsumexp(-1)


class UnorderedSet(_WithoutReplacement):
    """A set S of k classes drawn without replacement, its order summed out:

        Σ_{s∈S} W(s) [f(s) − Σ_{t∈S} B(s, t) f(t)] ∇log p(s)

    W(s) is the probability that s was the first of S, given S. B(s, t) is that of t as the second given s as the first,
    times 1 − p(s); B(s, s) = p(s). So the baseline of s has mean E[f] whatever s is, and Σ W f is the bound of least
    variance that the k values give. The sums over subsets are exact: k is at most 8.

    References:
        Estimating Gradients for Discrete Random Variables by Sampling without Replacement. Kool, van Hoof, Welling,
        2020.
    """

    name = "unordered"
    formula = "Σ_{s∈S} p(s)R(S, s) [f(s) − Σ_{t∈S} p(t)R(S, s, t) f(t)] ∇log p(s)"
    reference = "Kool, van Hoof & Welling 2020"

    def choose(self, keys: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        classes = keys.topk(k, -1).indices  # in the order of the draws
        return classes, torch.zeros_like(classes, dtype=torch.bool)

    def weights(self, site: Site) -> Tensor:
        log_h = self.log_chances(site)
        whole = log_h[frozenset()]
        chosen = [log_p + log_h[frozenset({s})] - whole for s, log_p in enumerate(self.log_p(site).detach())]
        return torch.stack(chosen).exp()

    def baselines(self, site: Site) -> Tensor:
        """Σ_t B(s, t) f(t) of every s, (k, K, *plates)."""
        log_h, log_p = self.log_chances(site), self.log_p(site).detach()
        found = []
        for s in range(len(log_p)):
            ratios = [log_h[frozenset({s, t})] - log_h[frozenset({s})] for t in range(len(log_p))]  # 0 for t = s
            found.append(((log_p + torch.stack(ratios)).exp() * site.cost).sum(0))
        return torch.stack(found)

    def log_chances(self, site: Site) -> dict[frozenset[int], Tensor]:
        """C ⊂ S → log of the chance that the draws from all classes but C are S ∖ C, in any order.

        h(S) = 1,  h(C) = Σ_{s ∈ S∖C} p(s) / (1 − p(C)) h(C ∪ s).  1 − p(C) is summed over what it consists of.
        """
        if site.memo is not None:
            return site.memo
        log_p, others = self.log_p(site).detach(), self.others(site)
        everything = frozenset(range(len(log_p)))
        found = {everything: torch.zeros_like(others)}
        for size in reversed(range(len(log_p))):
            for chosen in map(frozenset, itertools.combinations(everything, size)):
                left = sorted(everything - chosen)
                rest = torch.stack([others, *log_p[left]]).logsumexp(0)
                found[chosen] = torch.stack([log_p[s] + found[chosen | {s}] for s in left]).logsumexp(0) - rest
        site.memo = found
        return found

    def surrogate(self, site: Site) -> Tensor:
        return (self.weights(site) * (site.cost - self.baselines(site)) * self.log_p(site)).sum(0)


class SumAndSample(_WithoutReplacement):
    """The k − 1 most probable classes C summed, one draw r for all others:

        Σ_{c∈C} p(c) [f(c) − b] ∇log p(c) + (1 − p(C)) [f(r) − b] ∇log p(r),   b = Σ_{c∈C} p(c) f(c) / p(C)

    b does not depend on r. The paper leaves the baseline open.

    References:
        Rao-Blackwellized Stochastic Gradients for Discrete Distributions. Liu, Regier, Tripuraneni, Jordan, McAuliffe,
        2019.
    """

    name = "sum-and-sample"
    formula = "Σ_{c∈C} p(c) [f(c) − b] ∇log p(c) + (1 − p(C)) [f(r) − b] ∇log p(r)"
    reference = "Liu, Regier, Tripuraneni, Jordan & McAuliffe 2019"

    def choose(self, keys: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        drawn = keys.argmax(-1, keepdim=True)
        top = logits.topk(k - 1, -1).indices
        rest = keys.scatter(-1, top, -torch.inf).argmax(-1, keepdim=True)  # the draw itself where it is none of C
        members = torch.cat([top, rest], -1)
        order = (members == drawn).to(members.dtype).argsort(-1, descending=True)  # the draw first
        return members.gather(-1, order), order < k - 1

    def summed(self, site: Site) -> Tensor:
        """Which of the classes are in C: all but r, (k, K, *plates)."""
        return site.noise[1].movedim(-1, 0)

    def weights(self, site: Site) -> Tensor:
        log_p = self.log_p(site).detach()
        left = torch.logaddexp(log_p, self.others(site))  # of r and of all that were not evaluated
        return torch.where(self.summed(site), log_p, left).exp()

    def surrogate(self, site: Site) -> Tensor:
        weights = self.weights(site)
        known = weights * self.summed(site)
        baseline = (known * site.cost).sum(0) / known.sum(0)
        return (weights * (site.cost - baseline) * self.log_p(site)).sum(0)


def _log_probs(fn: Any) -> Tensor:
    """Normalised logits of the one variable of a draw, (rows, *plates, classes), nowhere below `LEAST`."""
    logits = unwrap(fn).logits
    logits = logits.reshape(*fn.batch_shape, logits.shape[-1])
    return logits.clamp(min=LEAST)


def _values(fn: Any, index: Tensor) -> Tensor:
    """Classes (…, *plates) as values of the site, (…, *plates, *event)."""
    value = index if family_name(fn) == "categorical" else one_hot_like(index, unwrap(fn).logits)
    return value.reshape(*index.shape, *fn.event_shape)

"""Plans by the structure of a call: `Plans().find(model, guide, args, kwargs) -> Plan | None`.

Sites may depend on the call: labels are given or not, sequences have other lengths. A pair is run once, dry, for every
kind of call that it has not had yet; calls that meet the same sites share one plan, and learned state belongs to sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyro.poutine.trace_struct import Trace
from torch import Size, Tensor
from torch.utils._pytree import tree_flatten

from pathscore.elbos.plan import Plan
from pathscore.programs.traces import identity, plates_of, sample_sites

CALLS = 10_000
"""Kinds of call that are remembered; beyond, all are forgotten and found again."""

Pair = tuple[int, ...]


class Plans:
    """The plans of every pair that an objective has met. Pairs are kept, so that their identities stay their own."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, tuple[Callable, Callable]] = {}
        self._by_call: dict[tuple[Pair, Any], Plan] = {}
        self._by_structure: dict[tuple[Pair, Any], Plan] = {}

    def find(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Plan | None:
        """The plan for such a call; None for a kind of call that has not been met."""
        return self._by_call.get((_pair(model, guide), kind_of_call(args, kwargs)))

    def of_kind(self, model: Callable, guide: Callable, kind: Any) -> Plan | None:
        """The plan for a kind of call (`kind_of_call`)."""
        return self._by_call.get((_pair(model, guide), kind))

    def like(self, model: Callable, guide: Callable, traces: Iterable[Trace]) -> Plan | None:
        """The plan of a call that met the same sites."""
        return self._by_structure.get((_pair(model, guide), structure(traces)))

    def keep(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict, traces: Iterable[Trace], plan: Plan
    ) -> None:
        """Remember the plan for calls of this kind, and of these sites."""
        pair = _pair(model, guide)
        if len(self._by_call) >= CALLS:
            self._by_call.clear()
        self._pairs[pair] = model, guide
        self._by_call[pair, kind_of_call(args, kwargs)] = plan
        self._by_structure[pair, structure(traces)] = plan

    def forget(self, model: Callable, guide: Callable) -> None:
        """Lay out the steps of a pair anew when it is next seen."""
        pair = _pair(model, guide)
        for held in (self._by_call, self._by_structure):
            for key in [key for key in held if key[0] == pair]:
                del held[key]

    def of(self, model: Callable, guide: Callable) -> list[Plan]:
        """The plans of a pair, one for each structure, in the order in which they were met."""
        pair = _pair(model, guide)
        return [plan for key, plan in self._by_structure.items() if key[0] == pair]


def structure_of(elbo: Any, model: Callable, guide: Callable, kind: Any) -> Any:
    """What tells the structures of calls apart: the plan of such a call, where the objective has met it.

    For Pyro's own objectives, and for a kind of call that has not been met, what is given and what is not.
    """
    plans = getattr(elbo, "_plans", None)
    plan = plans.of_kind(model, guide, kind) if isinstance(plans, Plans) else None
    return id(plan) if plan is not None else _outline(kind)


def _outline(kind: Any) -> Any:
    """A kind of call without the sizes of its tensors."""
    if isinstance(kind, Size):
        return len(kind)
    return tuple(_outline(part) for part in kind) if isinstance(kind, tuple) else kind


def _pair(model: Callable, guide: Callable) -> Pair:
    return identity(model) + identity(guide)


def kind_of_call(args: tuple, kwargs: dict) -> Any:
    """What may decide about the sites of a call: shapes of tensors, flags and words, and what is not given.

    Numbers that change from step to step, an annealing factor for one, do not make another kind of call.
    """
    if not kwargs and all(isinstance(x, Tensor) for x in args):
        return tuple([x.shape for x in args])
    leaves, layout = tree_flatten((args, kwargs))
    return layout, tuple([_kind(leaf) for leaf in leaves])


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape
    return leaf if isinstance(leaf, bool | str | None) else type(leaf)


def structure(traces: Iterable[Trace]) -> Any:
    """The sites of both programs: name, whether observed, law, plates, and shape of the event."""
    return tuple(
        (n, s["is_observed"], type(s["fn"]).__name__, frozenset(p.name for p in plates_of(s)), s["fn"].event_shape)
        for trace in traces
        for n, s in sample_sites(trace).items()
    )

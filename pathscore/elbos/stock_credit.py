"""Pyro's own `Trace_ELBO` and `TraceGraph_ELBO`, mended or refused where their score function is silently wrong.

Mended: `TraceGraph_ELBO` draws from parameters that carry provenance. It loses the path of a draw that torch
differentiates by a function of its own (beta, dirichlet), and fails at a geometric one. Here draws are made from plain
parameters.
Refused: a later draw of the guide that makes the members of a plate a cost of each other.  Warned of: a value that
leaves tensors (`.item()`, a Python branch), where `TraceGraph_ELBO` sees nothing of what depends on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.ops.provenance import track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace

from pathscore.elbos.dependence import dependence
from pathscore.elbos.members import couplers
from pathscore.elbos.structures import kind_of_call
from pathscore.errors import UsageError
from pathscore.programs.marks import plain
from pathscore.programs.traces import identity, latent_sites, traces
from pathscore.programs.untouched import rehearsal


class PlateCreditELBO(Trace_ELBO):
    """`Trace_ELBO`. Raises: UsageError for coupled members of a plate, at the first call of each kind."""

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        _check_once(self, model, guide, args, kwargs)
        return super()._get_trace(model, guide, args, kwargs)


class GraphCreditELBO(TraceGraph_ELBO):
    """`TraceGraph_ELBO`. Raises: as `PlateCreditELBO`; warns where a value leaves tensors."""

    _scored = True  # whether there may be sites that others carry the provenance of

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        lost = _check_once(self, model, guide, args, kwargs)
        if lost:
            warnings.warn(
                f"the value of {', '.join(lost)} leaves tensors (.item(), numpy, a Python branch), and TraceGraph_ELBO "
                "does not see what depends on it there: the gradient may be biased; take --elbo trace, or an estimator "
                "such as score, which credits every later cost",
                stacklevel=2,
            )
        return super()._get_trace(model, PlainDraws()(guide) if self._scored else guide, args, kwargs)


class PlainDraws(Messenger):
    """Makes every draw from parameters without provenance, which its value keeps."""

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or msg["value"] is not None or isinstance(fn, _Subsample):
            return
        marks: set[str] = set()
        bare = plain(fn, marks)
        if marks:
            msg["value"], msg["done"] = track_provenance(bare(*msg["args"], **msg["kwargs"]), frozenset(marks)), True


def _check_once(elbo: Any, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> list[str]:
    """Refuse coupled members at the first call of a kind; the sites without a path whose value leaves tensors."""
    seen = vars(elbo).setdefault("_checked", {})
    key = (*identity(model), *identity(guide), kind_of_call(args, kwargs))
    if not is_validation_enabled() or key in seen:
        return []
    with rehearsal(model, guide), torch.no_grad():
        guide_trace = traces(model, guide, args, kwargs)[1]
        latents = latent_sites(guide_trace)
        scored = [name for name, site in latents.items() if not site["fn"].has_rsample]
        elbo._scored = bool(scored) or any(scored for _, _, scored in seen.values())
        seen[key] = model, guide, scored  # kept, so that their identities stay their own
        if not scored:
            return []
        depends, lost = dependence(model, guide, args, kwargs, guide_trace, list(latents))
        tied = couplers(guide_trace, lambda: depends)
    for name in scored:
        if name in tied:
            later, plates = next(iter(tied[name].items()))
            raise UsageError(
                f"the guide draws '{later}' outside plate '{min(plates)}' and given '{name}' inside it, so a member of "
                f"'{name}' has costs of all members, which Pyro's own score function leaves out: name an estimator "
                "(--estimator score, or auto)"
            )
    return sorted(lost & set(scored))

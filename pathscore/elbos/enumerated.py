"""`EnumELBO`: Pyro's ELBO with discrete latents summed out, refused where it would be biased.

Pyro weighs a term by q, or the score, of those discrete sites whose plates all contain the term. A term outside the
plate of a site that depends on it lacks this factor, without an error, so the dependence itself is looked at.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.util import is_validation_enabled

from pathscore.elbos.dependence import dependence
from pathscore.elbos.members import tied
from pathscore.elbos.structures import kind_of_call
from pathscore.errors import UsageError, in_short
from pathscore.programs.traces import identity, latent_sites, traces
from pathscore.programs.untouched import rehearsal


class EnumELBO(TraceEnum_ELBO):
    """`TraceEnum_ELBO` that sums out every site that can be enumerated, without marks in the program.

    −ELBO = Σ_z q(z | x) [log q(z | x) − log p(x, z)], exact over discrete sites, Monte Carlo over the others.

    Raises: UsageError for programs without a discrete site, or that do not broadcast over its states; naming a
        discrete site, and the term outside its plate that depends on it.
    """

    def _get_traces(self, model: Any, guide: Any, args: Any, kwargs: Any):
        key = (*identity(model), *identity(guide), kind_of_call(args, kwargs))
        seen = vars(self).get("_seen") or {}
        if is_validation_enabled() and key not in seen:
            require_discrete_sites(model, guide, args, kwargs)
            require_terms_inside(model, guide, args, kwargs)
            self._seen = seen | {key: (model, guide)}  # kept, so that their identities stay their own
        return self._broadcast(super()._get_traces, config_enumerate(model), config_enumerate(guide), args, kwargs)

    def _broadcast(self, run: Callable, *args: Any) -> Any:
        """Run the programs for all states at once. Raises: UsageError where their shapes do not go together."""
        try:
            yield from run(*args)
        except (RuntimeError, IndexError) as error:
            raise UsageError(
                "enum runs the programs for all states of a discrete site at once, in a dimension of their own on the "
                f"left, and they do not broadcast over it ({in_short(error)}): write them so that they do, or sum the "
                "site out under --elbo trace with SITE=enum"
            ) from error


def require_discrete_sites(model: Callable, guide: Callable, args: Any, kwargs: Any) -> None:
    """Raise UsageError where there is nothing to sum out."""
    with rehearsal(model, guide), torch.no_grad():
        found = [latent_sites(trace) for trace in traces(model, guide, args, kwargs)]
    if not any(site["fn"].has_enumerate_support for sites in found for site in sites.values()):
        names = ", ".join(map(repr, {**found[0], **found[1]}))
        raise UsageError(f"enum sums discrete latent sites out, and {names or 'the program'} is none: use trace")


def require_terms_inside(model: Callable, guide: Callable, args: Any, kwargs: Any) -> None:
    """Raise UsageError where a term depends on a site without a path, in a plate that the term lies outside of."""
    with rehearsal(model, guide), torch.no_grad():
        model_trace, guide_trace = traces(model, guide, args, kwargs)
    latents = latent_sites(guide_trace)
    ties = tied(model_trace, guide_trace, lambda: dependence(model, guide, args, kwargs, guide_trace, list(latents))[0])
    for name, (plate, term) in ties.items():
        if not latents[name]["fn"].has_rsample:
            raise UsageError(
                f"'{term}' lies outside plate '{plate}' and depends on site '{name}' inside it: TraceEnum_ELBO would "
                "not weigh it with q of the site; use trace with disarm or score there"
            )

"""`MeanFieldELBO`: Pyro's ELBO with closed-form KL terms, refused where they would be biased.

    −ELBO = Σ_z KL(q(z) ‖ p(z | parents)) − E_q[log p(x | z)]

The closed form treats the parents of z in the model as fixed when z is drawn, so none of them may be drawn from z in
the guide. Pyro warns whenever the sites' order differs, right or wrong; here the dependence itself is looked at.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine.trace_struct import Trace

from pathscore.elbos.dependence import dependence
from pathscore.errors import UsageError
from pathscore.estimators.families import family_name, unwrap
from pathscore.programs.traces import sample_sites


class MeanFieldELBO(TraceMeanField_ELBO):
    """`TraceMeanField_ELBO` with the mean-field condition checked on the program, wherever validation is on.

    Raises: UsageError naming the two sites.
    """

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        model_trace, guide_trace = Trace_ELBO._get_trace(self, model, guide, args, kwargs)
        if is_validation_enabled():
            require_mean_field(model, guide, args, kwargs, guide_trace)
            require_plain_points(guide_trace)
        return model_trace, guide_trace


def require_mean_field(model: Callable, guide: Callable, args: Any, kwargs: Any, guide_trace: Trace) -> None:
    """Raise UsageError where a latent site's prior depends on a site that the guide draws from it."""
    names = list(guide_trace.stochastic_nodes)
    depends, _ = dependence(model, guide, args, kwargs, guide_trace, names)
    for site in names:
        for parent in depends.get(("prior", site), frozenset()) - {site}:
            if site in depends.get(("q", parent), frozenset()):
                raise UsageError(
                    f"the prior of site {site!r} depends on {parent!r}, which the guide draws from {site!r}: "
                    "the closed-form KL of TraceMeanField_ELBO would be biased, use trace or a factorised guide"
                )


def require_plain_points(guide_trace: Trace) -> None:
    """Raise UsageError where the closed form would leave out the log-density of a point mass.

    An autoguide draws a hidden Normal and gives a constrained site as a point mass, whose log-density is the Jacobian
    of the transform. Pyro's KL of a point mass does not read it.
    """
    for name, site in sample_sites(guide_trace).items():
        if family_name(site["fn"]) != "delta":
            continue
        if bool((torch.as_tensor(unwrap(site["fn"]).log_density) != 0).any()):
            raise UsageError(
                f"site {name!r} is a point mass with a log-density, as an autoguide makes it of a constrained site: "
                "the closed-form KL of TraceMeanField_ELBO would leave it out, use trace"
            )

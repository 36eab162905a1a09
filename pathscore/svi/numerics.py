"""Why a step is not finite: `blame(recorder)` names the first parameter, site or distribution argument at fault.

Works on the messages that the step itself left behind, so it sees the very values that failed and draws nothing.
"""

from typing import Any

import pyro
import torch
from torch import Tensor

from pathscore.programs.recorder import Recorder, plain_name


def finite(tensor: Any) -> bool:
    """Whether every element is a finite number; anything but a floating-point tensor counts as finite."""
    return not isinstance(tensor, Tensor) or not tensor.is_floating_point() or bool(tensor.isfinite().all())


def blame(recorder: Recorder) -> str | None:
    """A clause on the first non-finite parameter, else the first site that is not finite; None where all are finite."""
    with torch.no_grad(), pyro.validation_enabled(False):
        for name, parameter in recorder.params.items():
            if not finite(parameter):
                return f": parameter {plain_name(name)!r} is {kind_of(parameter)}"
        for msg in recorder.sampled():
            fault = _site_fault(msg)
            if fault:
                return f", first at site {msg['name']!r}: {fault}"
    return None


def kind_of(tensor: Tensor) -> str:
    """The kind of non-finite number a tensor holds."""
    return "nan" if bool(tensor.isnan().any()) else "infinite"


def _site_fault(msg: Any) -> str | None:
    fn, value = msg["fn"], msg["value"]
    base = fn
    while hasattr(base, "base_dist"):
        base = base.base_dist
    for argument in getattr(base, "arg_constraints", {}):
        given = base.__dict__.get(argument)
        if not finite(given):
            return f"{type(base).__name__}'s {argument} is {kind_of(given)}"
    if not finite(value):
        return f"its {'data' if msg['is_observed'] else 'value'} is {kind_of(value)}"
    try:
        log_prob = fn.log_prob(value)
    except ValueError:  # a value outside the support: the caller says so in words of its own
        return None
    return None if finite(log_prob) else f"{type(base).__name__}'s log-probability is {kind_of(log_prob)}"

"""Programs with a weight that all rows share, declared and scaled rightly or not."""

import pyro
import pyro.distributions as dist

from pathscore import Program


def make_shared(scaled):
    """A weight that all rows share; the plate of the data is scaled to the data set, or is that of the batch."""

    def make(data, options):
        rows, width = data.x.shape

        def model(x, y):
            w = pyro.sample("w", dist.Normal(x.new_zeros(width), 1.0).to_event(1))
            size = {"subsample_size": len(x)} if scaled else {}
            with pyro.plate("data", rows if scaled else len(x), **size):
                pyro.sample("y", dist.Normal((x * w).sum(-1), 0.5), obs=y.to(x))

        def guide(x, y):
            pyro.sample("w", dist.Normal(pyro.param("loc", x.new_zeros(width)), 0.1).to_event(1))

        return model, guide

    return make


SCALED = Program(make_shared(True), takes=("rows", "labels"), whole=True)
UNSCALED = Program(make_shared(False), takes=("rows", "labels"), whole=True)
NOT_DECLARED = Program(make_shared(True), takes=("rows", "labels"))

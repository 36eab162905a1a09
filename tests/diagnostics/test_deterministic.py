"""`pyro.deterministic` outside plates: among the draws, its values are the function of the draws that it computes."""

import pyro
import pyro.distributions as dist
import torch

from pathscore import to_arviz


def model(y):
    raw = pyro.sample("raw", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    level = pyro.deterministic("level", 2 * raw[..., 0])
    both = pyro.deterministic("both", raw + 1.0)
    with pyro.plate("data", len(y)):
        inside = pyro.deterministic("inside", level * torch.ones(len(y)))
        pyro.sample("y", dist.Normal(inside + both.sum(-1), 1.0), obs=y)


def guide(y):
    pyro.sample("raw", dist.Normal(torch.tensor([0.3, -0.2]), 0.5).to_event(1))


def test_draws_of_computed_values_belong_to_their_draws():
    found = to_arviz(model, guide, torch.zeros(4), 10, seed=0)
    posterior = found["posterior"]
    raw = torch.as_tensor(posterior["raw"].values[0])
    assert raw.shape == (10, 2)
    for name, value in (("level", 2 * raw[:, 0]), ("both", raw + 1), ("inside", (2 * raw[:, :1]).expand(10, 4))):
        torch.testing.assert_close(torch.as_tensor(posterior[name].values[0]), value, msg=name)

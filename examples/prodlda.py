"""ProdLDA: topics of documents by a logistic-normal latent variable and a product of experts.

After Pyro's tutorial "Probabilistic Topic Modeling". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (docs,): docs (16, 12) word counts of two kinds of documents."""
    torch.manual_seed(seed)
    words = torch.tensor([5.0] * 6 + [0.3] * 6)
    docs = torch.stack([dist.Multinomial(20, w / w.sum()).sample() for w in [words, words.flip(0)] * 8])
    decoder = nn.Sequential(nn.Linear(2, 12, bias=False), nn.BatchNorm1d(12, affine=False))
    encoder = nn.Sequential(nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, 4))

    def model(docs):
        pyro.module("decoder", decoder)
        with pyro.plate("documents", len(docs)):
            logtheta = pyro.sample("logtheta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = decoder[0](logtheta.softmax(-1))
            logits = decoder[1](logits.reshape(-1, 12)).reshape(logits.shape)
            counts = docs.sum(-1).int().max().item()
            pyro.sample("obs", dist.Multinomial(counts, probs=logits.softmax(-1)), obs=docs)

    def guide(docs):
        pyro.module("encoder", encoder)
        with pyro.plate("documents", len(docs)):
            loc, log_scale = encoder((1 + docs).log()).chunk(2, -1)
            pyro.sample("logtheta", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide, (docs,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")

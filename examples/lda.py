"""Latent Dirichlet allocation with an amortised guide; the topic of every word is summed out.

After Pyro's example "Amortized Latent Dirichlet Allocation". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints

from pathscore import SVI, make_elbo

TOPICS, WORDS = 3, 9


def build(seed: int = 0):
    """Model, guide and arguments (words,): (6 words a document, 8 documents)."""
    torch.manual_seed(seed)
    topics = torch.randint(TOPICS, (8,))
    words = 3 * topics + torch.randint(3, (6, 8))
    network = nn.Sequential(nn.Linear(WORDS, 8), nn.Tanh(), nn.Linear(8, TOPICS))

    def model(words):
        with pyro.plate("topics", TOPICS):
            weights = pyro.sample("topic_weights", dist.Gamma(1.0 / TOPICS, 1.0))
            topic_words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(WORDS) / WORDS))
        with pyro.plate("documents", words.shape[1]):
            document = pyro.sample("doc_topics", dist.Dirichlet(weights))
            with pyro.plate("words", words.shape[0]):
                topic = pyro.sample("word_topics", dist.Categorical(document), infer={"enumerate": "parallel"})
                pyro.sample("doc_words", dist.Categorical(topic_words[topic]), obs=words)

    def guide(words):
        pyro.module("network", network)
        weights = pyro.param("topic_weights_q", torch.ones(TOPICS), constraint=constraints.positive)
        topic_words = pyro.param(
            "topic_words_q", 1 + torch.rand(TOPICS, WORDS), constraint=constraints.greater_than(0.5)
        )
        with pyro.plate("topics", TOPICS):
            pyro.sample("topic_weights", dist.Gamma(5.0 * weights, 5.0))
            pyro.sample("topic_words", dist.Dirichlet(topic_words))
        counts = torch.zeros(WORDS, words.shape[1]).scatter_add(0, words, torch.ones(words.shape))
        with pyro.plate("documents", words.shape[1]):
            pyro.sample("doc_topics", dist.Dirichlet(network(counts.t()).exp() + 0.1))

    return model, guide, (words,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("enum", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")

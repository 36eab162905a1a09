"""The child process of numpyro_process.py: reads a case, then answers each line of JSON with a line of JSON.

It needs numpyro and optax, not torch. Model, guide, batch size, precision and optimiser are the same as in the other
variants. The loss is read after every step, as in the others.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO


def affine(name, x, inputs, outputs):
    """x W + b with Glorot's weights."""
    bound = (6 / (inputs + outputs)) ** 0.5
    weight = numpyro.param(
        f"{name}.weight", lambda key: jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound)
    )
    return x @ weight + numpyro.param(f"{name}.bias", jnp.zeros(outputs))


def network(name, x, inputs, hidden, outputs):
    """One hidden layer of tanh, or none."""
    if hidden is None:
        return affine(name, x, inputs, outputs)
    return affine(f"{name}.2", jnp.tanh(affine(f"{name}.1", x, inputs, hidden)), hidden, outputs)


def latent(case, raw=None):
    """q(z | x) from the encoder's output, or the prior."""
    size = case["latents"]
    if case["latent"] == "bernoulli":
        return dist.Bernoulli(logits=jnp.zeros(size) if raw is None else raw).to_event(1)
    if raw is None:
        return dist.Normal(jnp.zeros(size), 1.0).to_event(1)
    return dist.Normal(raw[..., :size], jax.nn.softplus(raw[..., size:]) + 1e-6).to_event(1)


def programs(case):
    """Model, guide, objective."""
    size, hidden, latents = case["data_size"], case["hidden"], case["latents"]
    binary = case["latent"] == "bernoulli"

    def model(x):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", latent(case))
            raw = network("decoder", 2 * z - 1 if binary else z, latents, hidden, size)
            numpyro.sample("x", dist.Bernoulli(logits=raw).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", x.shape[0]):
            raw = network("encoder", x - 0.5, size, hidden, latents if binary else 2 * latents)
            numpyro.sample("z", latent(case, raw))

    # Trace_ELBO gives a discrete latent's guide no gradient in NumPyro.
    elbo = TraceGraph_ELBO(num_particles=case["evaluations"]) if binary else Trace_ELBO()
    return model, guide, elbo


def main():
    """Build the step of the case in the first line, then answer until the input ends."""
    case = json.loads(sys.stdin.readline())
    clock = time.process_time if case["cpu_time"] else time.perf_counter
    model, guide, elbo = programs(case)
    shape = (case["batch"], case["data_size"])
    x = jnp.asarray((np.random.default_rng(0).random(shape) < 0.15).astype("float32"))
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), elbo)
    state = svi.init(jax.random.PRNGKey(0), x)
    update = jax.jit(svi.update, donate_argnums=0)
    start = time.perf_counter()
    for _ in range(5):
        state, loss = update(state, x)
    loss.block_until_ready()
    print(json.dumps({"build": time.perf_counter() - start}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "memory" in question:
            status = Path("/proc/self/status").read_text()  # getrusage would include the parent's peak
            print(json.dumps({"megabytes": int(status.split("VmHWM:")[1].split()[0]) / 1024}), flush=True)
            continue
        count, start = 0, clock()
        while (elapsed := clock() - start) < question["seconds"] or count == 0:
            state, loss = update(state, x)
            float(loss)
            count += 1
        print(json.dumps({"step": elapsed / count}), flush=True)


if __name__ == "__main__":
    main()

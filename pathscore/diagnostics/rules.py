"""The thresholds of every verdict and the words for each outcome, in one table.

`RULES[name] -> Rule`. To change a threshold, change it here: the page, the numbers file and the documentation read
this table. Nats are per data point.
"""

from pathscore.diagnostics.rule import Rule

REWEIGHT = (
    "Use the importance weights in posterior.nc (sample_stats/log_weight) for expectations; train longer, use a wider "
    "or structured guide (--guide, --hidden), or an importance-weighted objective (--elbo iwae)."
)
PRIOR_DRAWS = (
    "A guide trained on data sees little of what the model draws from its prior: compare the aggregate posterior with "
    "the prior first. If they agree, the guide's family or its training is at fault."
)

RULES: dict[str, Rule] = {
    "gap": Rule(
        title="Gap between log p(x) and ELBO",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the posterior: the ELBO is nearly log p(x).",
        watch="The guide differs visibly from the posterior; point estimates are usable, spreads may not be.",
        bad="The guide is far from the posterior on a typical data point.",
        try_next=REWEIGHT,
    ),
    "exact_kl": Rule(
        title="Exact KL(q ‖ posterior), without sampling",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the exact posterior.",
        watch="The guide differs visibly from the exact posterior.",
        bad="The guide is far from the exact posterior.",
        try_next=REWEIGHT,
        try_if_bad="Use the exact posterior, which is known here; with discrete latents, train with --elbo enum.",
    ),
    "relative_ess": Rule(
        title="Relative effective sample size (median)",
        form="{:.2f}",
        limits=(0.5, 0.1),
        good="Most draws of the guide count fully: it can be used as it is.",
        watch="Draws count unequally: reweight them before taking expectations.",
        bad="Few draws carry almost all the weight: even reweighted estimates are noisy.",
        try_next=REWEIGHT,
        try_if_bad="Ask for more draws (--draws), look at the gap above, prefer a longer importance run or NUTS.",
        rising=False,
    ),
    "khat": Rule(
        title="Data points whose Pareto k-hat is too large",
        form="{:.1%}",
        limits=(0.05, 0.25),
        good="The importance estimates can be trusted on nearly all data points.",
        watch="On some data points the importance estimate must not be trusted (the KL may still be small).",
        bad="On many data points the importance estimate must not be trusted (the KL may still be small).",
        try_next="Draw more (--draws): the threshold rises with the number of draws.",
        try_if_bad="The guide's tails are lighter than the posterior's: widen it, or train with --elbo iwae.",
    ),
    "joint_gap": Rule(
        title="Gap between log p(data) and ELBO, the whole data set",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the joint posterior: the ELBO is nearly log p(data).",
        watch="The guide differs visibly from the joint posterior; point estimates are usable, spreads may not be.",
        bad="The guide is far from the joint posterior.",
        try_next="A guide with dependence between latents (AutoMultivariateNormal in place of AutoNormal), longer "
        "training, or expectations reweighted by sample_stats/log_weight.",
    ),
    "joint_ess": Rule(
        title="Relative effective sample size of the joint weights",
        form="{:.2f}",
        limits=(0.5, 0.1),
        good="Most draws of the guide count fully: it can be used as it is.",
        watch="Draws count unequally: reweight them before taking expectations.",
        bad="Few draws carry almost all the weight: even reweighted estimates are noisy.",
        try_next=REWEIGHT,
        rising=False,
    ),
    "joint_khat": Rule(
        title="Pareto k-hat of the joint weights",
        form="{:.2f}",
        limits=(0.5, 0.7),
        good="The importance estimates can be trusted.",
        watch="The importance estimates converge slowly.",
        bad="The importance estimates must not be trusted (the KL may still be small).",
        try_next="Draw more (draws=): the estimate becomes stable where k-hat is below 0.7.",
        try_if_bad="The guide's tails are lighter than the posterior's: widen it, or compare with NUTS.",
    ),
    "ranks": Rule(
        title="Calibration of ranks, simulated data",
        form="{:.3f} from uniform",
        limits=(0.0, 0.1),
        good="On data of the model itself, true latents fall anywhere among the guide's draws equally often.",
        watch="On data of the model itself, true latents fall in parts of the guide too often: detectable, small.",
        bad="On data of the model itself, the ranks of the true latents are not uniform.",
        try_next=PRIOR_DRAWS,
    ),
    "coverage": Rule(
        title="Coverage of central intervals, largest error",
        form="{:.1%}",
        limits=(0.0, 0.1),
        good="The guide's central intervals hold the true latents as often as they say.",
        watch="The guide's central intervals are off by a detectable but small amount.",
        bad="The guide's central intervals are wrong: don't quote them as credible intervals.",
        try_next="Quote the observed coverage beside the nominal one.",
        try_if_bad="Quote the observed coverage instead, or reweight the draws.",
    ),
    "amortisation": Rule(
        title="Amortisation gap",
        form="{:.2f} nat",
        limits=(0.2, 2.0),
        good="The encoder finds nearly the best parameters for each data point.",
        watch="Optimising the guide for a single data point still helps.",
        bad="The encoder is the weak part: optimising the guide for a single data point helps much.",
        try_next="Train longer, give the encoder more units (--hidden), check for overfitting on the training set.",
    ),
    "approximation": Rule(
        title="Approximation gap",
        form="{:.2f} nat",
        limits=(0.2, 2.0),
        good="The guide's family fits the posterior once its parameters are right.",
        watch="Part of the gap is the guide's family: none of its members fits the posterior.",
        bad="The guide's family can't fit the posterior.",
        try_next="A guide with dependence between latents, more layers (--layers), or an importance-weighted objective "
        "(--elbo iwae).",
    ),
    "chains": Rule(
        title="Guide against NUTS chains, largest difference of a mean",
        form="{:.2f} posterior sd",
        limits=(0.5, 1.0),
        good="On these data points the guide's means agree with the chains.",
        watch="On these data points some means of the guide are off.",
        bad="On these data points some means of the guide are far off, or the posterior has modes that it misses.",
        try_next=REWEIGHT,
    ),
    "rate": Rule(
        title="Information in the latents (rate)",
        form="{:.2f} nat",
        limits=(0.5, 0.1),
        good="The latents carry information about the data.",
        watch="The latents carry very little information.",
        bad="The latents carry no information: posterior collapse.",
        try_next="Warm up the KL (--kl-warmup) or train longer.",
        try_if_bad="Warm up the KL (--kl-warmup), weaken the decoder, or use a lower-variance estimator.",
        rising=False,
        about="model",
    ),
    "active": Rule(
        title="Active latent units",
        form="{:.0%}",
        limits=(0.5, 0.1),
        good="Most units carry information about the data.",
        watch="Many units are unused; the model pays nothing for them, and gains nothing.",
        bad="Posterior collapse: the decoder works almost without its latents.",
        try_next="A smaller latent layer would do (--layers), or warm up the KL (--kl-warmup).",
        try_if_bad="Warm up the KL (--kl-warmup), weaken the decoder, lower the learning rate, or use a lower-variance "
        "estimator for discrete latents.",
        rising=False,
        about="model",
    ),
    "aggregate": Rule(
        title="Aggregate posterior against prior",
        form="{:.2f} nat",
        limits=(1.0, 5.0),
        good="Unit by unit, latents of real data look like draws from the prior.",
        watch="Latents of real data fill only part of the prior: some samples will not look like data.",
        bad="The prior has large regions that no data point uses: samples from there are untrained.",
        try_next="Learn the prior (--prior learned), or lower the rate (--kl-weight).",
        about="model",
    ),
    "counts": Rule(
        title="Samples of the model against held-out data",
        form="{:.3f} from uniform",
        limits=(0.0, 0.1),
        good="A summary of each data point is distributed among samples of the model as it should be.",
        watch="Samples of the model differ from held-out data in a summary of each data point: detectable, small.",
        bad="Samples of the model clearly differ from held-out data in a summary of each data point.",
        try_next="Compare the rootogram; learn the prior (--prior learned) or train longer.",
        about="model",
    ),
    "pixels": Rule(
        title="Reliability of pixel probabilities",
        form="{:.3f}",
        limits=(0.02, 0.05),
        good="Pixel probabilities mean the same for held-out data as for data of the model itself.",
        watch="Pixel probabilities are somewhat too bold or too timid for held-out data.",
        bad="Pixel probabilities are much too bold or too timid for held-out data.",
        try_next="A held-out curve flatter than the model's is overfitting: stop earlier or use a smaller decoder. A "
        "steeper one says that there was more to learn: train longer.",
        about="model",
    ),
}

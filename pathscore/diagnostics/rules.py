"""The thresholds of every verdict and the wording of each outcome, in one table.

`RULES[name] -> Rule`. To change a threshold, change it here: the page and diagnostics.json read this table, and a test
compares the documentation with it. Nats are per data point.
"""

from pathscore.diagnostics.rule import Rule

REWEIGHT = (
    "Use the importance weights in posterior.nc (sample_stats/log_weight) for expectations; train longer, use a wider "
    "or structured guide (--guide, --hidden), or an importance-weighted objective (--elbo iwae)."
)
PRIOR_DRAWS = (
    "Compare the aggregate posterior with the prior first: a guide trained on real data may not have seen data like "
    "those that the model simulates. If the two agree, the guide's family or its training is the cause."
)

RULES: dict[str, Rule] = {
    "gap": Rule(
        title="Gap between log p(x) and ELBO",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the posterior: the ELBO is nearly log p(x).",
        watch="The guide differs from the posterior: its means are usable, its standard deviations may not be.",
        bad="The guide is far from the posterior for a typical data point.",
        try_next=REWEIGHT,
    ),
    "exact_kl": Rule(
        title="Exact KL(q ‖ posterior), without sampling",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the exact posterior.",
        watch="The guide differs from the exact posterior.",
        bad="The guide is far from the exact posterior.",
        try_next=REWEIGHT,
        try_if_bad="Use the exact posterior, which is known here; with discrete latents, train with --elbo enum.",
    ),
    "relative_ess": Rule(
        title="Relative effective sample size (median)",
        form="{:.2f}",
        limits=(0.5, 0.1),
        good="Most draws of the guide have similar weights: the guide can be used as it is.",
        watch="The draws have unequal weights: reweight them before taking expectations.",
        bad="A few draws have almost all the weight: even reweighted estimates are noisy.",
        try_next=REWEIGHT,
        try_if_bad="Use more draws (--draws), look at the gap above, or use NUTS.",
        rising=False,
    ),
    "khat": Rule(
        title="Data points whose Pareto k-hat is too large",
        form="{:.1%}",
        limits=(0.05, 0.25),
        good="The importance-sampling estimates are reliable for nearly all data points.",
        watch="For some data points the importance-sampling estimate is not reliable (the KL may still be small).",
        bad="For many data points the importance-sampling estimate is not reliable (the KL may still be small).",
        try_next="Use more draws (--draws): the threshold for k-hat rises with the number of draws.",
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
        good="On data simulated from the model, the ranks of the true latents among the guide's draws are uniform.",
        watch="On data simulated from the model, the ranks of the true latents are not uniform; the deviation is "
        "significant but small.",
        bad="On data simulated from the model, the ranks of the true latents are far from uniform.",
        try_next=PRIOR_DRAWS,
    ),
    "coverage": Rule(
        title="Coverage of central intervals, largest error",
        form="{:.1%}",
        limits=(0.0, 0.1),
        good="The guide's central intervals contain the true latents as often as they should.",
        watch="The coverage of the guide's central intervals is wrong by a significant but small amount.",
        bad="The coverage of the guide's central intervals is wrong: do not report them as credible intervals.",
        try_next="Report the observed coverage beside the nominal one.",
        try_if_bad="Report the observed coverage instead, or reweight the draws.",
    ),
    "amortisation": Rule(
        title="Amortisation gap",
        form="{:.2f} nat",
        limits=(0.2, 2.0),
        good="The encoder finds nearly the best variational parameters for each data point.",
        watch="Optimising the variational parameters of a single data point still improves its ELBO.",
        bad="Optimising the variational parameters of a single data point improves its ELBO much: the encoder is weak.",
        try_next="Train longer, give the encoder more units (--hidden), check for overfitting on the training set.",
    ),
    "approximation": Rule(
        title="Approximation gap",
        form="{:.2f} nat",
        limits=(0.2, 2.0),
        good="The guide's family can represent the posterior well.",
        watch="Part of the gap comes from the guide's family: no member of it fits the posterior.",
        bad="The guide's family cannot represent the posterior.",
        try_next="A guide with dependence between latents, more layers (--layers), or an importance-weighted objective "
        "(--elbo iwae).",
    ),
    "chains": Rule(
        title="Guide against NUTS chains, largest difference of a mean",
        form="{:.2f} posterior sd",
        limits=(0.5, 1.0),
        good="The guide's means agree with the NUTS chains on these data points.",
        watch="Some means of the guide differ from the NUTS chains on these data points.",
        bad="Some means of the guide are far from the NUTS chains on these data points, or it misses modes of the "
        "posterior.",
        try_next=REWEIGHT,
    ),
    "rate": Rule(
        title="Information in the latents (rate)",
        form="{:.2f} nat",
        limits=(0.5, 0.1),
        good="The latents contain information about the data.",
        watch="The latents contain very little information about the data.",
        bad="The latents contain almost no information about the data: posterior collapse.",
        try_next="Warm up the KL (--kl-warmup) or train longer.",
        try_if_bad="Warm up the KL (--kl-warmup), weaken the decoder, or use a lower-variance estimator.",
        rising=False,
        about="model",
    ),
    "active": Rule(
        title="Active latent units",
        form="{:.0%}",
        limits=(0.5, 0.1),
        good="Most units contain information about the data.",
        watch="Many units are not used. They neither improve nor worsen the ELBO.",
        bad="Posterior collapse: the decoder hardly uses the latents.",
        try_next="Use a smaller latent layer (--layers), or warm up the KL (--kl-warmup).",
        try_if_bad="Warm up the KL (--kl-warmup), weaken the decoder, lower the learning rate, or use a lower-variance "
        "estimator for discrete latents.",
        rising=False,
        about="model",
    ),
    "aggregate": Rule(
        title="Aggregate posterior against prior",
        form="{:.2f} nat",
        limits=(1.0, 5.0),
        good="Unit by unit, the latents of real data are distributed nearly as in the prior.",
        watch="The latents of real data cover only part of the prior: some samples will not look like data.",
        bad="No data point uses large regions of the prior: samples from there will not look like data.",
        try_next="Learn the prior (--prior learned), or lower the rate (--kl-weight).",
        about="model",
    ),
    "counts": Rule(
        title="Samples of the model against held-out data",
        form="{:.3f} from uniform",
        limits=(0.0, 0.1),
        good="In a summary of each data point, held-out data agree with samples of the model.",
        watch="In a summary of each data point, held-out data differ from samples of the model by a significant but "
        "small amount.",
        bad="In a summary of each data point, held-out data differ clearly from samples of the model.",
        try_next="Compare the rootogram; learn the prior (--prior learned) or train longer.",
        about="model",
    ),
    "pixels": Rule(
        title="Reliability of pixel probabilities",
        form="{:.3f}",
        limits=(0.02, 0.05),
        good="Pixel probabilities are as reliable for held-out data as for data simulated from the model.",
        watch="Pixel probabilities are somewhat too extreme, or too close to ½, for held-out data.",
        bad="Pixel probabilities are much too extreme, or too close to ½, for held-out data.",
        try_next="A held-out curve flatter than the model's means overfitting: stop earlier or use a smaller decoder. "
        "A steeper curve means underfitting: train longer.",
        about="model",
    ),
}

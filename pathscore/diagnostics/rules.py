"""The thresholds of every verdict and the wording of each outcome, in one table.

`RULES[name] -> Rule`. To change a threshold, change it here: the page and diagnostics.json read this table, and a test
compares the documentation with it. Nats are per data point.
"""

from pathscore.diagnostics.rule import Rule

REWEIGHT = (
    "Take expectations with the importance weights of the draws; train longer; use a wider or structured guide, or an "
    "importance-weighted objective."
)
REWEIGHT_FLAGS = "sample_stats/log_weight in posterior.nc; --hidden; --guide; --elbo iwae"
REWEIGHT_PYTHON = "to_arviz(…)['sample_stats']['log_weight']; make_elbo('iwae')"
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
        bad="The guide is far from the posterior.",
        try_next=REWEIGHT,
        flags=REWEIGHT_FLAGS,
        python=REWEIGHT_PYTHON,
    ),
    "exact_kl": Rule(
        title="Exact KL(q ‖ posterior), without sampling",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the exact posterior.",
        watch="The guide differs from the exact posterior.",
        bad="The guide is far from the exact posterior.",
        try_next=REWEIGHT,
        try_if_bad="Use the exact posterior, which is known here; with discrete latents, sum them out in training.",
        flags="--elbo enum",
        python="make_elbo('enum')",
    ),
    "relative_ess": Rule(
        title="Relative effective sample size (median)",
        form="{:.2f}",
        limits=(0.5, 0.1),
        good="Most draws of the guide have similar weights: few of them are lost by reweighting.",
        watch="The draws have unequal weights: reweight them before taking expectations.",
        bad="A few draws have almost all the weight: even reweighted estimates are noisy.",
        try_next=REWEIGHT,
        try_if_bad="Use more draws, look at the gap above, or use NUTS.",
        flags=f"--draws; {REWEIGHT_FLAGS}",
        python=f"effort=Effort(draws=2000); {REWEIGHT_PYTHON}",
        rising=False,
    ),
    "khat": Rule(
        title="Data points whose Pareto k-hat is too large",
        form="{:.1%}",
        limits=(0.05, 0.25),
        good="The importance-sampling estimates are reliable for nearly all data points.",
        watch="For some data points the importance-sampling estimate is not reliable (the KL may still be small).",
        bad="For many data points the importance-sampling estimate is not reliable (the KL may still be small).",
        try_next="Use more draws: the threshold for k-hat rises with the number of draws.",
        try_if_bad="The guide's tails are lighter than the posterior's: widen it, or train with an importance-weighted "
        "objective.",
        flags="--draws; --elbo iwae",
        python="effort=Effort(draws=2000); make_elbo('iwae')",
    ),
    "joint_gap": Rule(
        title="Gap between log p(data) and ELBO, the whole data set",
        form="{:.2f} nat",
        limits=(0.1, 1.0),
        good="The guide is close to the joint posterior: the ELBO is nearly log p(data).",
        watch="The guide differs from the joint posterior: its means are usable, its standard deviations may not be.",
        bad="The guide is far from the joint posterior.",
        try_next="A guide with dependence between latents, longer training, or expectations with the importance "
        "weights of the draws.",
        python="a full covariance, as in AutoMultivariateNormal; to_arviz(…)['sample_stats']['log_weight']",
    ),
    "joint_ess": Rule(
        title="Relative effective sample size of the joint weights",
        form="{:.2f}",
        limits=(0.5, 0.1),
        good="Most draws of the guide have similar weights: few of them are lost by reweighting.",
        watch="The draws have unequal weights: reweight them before taking expectations.",
        bad="A few draws have almost all the weight: even reweighted estimates are noisy.",
        try_next=REWEIGHT,
        flags=REWEIGHT_FLAGS,
        python=REWEIGHT_PYTHON,
        rising=False,
    ),
    "joint_khat": Rule(
        title="Pareto k-hat of the joint weights",
        form="{:.2f}",
        limits=(0.5, 0.7),
        good="The importance-sampling estimates are reliable.",
        watch="The importance-sampling estimates converge slowly.",
        bad="The importance-sampling estimates are not reliable (the KL may still be small).",
        try_next="Use more draws: the estimate is stable where k-hat is below 0.7.",
        try_if_bad="The guide's tails are lighter than the posterior's: widen it, or compare with NUTS.",
        flags="--draws",
        python="effort=Effort(draws=2000)",
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
        good="The guide finds nearly the best variational parameters for each data point.",
        watch="Optimising the variational parameters of a single data point still improves its ELBO.",
        bad="Optimising the variational parameters of a single data point improves its ELBO much: the guide's network "
        "is weak.",
        try_next="Train longer, give the guide's network more units, check for overfitting on the training set.",
        flags="--epochs; --hidden",
    ),
    "approximation": Rule(
        title="Approximation gap",
        form="{:.2f} nat",
        limits=(0.2, 2.0),
        good="The guide's family can represent the posterior well.",
        watch="Part of the gap comes from the guide's family: no member of it fits the posterior.",
        bad="The guide's family cannot represent the posterior.",
        try_next="A guide with dependence between latents, more layers, or an importance-weighted objective.",
        flags="--guide; --layers; --elbo iwae",
        python="make_elbo('iwae')",
    ),
    "chains": Rule(
        title="Guide against NUTS chains, largest difference of a mean",
        form="{:.2f} posterior sd",
        limits=(0.5, 1.0),
        good="No mean of the guide is significantly further from the NUTS chains than the threshold.",
        watch="Some means of the guide differ from the NUTS chains.",
        bad="Some means of the guide are far from the NUTS chains, or it misses modes of the posterior.",
        try_next=REWEIGHT,
        flags=REWEIGHT_FLAGS,
        python=REWEIGHT_PYTHON,
    ),
    "rate": Rule(
        title="Information in the latents (rate)",
        form="{:.2f} nat",
        limits=(0.5, 0.1),
        good="The latents contain information about the data.",
        watch="The latents contain very little information about the data.",
        bad="The latents contain almost no information about the data: posterior collapse.",
        try_next="Warm up the KL, or train longer.",
        try_if_bad="Warm up the KL, use a less flexible likelihood, or an estimator with a lower variance.",
        flags="--kl-warmup; --epochs; --estimator",
        python="kl_weighted(program, weight); measure(model, guide, x)",
        rising=False,
        about="model",
    ),
    "active": Rule(
        title="Active latent units",
        form="{:.0%}",
        limits=(0.5, 0.1),
        good="At least half of the units of every layer contain information about the data.",
        watch="Many units are not used. They neither improve nor worsen the ELBO.",
        bad="Posterior collapse: a layer is hardly used.",
        try_next="Use a smaller latent layer, or warm up the KL.",
        try_if_bad="Remove the layer, warm up the KL, use a less flexible likelihood, lower the learning rate, or use "
        "an estimator with a lower variance for discrete latents.",
        flags="--layers; --kl-warmup; --lr; --estimator",
        python="kl_weighted(program, weight); measure(model, guide, x)",
        rising=False,
        about="model",
    ),
    "aggregate": Rule(
        title="Aggregate posterior against prior",
        form="{:.2f} nat",
        limits=(0.3, 5.0),
        good="Unit by unit, the latents of real data are distributed nearly as in the prior.",
        watch="The latents of real data cover only part of the prior: some samples will not look like data.",
        bad="No data point uses large regions of the prior: samples from there will not look like data.",
        try_next="Learn the parameters of the prior, or give the KL a smaller weight.",
        flags="--prior learned; --kl-weight",
        python="kl_weighted(program, weight)",
        about="model",
    ),
    "counts": Rule(
        title="Samples of the model against the data",
        form="{:.3f} from uniform",
        limits=(0.0, 0.1),
        good="In a summary of each data point, the data agree with samples of the model.",
        watch="In a summary of each data point, the data differ from samples of the model by a significant but small "
        "amount.",
        bad="In a summary of each data point, the data differ clearly from samples of the model.",
        try_next="Compare the rootogram; learn the parameters of the prior, or train longer.",
        flags="--prior learned; --epochs",
        about="model",
    ),
    "ppc": Rule(
        title="Posterior predictive check, summaries of the whole data set",
        form="{:.1f} predictive sd",
        limits=(3.0, 6.0),
        good="Summaries of the data agree with data simulated from the fitted model.",
        watch="A summary of the data differs from data simulated from the fitted model.",
        bad="A summary of the data is far from data simulated from the fitted model.",
        try_next="Look at which summary differs: a standard deviation asks for another likelihood, an extreme for "
        "heavier tails.",
        about="model",
    ),
    "loo": Rule(
        title="Observations whose PSIS-LOO k-hat is too large",
        form="{:.1%}",
        limits=(0.05, 0.25),
        good="The leave-one-out estimate is reliable for nearly all observations.",
        watch="For some observations the leave-one-out estimate is not reliable: the posterior depends on them.",
        bad="For many observations the leave-one-out estimate is not reliable.",
        try_next="Look at these observations; fit the model again without them, or use K-fold cross-validation.",
        about="model",
    ),
    "reliability": Rule(
        title="Reliability of predicted probabilities",
        form="{:.3f}",
        limits=(0.02, 0.05),
        good="Predicted probabilities are as reliable for the data as for data simulated from the model.",
        watch="Predicted probabilities of the data are somewhat too extreme, or too close to ½.",
        bad="Predicted probabilities of the data are much too extreme, or too close to ½.",
        try_next="A curve flatter than that of simulated data means overfitting: stop earlier or use a less flexible "
        "likelihood. A steeper curve means underfitting: train longer.",
        flags="--epochs; --hidden",
        about="model",
    ),
}

"""Other names of estimators in the literature: `ALIASES`, name → ours. They are accepted like the names themselves.

reinforce, reparam, gumbel-softmax, straight-through: common names of the same estimators.
vargrad: the gradient of half the sample variance of log q − log p at draws of q (Richter, Boustati, Nüsken, Ruiz,
    Akyildiz, 2020) is leave-one-out.
zgr: the limit of the Rao-Blackwellised straight-through Gumbel at temperature 0 (Shekhovtsov, 2023) is ReinMax.
u2g: the U-statistic form for pairs of bits (Yin, Ho, Yan, Qian, Zhou, 2020) is DiSARM.
"""

ALIASES = {
    "reparam": "pathwise",
    "reinforce": "score",
    "gumbel-softmax": "gumbel",
    "straight-through": "st",
    "vargrad": "rloo",
    "zgr": "reinmax",
    "u2g": "disarm",
}

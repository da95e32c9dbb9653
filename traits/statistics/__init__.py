"""Statistics whose unit is a prompt or a pair: ranks, effects, bootstrap and permutation."""

from traits.statistics.bootstrap import cluster_bootstrap
from traits.statistics.effects import benjamini_hochberg, effect_size, paired_effect
from traits.statistics.kinds import over_kinds, stages
from traits.statistics.permutation import against_null, max_statistic, sign_flip
from traits.statistics.proportions import wilson
from traits.statistics.ranks import auroc, paired_auroc, rank_auroc, rank_differences

__all__ = [
    "against_null",
    "auroc",
    "benjamini_hochberg",
    "cluster_bootstrap",
    "effect_size",
    "max_statistic",
    "over_kinds",
    "paired_auroc",
    "paired_effect",
    "rank_auroc",
    "rank_differences",
    "sign_flip",
    "stages",
    "wilson",
]

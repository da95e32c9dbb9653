from traits.contrast import ContrastSet, available, load_contrast
from traits.evaluate import held_out_auroc
from traits.extract import METHODS, Method, extract
from traits.pairs import pairs, split_pairs
from traits.project import as_cosine, in_clean_deviations, project
from traits.statistics import auroc

__all__ = [
    "METHODS",
    "ContrastSet",
    "Method",
    "as_cosine",
    "auroc",
    "available",
    "extract",
    "held_out_auroc",
    "in_clean_deviations",
    "load_contrast",
    "pairs",
    "project",
    "split_pairs",
]

from traits import nulls, statistics
from traits.contrast import ContrastSet, available, load_contrast
from traits.elicit import elicit, window_traces
from traits.evaluate import evaluate, held_out_auroc
from traits.extract import extract
from traits.gradient import gradient
from traits.methods import METHODS, Method
from traits.pairs import pairs, select_part, split_pairs
from traits.project import as_cosine, in_clean_deviations, project
from traits.report import passed, summary
from traits.statistics import auroc
from traits.transfer import agreement, transfer

__all__ = [
    "METHODS",
    "ContrastSet",
    "Method",
    "agreement",
    "as_cosine",
    "auroc",
    "available",
    "elicit",
    "evaluate",
    "extract",
    "gradient",
    "held_out_auroc",
    "in_clean_deviations",
    "load_contrast",
    "nulls",
    "pairs",
    "passed",
    "project",
    "select_part",
    "split_pairs",
    "statistics",
    "summary",
    "transfer",
    "window_traces",
]

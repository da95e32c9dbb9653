from traits import statistics
from traits.contrast_sets.contrast import ContrastSet, available, load_contrast
from traits.contrast_sets.elicitation import elicit, window_traces
from traits.contrast_sets.linting import lint
from traits.statistics import auroc
from traits.vectors import nulls
from traits.vectors.evaluation import evaluate, held_out_auroc
from traits.vectors.extraction import extract
from traits.vectors.methods import METHODS, Method
from traits.vectors.pairing import pairs, select_part, split_pairs
from traits.vectors.portability import agreement, transfer
from traits.vectors.projection import as_cosine, in_clean_deviations, project
from traits.vectors.self_report import gradient
from traits.vectors.summary_table import passed, summary

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
    "lint",
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

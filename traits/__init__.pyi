from traits import statistics
from traits.contrast_sets.chat_linting import lint_chats
from traits.contrast_sets.chats import ChatPair, ChatSet, has_chats, load_chats
from traits.contrast_sets.contrast import ContrastSet, available, constructions, load_contrast
from traits.contrast_sets.elicitation import chat_traces, elicit, window_traces
from traits.contrast_sets.linting import lint
from traits.contrast_sets.pair_files import read_pairs
from traits.probes.calibration import calibrate, probability
from traits.probes.elsewhere import portability
from traits.probes.fit import fit
from traits.probes.interchange.pipelines import from_sklearn, to_sklearn
from traits.probes.interchange.probe_files import read_probe, write_probe
from traits.probes.interchange.score_tables import scores_table
from traits.probes.judging.evaluating import evaluate_probe
from traits.probes.judging.learning import learning_curve
from traits.probes.judging.null_fits import probe_nulls
from traits.probes.judging.transferring import transfer_matrix
from traits.probes.scoring import score, token_scores
from traits.probes.threshold import set_threshold
from traits.statistics import auroc
from traits.vectors import nulls
from traits.vectors.evaluation import evaluate, held_out_auroc
from traits.vectors.extraction import extract
from traits.vectors.joint_selection import Parts, evaluate_jointly
from traits.vectors.methods import METHODS, Method
from traits.vectors.nulls import random_directions
from traits.vectors.pairing import pairs, select_part, split_pairs
from traits.vectors.portability import agreement, transfer
from traits.vectors.projection import as_cosine, in_clean_deviations, project
from traits.vectors.self_report import gradient
from traits.vectors.sharing import pull_vectors, push_vectors, vectors_folder
from traits.vectors.specificity import orthogonal, specificity
from traits.vectors.summary_table import passed, summary

__all__ = [
    "METHODS",
    "ChatPair",
    "ChatSet",
    "ContrastSet",
    "Method",
    "Parts",
    "agreement",
    "as_cosine",
    "auroc",
    "available",
    "calibrate",
    "chat_traces",
    "constructions",
    "elicit",
    "evaluate",
    "evaluate_jointly",
    "evaluate_probe",
    "extract",
    "fit",
    "from_sklearn",
    "gradient",
    "has_chats",
    "held_out_auroc",
    "in_clean_deviations",
    "learning_curve",
    "lint",
    "lint_chats",
    "load_chats",
    "load_contrast",
    "nulls",
    "orthogonal",
    "pairs",
    "passed",
    "portability",
    "probability",
    "probe_nulls",
    "project",
    "pull_vectors",
    "push_vectors",
    "random_directions",
    "read_pairs",
    "read_probe",
    "score",
    "scores_table",
    "select_part",
    "set_threshold",
    "specificity",
    "split_pairs",
    "statistics",
    "summary",
    "to_sklearn",
    "token_scores",
    "transfer",
    "transfer_matrix",
    "vectors_folder",
    "window_traces",
    "write_probe",
]

"""Strong spans whose wordings differ, joined by what the model makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.cluster.hierarchy import fcluster, linkage

import tracekit as tk
from experiments.audit.discovery.answering.products import Products
from experiments.audit.discovery.suggestions.candidates import Candidate, Texts, candidate_of
from experiments.audit.discovery.suggestions.detectors import SAYS
from experiments.audit.discovery.suggestions.sentences import Span, spans, strongest
from experiments.audit.discovery.suggestions.terms import Phrase, table
from tracekit import Model
from tracekit.storage.identity import digest

MOST_SPANS, LEAST_SPANS = 64, 3
# average-linkage clusters are cut at this cosine distance
CUT = 0.7


def alike(
    model: Model, products: Products, texts: Texts, found: Sequence[Candidate]
) -> list[Candidate]:
    """Candidates of sentences that gain much, that no candidate accounts for, and that are alike.

    Alike by the mean residual of a middle block over the sentence, less the mean over all of
    them; the phrases are those that the sentences of a cluster have and the rest does not.
    """
    said = [candidate.detector for candidate in found if candidate.detector.kind == SAYS]
    taken = {row for detector in said for row in detector.rows(texts.answers, texts.rows)}
    free = [s for s in spans(texts.answers) if s.row in set(texts.rows) - taken and s.gain > 0]
    chosen = strongest(free, MOST_SPANS)
    if len(chosen) < 2 * LEAST_SPANS:
        return []
    name = f"spans-{digest([span.text for span in chosen])[:10]}.nc"
    states = products.kept(name, lambda: _states(model, chosen)).values
    made = []
    for cluster in clusters(states):
        members = [chosen[n] for n in cluster]
        phrases = _phrases(members, texts)
        if phrases:
            score = sum(span.gain for span in members)
            made.append(candidate_of(phrases, score, texts))
    return made


def clusters(states: np.ndarray) -> list[list[int]]:
    """Rows of (span, dim) that lie alike, by cosine after centring: clusters of three or more.

    >>> clusters(np.repeat(np.eye(2), 3, axis=0))
    [[0, 1, 2], [3, 4, 5]]
    """
    centred = states - states.mean(0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    tree = linkage(centred / np.maximum(norms, 1e-12), "average", metric="euclidean")
    # between unit vectors the squared distance is twice the cosine distance
    labels = fcluster(tree, np.sqrt(2 * CUT), "distance")
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return [group for group in groups if len(group) >= LEAST_SPANS]


def _states(model: Model, chosen: Sequence[Span]) -> xr.DataArray:
    middle = model._module.config.get_text_config().num_hidden_layers // 2
    # the first token is massive: a full stop takes its place
    asked = [tk.Prompt(f"span/{n}", text=".") for n in range(len(chosen))]
    runs = tk.encode(model, asked, responses=[span.text for span in chosen], template="raw")
    means = tk.capture(
        model, runs, layers=[middle], tokens=slice(0, None), reduce="mean", progress=False
    )
    return means.isel(layer=0)


def _phrases(members: Sequence[Span], texts: Texts) -> list[Phrase]:
    rows = [span.row for span in members]
    terms = table(texts.answers, rows)
    outside = table(texts.answers, [row for row in texts.rows if row not in rows])
    share = {
        name: len(term.rows) / len(rows)
        - len(outside[name].rows if name in outside else ()) / len(texts.rows)
        for name, term in terms.items()
        if len(term.rows) >= 2
    }
    return sorted(share, key=lambda name: -share[name])[:12]

"""How strong an edit is, in units that compare: residual norms, and nats against the unedited."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import nnsight
import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from nnsight import TransformersModel

from tracekit.edits.directions import PROMPT_IDS
from tracekit.edits.positions import rows_of
from tracekit.errors import InputError
from tracekit.model import head as model_logits
from tracekit.model.load import model_provenance
from tracekit.passes import batching
from tracekit.passes.capture import capture
from tracekit.passes.labelling import wrap
from tracekit.storage.identity import digest
from tracekit.storage.provenance import read, stamp
from tracekit.transcripts import tensors
from tracekit.transcripts.encode import ids_hash, ids_of
from tracekit.transcripts.labels import refuse_taken

Edit = Callable[[float], TransformersModel]
Labels = Sequence[str] | np.ndarray | xr.DataArray
TOLERANCE, TRIES = 0.05, 16


def residual_norm(
    model: TransformersModel, transcripts: xr.Dataset, layers: int | Sequence[int] | None = None
) -> xr.DataArray:
    """The mean norm of the residual stream after each layer: (layer), in residual units.

    Over the last prompt token and the response, where steering acts by default; the mean of each
    row, then of rows. The first tokens, whose norms are massive, are left out that way. Multiples
    of it are coefficients that compare across layers and models.

    >>> half = 0.5 * residual_norm(model, runs, layers=[12])
    >>> strong = tk.steer(model, vector, coefficient=half)
    """
    acted_on = slice(-1, None)
    norms = capture(model, transcripts, layers, tokens=acted_on, reduce=_mean_norm, progress=False)
    mean = norms.isel(dim=0, drop=True).mean("prompt", keep_attrs=True)
    return mean.rename("residual_norm")


def divergence(
    model: TransformersModel,
    edited: TransformersModel,
    transcripts: xr.Dataset,
    *,
    token_budget: int | None = None,
) -> xr.DataArray:
    """KL(model ‖ edited) of the prediction of each response token: (prompt, token), in nats.

    Label t is the distribution that predicts token t, as in `logprobs`; NaN in holes and before
    the response. `.mean()` is what an edit does to neutral text, a token. The provenance is the
    model's, with that of the edited one as `edited`.

    Errors: `ValueError` for transcripts without responses.

    >>> divergence(model, tk.steer(model, vector, coefficient=8.0), runs).dims
    ('prompt', 'token')
    """
    budget = token_budget or batching.default_budget(model, parts=2)
    plan = _plan(transcripts, budget)
    # a batch at a time: the logits of all response tokens would outgrow the memory
    found = _against(edited, transcripts, plan, lambda p: _predictions(model, transcripts, [p]))
    array = wrap(found[:, :, None, None], transcripts, [0]).isel(layer=0, dim=0, drop=True)
    made_with = {
        **read(transcripts),
        **model_provenance(model),
        "edited": model_provenance(edited),
        "ids": ids_hash(transcripts),
        "batches": {"budget": budget, "plan": digest(plan)},
    }
    return stamp(array.rename("divergence"), made_with)


def calibrate(
    model: TransformersModel,
    edit: Edit,
    transcripts: xr.Dataset,
    *,
    budget: float,
    start: float = 1.0,
) -> float:
    """The coefficient at which an edit costs `budget` nats a token on neutral transcripts.

    `edit` makes an edited model of a coefficient above 0; the mean of `divergence` must rise with
    it. The answer is within 5 % of the budget. `start` is the first guess.

    Errors: `ValueError` for a budget that is not above 0, and for one that no coefficient meets.

    >>> mild = calibrate(
    ...     model, lambda c: tk.steer(model, vector, coefficient=c), runs, budget=0.1
    ... )
    >>> steered = tk.steer(model, vector, coefficient=mild)
    """
    if not (budget > 0 and start > 0):
        raise InputError(
            f"budget={budget} nats from start={start} was asked for; both are above 0."
        )
    plan = _plan(transcripts, batching.default_budget(model, parts=2))
    predictions = _predictions(model, transcripts, plan)
    low, high, guess, seen = 0.0, np.inf, start, []
    for _ in range(TRIES):
        cost = float(np.nanmean(_against(edit(guess), transcripts, plan, lambda _: predictions)))
        seen.append(f"{guess:.3g}: {cost:.3g}")
        if abs(cost / budget - 1) <= TOLERANCE:
            return guess
        low, high = (guess, high) if cost < budget else (low, guess)
        guess = _next(guess, cost / budget, low, high)
    raise InputError(
        f"No coefficient costs {budget} nats a token within {TRIES} tries (coefficient: nats) "
        f"{', '.join(seen)}. Ask for another budget, or give a start= nearer to it."
    )


def sweep(transcripts: xr.Dataset, coefficients: Sequence[float], **labels: Labels) -> xr.Dataset:
    """Every row once a coefficient, so that a sweep is one generation: rows `<id>@<k>`.

    The coordinate `coefficient` (prompt) is what `steer` takes; `group` still names the prompt.
    With `direction=[…]` (or another name) every row comes once a coefficient and label, which is
    a coordinate too: `steer` chooses each row's direction by it, of a vector with that dim.

    Errors: `ValueError` for no coefficients or labels, or one given twice.

    >>> asked = sweep(tk.encode(model, prompts), [-4.0, 4.0])
    >>> steered = tk.steer(model, vector, coefficient=asked.coefficient)
    >>> tk.generate(steered, asked, max_new_tokens=2).sizes["prompt"]
    6
    """
    tensors.require_transcripts(transcripts)
    values = np.asarray(coefficients, dtype=float)
    named = ((name, np.asarray(of).tolist()) for name, of in labels.items())
    choices = {"coefficient": values, **{n: np.array(list(map(str, of))) for n, of in named}}
    for name, of in choices.items():
        if len(of) == 0 or len(np.unique(of)) < len(of):
            raise InputError(
                f"A sweep over the {name}s {of.tolist()} was asked for; name each value once."
            )
    refuse_taken(transcripts.coords, (*choices, PROMPT_IDS), "A sweep")
    count, each = transcripts.sizes["prompt"], [len(of) for of in choices.values()]
    places = np.indices(each[::-1]).reshape(len(each), -1)[::-1]  # coefficients change first
    rows = transcripts.isel(prompt=np.tile(np.arange(count), places.shape[1]))
    # not as samples are named: a steered one would take the k-th sample for the k-th value
    names = [f"{name}@{k}" for k in range(places.shape[1]) for name in ids_of(transcripts)]
    swept = zip(choices.items(), places, strict=True)
    chosen = {name: ("prompt", np.repeat(of[place], count)) for (name, of), place in swept}
    hashes = ("prompt", tensors.prompt_hashes(rows))
    rows = rows.assign_coords({"prompt": names, **chosen, PROMPT_IDS: hashes})
    return stamp(rows, {**read(transcripts), "ids": ids_hash(rows)})


def _mean_norm(values: torch.Tensor) -> torch.Tensor:
    return values.norm(dim=-1).mean()[None]


def _plan(transcripts: xr.Dataset, budget: int) -> list[list[int]]:
    if not bool((transcripts.token_id.sel(token=slice(0, None)) >= 0).any()):
        raise InputError(
            "The transcripts have no response tokens to predict; pass responses to encode, or "
            "generate some first."
        )
    return batching.plan(tensors.lengths(transcripts).tolist(), budget)


def _predictions(
    model: TransformersModel, transcripts: xr.Dataset, plan: Sequence[Sequence[int]]
) -> dict[int, Float[torch.Tensor, "token id"]]:
    """By row, the logits that predict its response tokens, on the CPU."""
    logits: dict[int, torch.Tensor] = {}
    for rows, values in batching.over(plan, lambda rows: _logits(model, transcripts, rows)):
        logits.update(zip(rows, values, strict=True))
    return logits


def _logits(
    model: TransformersModel, transcripts: xr.Dataset, rows: list[int]
) -> list[torch.Tensor]:
    made = batching.batch(model, transcripts, rows)
    starts = made.starts.tolist()
    with torch.no_grad(), rows_of(model, made), model.trace(made.model_inputs):
        logits = model_logits.read(model)
        saved = nnsight.save([logits[n, start - 1 : -1] for n, start in enumerate(starts)])
    # copied on a CPU too: a view would keep the batch's whole logits
    return [logits.to("cpu", copy=True) for logits in saved]


def _against(
    edited: TransformersModel,
    transcripts: xr.Dataset,
    plan: Sequence[Sequence[int]],
    predict: Callable[[Sequence[int]], dict[int, torch.Tensor]],
) -> Float[np.ndarray, "prompt token"]:
    where = transcripts.token_id.transpose("prompt", "token").values >= 0
    where &= transcripts.token.values >= 0
    filled = np.full(where.shape, np.nan, np.float32)
    for rows in plan:
        predictions = predict(rows)
        for row, logits in _predictions(edited, transcripts, [rows]).items():
            filled[row, where[row]] = model_logits.divergence(predictions[row], logits).numpy()
    return filled


def _next(guess: float, ratio: float, low: float, high: float) -> float:
    # for small edits the divergence grows with the square of the coefficient
    wanted = guess * float(np.clip(max(ratio, 1e-12) ** -0.5, 1 / 16, 16))
    if low < wanted < high:
        return wanted
    return float(np.sqrt(low * high)) if low > 0 else high / 2

from nnsight import TransformersModel as Model

from tracekit.edits.by_function import edit
from tracekit.edits.conditions import when
from tracekit.edits.directions import per_prompt
from tracekit.edits.steering import ablate, clamp, patch, steer
from tracekit.errors import InputError
from tracekit.model.adapters.switch import adapter
from tracekit.model.checks.check import check
from tracekit.model.load import load
from tracekit.passes.capture import capture
from tracekit.passes.generating.generation import generate
from tracekit.passes.generating.stepwise import capture_during
from tracekit.passes.generating.strength import calibrate, divergence, residual_norm, sweep
from tracekit.passes.knockout import knock_out
from tracekit.passes.labelling import label
from tracekit.passes.patching.attribution import attribution_patching
from tracekit.passes.patching.sweep import activation_patching
from tracekit.passes.readouts.comparison import compare
from tracekit.passes.readouts.gradients import gradients
from tracekit.passes.readouts.lens import logit_lens, unembed
from tracekit.passes.readouts.logits import logprobs, next_tokens
from tracekit.passes.readouts.metrics import logit_difference
from tracekit.passes.readouts.scores import measure
from tracekit.passes.together import Request, capture_many
from tracekit.storage.difference import difference, norm
from tracekit.storage.portable import make_portable
from tracekit.storage.provenance import read as provenance
from tracekit.storage.provenance import stamp
from tracekit.storage.store import open, save
from tracekit.storage.vector_files.by_suffix import read_vectors, write_vectors
from tracekit.transcripts.encode import encode
from tracekit.transcripts.exporting.export_by_suffix import export
from tracekit.transcripts.find import find
from tracekit.transcripts.highest import highest
from tracekit.transcripts.pooling import Pooling, pool
from tracekit.transcripts.prompts import Prompt
from tracekit.transcripts.reading.joining import join
from tracekit.transcripts.reading.own_traces import traces
from tracekit.transcripts.reading.prompt_files import prompts, read_prompts
from tracekit.transcripts.tensors import inputs
from tracekit.viewer.view import View, view

__all__ = [
    "InputError",
    "Model",
    "Pooling",
    "Prompt",
    "Request",
    "View",
    "ablate",
    "activation_patching",
    "adapter",
    "attribution_patching",
    "calibrate",
    "capture",
    "capture_during",
    "capture_many",
    "check",
    "clamp",
    "compare",
    "difference",
    "divergence",
    "edit",
    "encode",
    "export",
    "find",
    "generate",
    "gradients",
    "highest",
    "inputs",
    "join",
    "knock_out",
    "label",
    "load",
    "logit_difference",
    "logit_lens",
    "logprobs",
    "make_portable",
    "measure",
    "next_tokens",
    "norm",
    "open",
    "patch",
    "per_prompt",
    "pool",
    "prompts",
    "provenance",
    "read_prompts",
    "read_vectors",
    "residual_norm",
    "save",
    "stamp",
    "steer",
    "sweep",
    "traces",
    "unembed",
    "view",
    "when",
    "write_vectors",
]

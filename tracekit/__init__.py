"""Read, label, compare and edit the internals of language models and their adapters.

prompts → `encode` → transcripts → `generate` → transcripts → `capture` → traces
"""

from tracekit.adapters import adapter
from tracekit.capture import capture
from tracekit.check import check
from tracekit.compare import difference, norm
from tracekit.directions import per_prompt
from tracekit.during import capture_during
from tracekit.generate import generate
from tracekit.gradients import gradients
from tracekit.intervene import ablate, clamp, patch, steer
from tracekit.model import load
from tracekit.prompts import Prompt, read_prompts
from tracekit.readout import logprobs, unembed
from tracekit.store import open, save
from tracekit.strength import calibrate, divergence, residual_norm, sweep
from tracekit.tensors import inputs, label
from tracekit.transcript import encode

__all__ = [
    "Prompt",
    "ablate",
    "adapter",
    "calibrate",
    "capture",
    "capture_during",
    "check",
    "clamp",
    "difference",
    "divergence",
    "encode",
    "generate",
    "gradients",
    "inputs",
    "label",
    "load",
    "logprobs",
    "norm",
    "open",
    "patch",
    "per_prompt",
    "read_prompts",
    "residual_norm",
    "save",
    "steer",
    "sweep",
    "unembed",
]

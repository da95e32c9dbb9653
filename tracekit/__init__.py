"""Read, label, compare and edit the internals of language models and their adapters.

prompts → `encode` → transcripts → `generate` → transcripts → `capture` → traces

The table of contents is `__init__.pyi`; each name is imported when it is first used.
"""

from tracekit.lazy import attach

# at once: nnsight mounts a `save` on every object, which a module would be asked for before
# its `__getattr__`
from tracekit.storage.store import open as open
from tracekit.storage.store import save as save

__getattr__, __dir__, __all__ = attach(__name__, __file__)

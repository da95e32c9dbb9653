"""What the places in a block are called, here and in other libraries."""

from __future__ import annotations

from collections.abc import Mapping

from tracekit.errors import InputError

# the axes of each site's values after those of tokens
SITES: Mapping[str, tuple[str, ...]] = {
    "residual": ("dim",),
    "attention": ("dim",),
    "mlp": ("dim",),
    "heads": ("head", "dim"),
    "queries": ("head", "dim"),
    "keys": ("head", "dim"),
    "values": ("head", "dim"),
    "pattern": ("head", "key"),
    "mlp_hidden": ("unit",),
    "router": ("expert",),
}
# what other libraries call them
ELSEWHERE = {
    **dict.fromkeys(("resid_post", "resid", "hidden", "layer_output", "layers_output"), "residual"),
    **dict.fromkeys(("attn", "attn_out", "self_attn"), "attention"),
    **dict.fromkeys(("mlp_out", "ffn"), "mlp"),
    **dict.fromkeys(("result", "head"), "heads"),
    **dict.fromkeys(("attention_probabilities", "attn_pattern", "attentions"), "pattern"),
    **{"q": "queries", "k": "keys", "v": "values", "post": "mlp_hidden", "neurons": "mlp_hidden"},
}


def require_site(site: str, otherwise: str) -> None:
    """Errors: `ValueError` for a name that no site has; `otherwise` says what else may be given."""
    if site not in SITES:
        meant = f"that is {ELSEWHERE[site]!r} here; " if site in ELSEWHERE else ""
        raise InputError(
            f"site={site!r} was asked for; {meant}there are {', '.join(SITES)}, or {otherwise}."
        )

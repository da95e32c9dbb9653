"""What inspect_ai loads by its entry point: the name `tracekit/…`, and no model library yet."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="tracekit")
def tracekit() -> type[ModelAPI]:
    """The provider, imported when a model of it is first asked for."""
    from tracekit.inspect_provider.provider import TracekitAPI

    return TracekitAPI

"""What a model of tracekit cannot do is refused by name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    get_model,
)
from inspect_ai.tool import ToolInfo

import tracekit as tk
from tests.test_structure import PACKAGES, ROOT
from tracekit.inspect_provider import model_arguments, registration  # noqa: F401
from tracekit.inspect_provider.asking import DONE, OF_INSPECT, ask

USER = ChatMessageUser(content="Hello.")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5 was asked for"),
        ({"top_logprobs": 3}, "top_logprobs=3 was asked for"),
        ({"logit_bias": {3: 1.0}}, "logit_bias="),
        ({"best_of": 2, "reasoning_tokens": 9}, "best_of=2, reasoning_tokens=9"),
        ({"batch": True}, "batch=True"),
    ],
)
def test_settings_of_other_engines(config: dict[str, Any], words: str) -> None:
    with pytest.raises(tk.InputError, match=words):
        ask([USER], [], GenerateConfig(**config))


def test_every_setting_of_inspect_is_done_left_to_it_or_refused() -> None:
    assert {*DONE, *OF_INSPECT} <= set(GenerateConfig.model_fields)
    assert not set(DONE) & set(OF_INSPECT)


def test_tools_and_pictures() -> None:
    tool = ToolInfo(name="weather", description="What the sky does.")
    with pytest.raises(tk.InputError, match="tools weather were asked for"):
        ask([USER], [tool], GenerateConfig())
    result = ChatMessageTool(content="Rain.", tool_call_id="1", function="weather")
    with pytest.raises(tk.InputError, match="calls of tools was given"):
        ask([USER, result], [], GenerateConfig())
    picture = ChatMessageUser(
        content=[ContentText(text="Look:"), ContentImage(image="data:image/png;base64,AA")]
    )
    with pytest.raises(tk.InputError, match="a part of the type 'image'"):
        ask([picture], [], GenerateConfig())


def test_a_last_message_of_the_assistant_begins_the_answer(tiny_llama: tk.Model) -> None:
    start = ChatMessageAssistant(content="I would")
    asked = ask([USER, start], [], GenerateConfig(max_tokens=3))
    plain = tk.Prompt("x", messages=[("user", "Hello.")], prefill="I would")
    ids = [tk.encode(tiny_llama, [one]).token_id.values.tolist() for one in (asked.prompt, plain)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"coeficient": 1.0}, "Did you mean 'coefficient'"),
        ({"coefficient": 1.0}, "names none"),
        ({"steer": "v.nc", "trait": "a"}, "needs coefficient="),
        ({"steer": "v.nc", "ablate": "v.nc", "coefficient": 1.0}, "names steer and ablate"),
        ({"ablate": "v.nc", "coefficient": 1.0}, "Leave out coefficient"),
        ({"vectors": "v.nc", "capture_layers": "ten"}, "give whole numbers"),
        ({"edits": [{"trait": "a"}]}, "names none"),
        ({"edits": "steer"}, "give a list, a dictionary an edit"),
        ({"scale": "strong"}, "scale='strong' was asked for; give a number"),
    ],
)
def test_model_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(tk.InputError, match=words):
        model_arguments.read(arguments)


def test_files_that_do_not_fit_are_refused_before_the_first_request(
    tiny_folder: Path, tiny_llama: tk.Model, tmp_path: Path
) -> None:
    runs = tk.encode(tiny_llama, ["Hello."])
    traces = tk.capture(tiny_llama, runs, [2], progress=False)
    tk.save(runs, tmp_path / "runs.nc")
    vectors = traces.isel(token=0, drop=True).rename(prompt="trait")
    tk.save(vectors, tmp_path / "vectors.nc")

    def made(**arguments: Any) -> Any:
        return get_model(f"tracekit/{tiny_folder}", memoize=False, dtype="float32", **arguments)

    with pytest.raises(tk.InputError, match="was given as vectors and holds"):
        made(vectors=str(tmp_path / "runs.nc"))
    with pytest.raises(tk.InputError, match="layer=9 was asked for"):
        made(steer=str(tmp_path / "vectors.nc"), layer=9, coefficient=1.0)
    with pytest.raises(tk.InputError, match="The request 'projections'"):
        made(vectors=str(tmp_path / "vectors.nc"), capture_layers=[1])
    with pytest.raises(tk.InputError, match="adapter"):
        made(adapter=str(tmp_path))
    with pytest.raises(tk.InputError, match="in this process"):
        made(base_url="http://127.0.0.1:1")
    assert made(steer=str(tmp_path / "vectors.nc"), layer=2, coefficient=1.0)


def test_inspect_ai_is_imported_in_its_room_alone() -> None:
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    lines = re.compile(r"^\s*(?:from|import) inspect_ai\b", re.MULTILINE)
    found = {path.parent.name for path in files if lines.search(path.read_text("utf-8"))}
    assert found == {"inspect_provider"}


def test_the_entry_point_loads_no_model_library() -> None:
    code = (
        "import sys; import tracekit.inspect_provider.registration;"
        "print([name for name in ('torch', 'nnsight', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

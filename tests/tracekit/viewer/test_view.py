"""What a view shows, driven in a real browser; and what it refuses."""

import base64
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tracekit as tk
from tests.support.processes.browser import driven, needs_chromium

HOSTILE = "<script>alert(1)</script></style><b>&amp;"
LAYERS, TRAITS = [3, 7, 12], ["alignment/honesty", "alignment/deception"]
READ = """
const tokens = (side) => [...document.querySelectorAll(`#view-${side}-text .token`)];
const read = (side) => tokens(side)
  .map((span) => [span.textContent, span.title, span.style.backgroundColor]);
const text = (name) => document.getElementById(name).textContent;
const value = (name) => document.getElementById(name).value;
"""


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def array(rows: int = 4, columns: int = 6, seed: int = 0) -> xr.DataArray:
    """Rows of unequal length, from token −1 on: the last ones are holes."""
    data = values((rows, columns, len(LAYERS), len(TRAITS)), seed)
    lengths = columns - np.arange(rows) % 3
    there = np.arange(columns) < lengths[:, None]
    data[~there] = np.nan
    text = np.where(there, [[f" w{n}" for n in range(columns)]] * rows, "")
    return xr.DataArray(
        data,
        dims=("prompt", "token", "layer", "trait"),
        coords={
            "prompt": [f"set/{n}" for n in range(rows)],
            "token": np.arange(columns) - 1,
            "layer": LAYERS,
            "trait": TRAITS,
            "token_id": (("prompt", "token"), np.where(there, 5, -1)),
            "token_text": (("prompt", "token"), text),
            "role": (("prompt", "token"), [["user"] + ["assistant"] * (columns - 1)] * rows),
            "bias": ("prompt", [f"bias {n}" for n in range(rows)]),
        },
        name="cosine",
    )


@needs_chromium
def test_every_token_shows_its_own_value_at_every_pick(tmp_path: Path) -> None:
    shown = array()
    script = (
        READ
        + """
    seen.found = [];
    for (const prompt of options("view-prompt")) for (const layer of options("view-pick-0"))
      for (const trait of options("view-pick-1")) {
        pick("view-prompt", prompt); pick("view-pick-0", layer); pick("view-pick-1", trait);
        seen.found.push(read("upper"));
      }
    """
    )
    seen = driven(tk.view(shown).page(), script, tmp_path)
    assert seen["errors"] == []
    flat = iter(seen["found"])
    for prompt in shown:
        for layer in LAYERS:
            for trait in TRAITS:
                here = prompt.sel(layer=layer, trait=trait).dropna("token")
                whole = shown.sel(layer=layer, trait=trait)
                found = next(flat)
                assert [text for text, *_ in found] == here.token_text.values.tolist()
                titles = [re.fullmatch(r"token (.*): cosine (.*)", title) for _, title, _ in found]
                assert [int(title[1]) for title in titles] == here.token.values.tolist()
                said = [float(title[2]) for title in titles]
                step = float(whole.max() - whole.min()) / 254
                np.testing.assert_allclose(said, here.values, atol=step)
    assert next(flat, None) is None


@needs_chromium
def test_colours_say_above_and_below_the_centre(tmp_path: Path) -> None:
    shown = array().isel(layer=0, trait=0)
    seen = driven(tk.view(shown, centre=0.0).page(), READ + "seen.found = read('upper');", tmp_path)
    here = shown[0].dropna("token").values
    reach = 2.5 * np.sqrt(np.nanmean(shown.values**2))
    assert np.ptp(np.sign(here)) == 2, "the row has both signs"
    for value, (_, _, colour) in zip(here, seen["found"], strict=True):
        *rgb, alpha = map(float, re.findall(r"[\d.]+", colour))
        assert rgb == ([230, 97, 1] if value > 0 else [94, 60, 153])
        assert alpha == pytest.approx(0.85 * min(1, abs(value) / reach), abs=0.01)


@needs_chromium
def test_two_arrays_stand_above_one_another_and_a_group_finds_its_like(tmp_path: Path) -> None:
    one, other = array(), array(seed=1)
    groups = [name.rpartition("/")[2] for name in one.prompt.values]
    one = one.assign_coords(group=("prompt", groups))
    other = other.assign_coords(
        group=("prompt", groups), prompt=[f"{name}#1" for name in other.prompt.values]
    )
    view = tk.view({"on": one, "off": other}, start={"prompt": "set/2", "layer": 7})
    script = (
        READ
        + """
    seen.upper = read("upper"); seen.lower = read("lower");
    seen.names = ["upper", "lower"].map((side) => text(`view-${side}-name`));
    """
    )
    seen = driven(view.page(), script, tmp_path)
    assert seen["names"] == ["on", "off"]
    for found, whole in ((seen["upper"], one), (seen["lower"], other)):
        here = whole.isel(prompt=2, trait=0).sel(layer=7).dropna("token").values
        said = [float(title.rpartition(" ")[2]) for _, title, _ in found]
        np.testing.assert_allclose(said, here, atol=0.05)


@needs_chromium
def test_sixty_keys_and_clicks_leave_no_error(tmp_path: Path) -> None:
    view = tk.view(array(8, 20), chosen=xr.DataArray([12, 7], {"trait": TRAITS}, name="layer"))
    script = (
        READ
        + """
    seen.states = new Set();
    const press = (key) => document.body.dispatchEvent(
      new KeyboardEvent("keydown", { key, bubbles: true }));
    document.querySelector("#view-top").open = true;
    const keys = ["ArrowRight", "ArrowUp", "ArrowLeft", "ArrowRight", "ArrowDown", "ArrowRight"];
    for (let n = 0; n < 60; n++) {
      press(keys[n % keys.length]);
      if (n % 7 === 0) pick("view-pick-1", n % 2);
      seen.states.add(value("view-prompt") + " " + value("view-pick-0"));
    }
    document.getElementById("view-top").dispatchEvent(new Event("toggle"));
    seen.items = document.querySelectorAll("#view-top li").length;
    const link = document.querySelector("#view-top button");
    seen.best = link.textContent;
    link.click();
    seen.prompt = document.getElementById("view-prompt").selectedOptions[0].textContent;
    seen.states = seen.states.size;
    """
    )
    seen = driven(view.page(), script, tmp_path)
    assert seen["errors"] == []
    assert seen["states"] > 8
    assert seen["items"] == 8
    assert seen["prompt"].split(" · ")[0] in seen["best"]


@needs_chromium
def test_the_highest_stretch_is_that_of_the_array(tmp_path: Path) -> None:
    shown = array(5, 30).isel(trait=0).sel(layer=[7])
    windows = shown.isel(layer=0).rolling(token=8).mean().where(shown.token_id >= 0)
    script = """
    document.querySelector("#view-top").open = true;
    document.getElementById("view-top").dispatchEvent(new Event("toggle"));
    seen.best = document.querySelector("#view-top button").textContent;
    """
    seen = driven(tk.view(shown).page(), script, tmp_path)
    mean, prompt = re.fullmatch(r"(-?[\d.]+)  .*\((.*)\)", seen["best"]).groups()
    assert float(mean) == pytest.approx(float(windows.max()), abs=0.03)
    assert prompt == str(windows.prompt[int(windows.max("token").argmax())].values)


@needs_chromium
def test_text_of_a_model_never_executes(tmp_path: Path) -> None:
    shown = array().isel(layer=0, trait=0)
    words = shown.token_text.values.astype(object)
    words[0, 1] = HOSTILE
    shown = shown.assign_coords(token_text=(("prompt", "token"), words))
    shown = shown.assign_coords(
        bias=("prompt", [HOSTILE] * 4), prompt=[f"{HOSTILE}{n}" for n in range(4)]
    )
    captions = {str(name): HOSTILE for name in shown.prompt.values}
    view = tk.view(shown, title=HOSTILE, captions=captions)
    script = (
        READ
        + """
    seen.words = tokens("upper").map((span) => span.textContent);
    seen.bold = document.querySelectorAll("b, #view script").length;
    seen.title = document.title;
    """
    )
    seen = driven(view.page(), script, tmp_path)
    assert seen["words"][1] == HOSTILE
    assert (seen["bold"], seen["title"]) == (0, HOSTILE)
    assert HOSTILE not in view.page()
    assert HOSTILE not in view._repr_html_()


@needs_chromium
def test_a_notebook_shows_it_in_a_frame_without_a_server(tmp_path: Path) -> None:
    shown = array()
    inside = re.search(r'srcdoc="(.*?)"', tk.view(shown)._repr_html_(), re.S)[1]
    seen = driven(html.unescape(inside), READ + "seen.found = read('upper').length;", tmp_path)
    assert seen["found"] == int((shown.token_id[0] >= 0).sum())
    assert 'sandbox="allow-scripts"' in tk.view(shown)._repr_html_()


def test_a_notebook_keeps_the_first_prompts_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.viewer.view.INLINE", 2 * 6 * 6)
    made = tk.view(array())._repr_html_()
    assert made.startswith("<p>The first 2 of 4 prompts")
    assert html.unescape(made).count("-codes") == 2 + 1  # the script names them too


@needs_chromium
def test_no_prompts_are_said(tmp_path: Path) -> None:
    script = "seen.asked = document.getElementById('view-asked').textContent;"
    seen = driven(tk.view(array().isel(prompt=[])).page(), script, tmp_path)
    assert (seen["asked"], seen["errors"]) == ("(no answers)", [])


def test_values_that_are_no_number_are_no_colour_and_no_nan_in_the_file(tmp_path: Path) -> None:
    shown = array()
    shown[0, 1, 0, 0], shown[1, 1, 0, 0], shown[:, :, 1] = np.inf, np.nan, np.nan
    page = tk.view(shown).save(tmp_path / "x.html").read_text("utf-8")
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)
    assert len(blocks) == 1 + 4
    for block in blocks:
        json.loads(block, parse_constant=lambda name: pytest.fail(name))
    codes = np.frombuffer(base64.b64decode(re.search(r'row-0-0-codes">(.*?)<', page)[1]), np.uint8)
    codes = codes.reshape(len(LAYERS), len(TRAITS), 6)
    assert codes[0, 0, 1] == 0
    assert not codes[1].any()
    assert codes[0, 0, [0, 2]].all()
    assert codes[2].all()


def test_a_mask_and_a_chosen_layer_arrive() -> None:
    shown = array()
    mask = shown.token_text == " w3"
    view = tk.view(
        shown, marked=mask, chosen=xr.DataArray([12, 3], {"trait": TRAITS}, name="layer")
    )
    assert view.data["first"] == {"layer": 2, "trait": 0}
    assert view.data["follows"]["order"] == [2, 0]
    assert [row["words"]["marked"] for row in view._rows(None)] == [[3]] * 4
    other = tk.view(shown, marked=shown.token_text == " w2")
    assert [row["words"]["marked"] for row in other._rows(None)] == [[2]] * 4

"use strict";
(() => {
  const STRETCH = 8, SHOWN = 12;
  const byId = (name) => document.getElementById("view-" + name);
  const data = JSON.parse(byId("data").textContent);
  const sizes = data.picks.map((pick) => pick.values.length);
  const places = new Map(), groups = new Map(), decoded = new Map(), said = new Map();
  data.arms.forEach((arm, number) => data.prompts[arm].forEach((one, row) => {
    places.set(number + " " + one.id, row);
    // another arm may have other samples: the prompt's group finds its answer there
    if (!groups.has(number + " " + one.group)) groups.set(number + " " + one.group, row);
  }));
  const first = data.prompts[data.arms[0]];

  function fill(box, labels) {
    const made = document.createDocumentFragment();
    labels.forEach((label, index) => made.append(new Option(label, index)));
    box.replaceChildren(made);
  }

  // each prompt's codes and words are unpacked when they are first looked at
  function codes(arm, row) {
    const name = `row-${arm}-${row}`;
    if (!decoded.has(name)) {
      const held = document.getElementById(name + "-codes");
      if (!held) return null;
      decoded.set(name, Uint8Array.from(atob(held.textContent), (c) => c.charCodeAt(0)));
    }
    return decoded.get(name);
  }

  function words(arm, row) {
    const name = `row-${arm}-${row}`;
    if (!said.has(name)) {
      const held = document.getElementById(name);
      if (!held) return null;
      said.set(name, JSON.parse(held.textContent));
    }
    return said.get(name);
  }

  const pickBox = (index) => byId("pick-" + index);
  const slice = () => sizes.reduce((at, size, index) => at * size + Number(pickBox(index).value), 0);
  const valueOf = (code, at) => (code ? data.low[at] + (code - 1) * data.step[at] : NaN);
  const number = (value) => (Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "no value");

  function colour(value, at) {
    if (!Number.isFinite(value)) return "";
    const share = Math.max(-1, Math.min(1, (value - data.middle[at]) / data.reach[at]));
    const [r, g, b] = share > 0 ? [230, 97, 1] : [94, 60, 153];
    return `rgba(${r},${g},${b},${(0.85 * Math.abs(share)).toFixed(3)})`;
  }

  function labelOf(one) {
    return [one.id, one.labels, one.asked].filter(Boolean).join(" · ").slice(0, 110);
  }

  function where(side) {
    const arm = data.arms.length > 1 ? Number(byId(side).value) : 0;
    const one = first[Number(byId("prompt").value)];
    const row = places.get(arm + " " + one.id);
    return [arm, row === undefined ? groups.get(arm + " " + one.group) : row];
  }

  function label(text, n) {
    return text.labels.length === 1 ? text.labels[0] + n : text.labels[n];
  }

  function show(side, at) {
    const [arm, row] = where(side), panel = byId(side + "-text");
    byId(side + "-name").textContent = data.arms[arm];
    const text = row === undefined ? null : words(arm, row);
    if (!text) { panel.textContent = row === undefined ? "(no answer of this arm)" : "(still loading)"; return; }
    const held = codes(arm, row), count = text.tokens.length, marked = new Set(text.marked || []);
    const starts = new Map();
    let from = 0;
    for (const [role, many] of text.roles || []) { starts.set(from, role); from += many; }
    const made = document.createDocumentFragment();
    text.tokens.forEach((token, n) => {
      if (starts.has(n) && starts.size > 1) {
        const role = document.createElement("span");
        role.className = "role";
        role.textContent = starts.get(n);
        made.append(role);
      }
      const span = document.createElement("span"), value = valueOf(held[at * count + n], at);
      span.textContent = token.replaceAll("\\n", "↵\n");
      span.style.backgroundColor = colour(value, at);
      span.className = "token" + (label(text, n) < 0 ? " before" : "") + (marked.has(n) ? " marked" : "");
      span.title = `token ${label(text, n)}: ${data.name} ${number(value)}`;
      span.onmouseenter = () => { byId("hover").textContent = [data.arms[arm], span.title].filter(Boolean).join(", "); };
      made.append(span);
    });
    panel.replaceChildren(made);
  }

  // the highest mean of eight tokens in a row, one a prompt, of what is picked
  function list(at) {
    const arm = where("upper")[0], found = [];
    data.prompts[data.arms[arm]].forEach((one, row) => {
      const text = words(arm, row), held = codes(arm, row);
      if (!text) return;
      const count = text.tokens.length, size = Math.min(STRETCH, count);
      let best = -Infinity, begin = 0, sum = 0, holes = 0;
      for (let n = 0; n < count; n++) {
        const come = held[at * count + n], go = n >= size ? held[at * count + n - size] : null;
        sum += come - (go || 0);
        holes += (come === 0) - (go === 0);
        if (n >= size - 1 && holes === 0 && sum > best) { best = sum; begin = n - size + 1; }
      }
      if (best > -Infinity) found.push({ one, mean: valueOf(best / size, at), text: text.tokens.slice(begin, begin + size).join("") });
    });
    found.sort((a, b) => b.mean - a.mean);
    const made = found.slice(0, SHOWN).map(({ one, mean, text }) => {
      const item = document.createElement("li"), link = document.createElement("button");
      link.textContent = `${number(mean)}  ${text}  (${one.id})`;
      link.onclick = () => {
        const there = first.findIndex((other) => other.id === one.id);
        const like = there < 0 ? first.findIndex((other) => other.group === one.group) : there;
        if (like >= 0) { byId("prompt").value = like; update(); }
      };
      item.append(link);
      return item;
    });
    byId("top").querySelector("ol").replaceChildren(...made);
  }

  function update() {
    if (!first.length) { byId("asked").textContent = "(no answers)"; return; }
    const at = slice(), one = first[Number(byId("prompt").value)];
    byId("asked").textContent = one.asked;
    for (const side of data.arms.length > 1 ? ["upper", "lower"] : ["upper"]) show(side, at);
    byId("low").textContent = number(data.middle[at] - data.reach[at]);
    byId("high").textContent = number(data.middle[at] + data.reach[at]);
    if (byId("top").open) list(at);
  }

  function follow(index) {
    const rule = data.follows;
    if (!rule || data.picks[index].name !== rule.leads) return;
    const other = data.picks.findIndex((pick) => pick.name === rule.follows);
    pickBox(other).value = rule.order[Number(pickBox(index).value)];
  }

  function move(box, by) {
    const next = Number(box.value) + by;
    if (next < 0 || next >= box.options.length) return;
    box.value = next;
    box.dispatchEvent(new Event("change"));
  }

  fill(byId("prompt"), first.map(labelOf));
  byId("prompt").addEventListener("change", update);
  data.picks.forEach((pick, index) => {
    fill(pickBox(index), pick.values);
    pickBox(index).value = data.first[pick.name];
    pickBox(index).addEventListener("change", () => { follow(index); update(); });
  });
  if (data.arms.length > 1) for (const [side, arm] of [["upper", 0], ["lower", 1]]) {
    fill(byId(side), data.arms);
    byId(side).value = arm;
    byId(side).addEventListener("change", update);
  }
  byId("top").addEventListener("toggle", update);
  document.addEventListener("keydown", (event) => {
    // in a longer page, arrows belong to it unless one is at the view
    const here = document.querySelector("body.tokens-page, #view:hover, #view:focus-within");
    if (!here || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = { ArrowLeft: ["prompt", -1], ArrowRight: ["prompt", 1] };
    const layer = data.picks.findIndex((pick) => pick.name === "layer");
    if (layer >= 0) Object.assign(keys, { ArrowUp: ["pick-" + layer, 1], ArrowDown: ["pick-" + layer, -1] });
    if (!(event.key in keys)) return;
    event.preventDefault();
    move(byId(keys[event.key][0]), keys[event.key][1]);
  });
  document.addEventListener("DOMContentLoaded", update);
  if (first.length) byId("prompt").value = data.opens;
  update();
})();

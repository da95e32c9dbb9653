"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (name) => document.getElementById(name);
const picks = ["prompt", "trait", "layer", "upper", "lower"];
const rows = {};
for (const [arm, list] of Object.entries(data.arms)) {
  rows[arm] = new Map(list.map((row) => [row.id, row]));
  // another arm may have other samples: the prompt's group finds its answer there
  for (const row of list) if (!rows[arm].has("group:" + row.group)) rows[arm].set("group:" + row.group, row);
}
const arms = Object.keys(data.arms);
const decoded = new Map();

function values(row) {
  if (!decoded.has(row)) {
    const text = atob(row.values);
    decoded.set(row, Int8Array.from(text, (c) => c.charCodeAt(0)));
  }
  return decoded.get(row);
}

function fill(name, options, label) {
  const made = document.createDocumentFragment();
  for (const value of options) made.append(new Option(label ? label(value) : value, value));
  byId(name).replaceChildren(made);
}

function labelOf(id) {
  const row = rows[arms[0]].get(id);
  const mark = row.exploit === 1 ? " · exploits" : "";
  return `${row.id} · ${row.bias}${mark} · ${row.asked.slice(0, 60)}`;
}

function colour(share) {
  const strength = Math.min(1, Math.abs(share));
  const [r, g, b] = share > 0 ? [230, 97, 1] : [94, 60, 153];
  return `rgba(${r},${g},${b},${(0.85 * strength).toFixed(3)})`;
}

function rowOf(side) {
  const first = rows[arms[0]].get(byId("prompt").value), arm = rows[byId(side).value];
  return arm.get(first.id) || arm.get("group:" + first.group);
}

function picked(row, trait, layer) {
  const width = data.traits.length * data.layers.length, packed = values(row);
  return row.tokens.map((_, n) => packed[n * width + trait * data.layers.length + layer]);
}

function show(side, trait, layer, mean, reach) {
  const arm = byId(side).value, row = rowOf(side), panel = byId(side + "-text");
  byId(side + "-name").textContent = arm;
  const made = document.createDocumentFragment();
  panel.replaceChildren();
  if (!row) { panel.textContent = "(no answer of this arm)"; return; }
  const here = picked(row, trait, layer), marked = new Set(row.marked);
  row.tokens.forEach((text, n) => {
    const span = document.createElement("span");
    span.textContent = text.replaceAll("\\n", "↵\n");
    span.style.backgroundColor = colour((here[n] - mean) / reach);
    span.className = marked.has(n) ? "token exploit" : "token";
    span.title = `token ${n}: cosine ${(here[n] * data.scale[trait][layer]).toFixed(4)}`;
    span.onmouseenter = () => { byId("hover").textContent = `${arm}, ${span.title}`; };
    made.append(span);
  });
  panel.append(made);
}

function list() {
  const made = (data.top[byId("trait").value] || []).map((span) => {
    const item = document.createElement("li"), link = document.createElement("button");
    link.textContent = `${span.mean.toFixed(3)}  ${span.text}`;
    link.onclick = () => { byId("prompt").value = span.prompt; update(); };
    item.append(link);
    return item;
  });
  byId("top").replaceChildren(...made);
}

function update() {
  if (!rows[arms[0]].size) { byId("asked").textContent = "(no answers)"; return; }
  byId("asked").textContent = rows[arms[0]].get(byId("prompt").value).asked;
  const trait = data.traits.indexOf(byId("trait").value);
  const layer = data.layers.indexOf(Number(byId("layer").value));
  // one colour scale for both panels, or they could not be compared
  const shown = ["upper", "lower"].map(rowOf).filter(Boolean).flatMap((row) => picked(row, trait, layer));
  const mean = shown.reduce((a, b) => a + b, 0) / Math.max(shown.length, 1);
  // as arguments of one call, long answers would overflow the stack
  const reach = shown.reduce((most, value) => Math.max(most, Math.abs(value - mean)), 1);
  for (const side of ["upper", "lower"]) show(side, trait, layer, mean, reach);
}

fill("prompt", data.arms[arms[0]].map((row) => row.id), labelOf);
fill("trait", data.traits);
fill("layer", data.layers);
fill("upper", arms);
fill("lower", arms);
byId("lower").value = arms.find((arm) => arm === "clean/organism") || arms[arms.length - 1];
byId("layer").value = data.chosen[data.traits[0]];
const first = data.arms[arms[0]].find((row) => row.exploit === 1);
if (first) byId("prompt").value = first.id;
for (const name of picks) byId(name).addEventListener("change", () => {
  if (name === "trait") { byId("layer").value = data.chosen[byId("trait").value]; list(); }
  update();
});
list();
update();

// Draws the explorer into a page of the fewest parts, clicks through it, and prints what was plotted and written.

"use strict";

class Node {
  constructor(name) { Object.assign(this, { name, attributes: {}, children: [], listeners: {}, style: {}, dataset: {}, textContent: "" }); }
  setAttribute(key, value) {
    this.attributes[key] = String(value);
    if (key.startsWith("data-")) this.dataset[key.slice(5)] = String(value);
  }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  addEventListener(event, listener) { this.listeners[event] = listener; }
  get lastChild() { return this.children.at(-1); }
  get text() { return this.textContent + this.children.map((each) => (typeof each === "string" ? each : each.text)).join(" "); }
}

globalThis.document = { createElement: (name) => new Node(name) };
globalThis.window = { matchMedia: () => ({ matches: false }) };
const { explorer } = require(process.argv[2]);
const { modulus: n, folded, keys } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const frames = folded.length / (n * n);
const plotted = [];
const root = new Node("div");
let repaint = null;
explorer(root, {
  modulus: n, folded: { values: Float32Array.from(folded), shape: [frames, n, n] }, key_frequencies: keys,
  full: { values: new Float32Array(0), shape: [0, 0, n] }, full_frames: [],
  labels: Array.from({ length: frames }, (_, i) => `epoch ${i}`), epochs: Int32Array.from({ length: frames }, (_, i) => i),
  counts_all: Int32Array.from({ length: n }, () => n),
}, {
  Plotly: { react: (node, traces) => plotted.push(Object.fromEntries(traces.map((each) => [each.name, each.y]))) },
  theme: () => ({ template: {}, lines: ["a", "b", "c", "d", "e", "f"], muted: "g" }),
  onTheme: (callback) => { repaint = callback; },
  number: String,
});
const [controls, chips, slider, readout] = root.children;
const [sets, rows] = controls.children.map((each) => each.children);
repaint();
for (const k of keys) chips.children[k - 1].listeners.click(); // the key set, emptied chip by chip
sets.find((each) => each.dataset.set === "all").listeners.click();
const disabled = rows.filter((each) => each.disabled).map((each) => each.dataset.rows);
console.log(JSON.stringify({ plotted, disabled, chips: chips.children.length, label: slider.lastChild.textContent, text: readout.text }));

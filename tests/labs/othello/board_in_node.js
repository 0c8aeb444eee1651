// Draws the board into a page of the fewest parts, clicks and steps through it, and prints what it then shows.

"use strict";

class Node {
  constructor(name) {
    Object.assign(this, { name, attributes: {}, children: [], listeners: {}, textContent: "", max: "", value: "" });
  }
  setAttribute(key, value) { this.attributes[key] = String(value); }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  addEventListener(event, listener) { (this.listeners[event] = this.listeners[event] || []).push(listener); }
  fire(event, more = {}) {
    const fired = { target: this, preventDefault() { this.defaultPrevented = true; }, ...more };
    for (const listener of this.listeners[event] || []) listener(fired);
    return Boolean(fired.defaultPrevented);
  }
  focus() { focused = this; }
  find(holds) { return [...(holds(this) ? [this] : []), ...this.children.flatMap((each) => (each.find ? each.find(holds) : []))]; }
  get text() { return this.textContent + this.children.map((each) => (each.text === undefined ? each : each.text)).join(" "); }
}

let focused = null;
globalThis.document = { createElement: (name) => new Node(name), createElementNS: (_, name) => new Node(name) };
globalThis.window = {};
const { seen, player } = require(process.argv[2]);
const registered = Object.entries(window.micrographia.widgets).filter(([, each]) => each === player).map(([name]) => name);
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));

// Arrays as the page gives them: typed, and with a shape where they have more than one axis.
function revived(tree) {
  if (Array.isArray(tree)) return tree.map(revived);
  if (tree === null || typeof tree !== "object") return tree;
  if (tree.shape === undefined) return Object.fromEntries(Object.entries(tree).map(([key, value]) => [key, revived(value)]));
  const values = Int16Array.from(tree.values);
  return tree.shape.length === 1 ? values : { values, shape: tree.shape };
}

const data = revived(asked.data);
const views = asked.states.map((state) => {
  const view = seen.at(data, state);
  const words = [seen.position(view), seen.prediction(view), seen.probe(view, data), seen.flipped(view, data)];
  return { ...view, words };
});

const root = new Node("div");
let repaint = null;
player(root, data, { theme: () => ({ lines: ["a", "b", "c", "d", "e", "f"] }), onTheme: (callback) => { repaint = callback; } });
const page = root.children[0];
const byClass = (name) => root.find((node) => (node.attributes.class || "").split(" ").includes(name));
const squares = root.find((node) => node.attributes.role === "button");
const [step, site] = root.find((node) => node.attributes.type === "range");
const label = () => root.find((node) => node.name === "output").map((node) => node.textContent);
const words = () => byClass("words")[0].text;
const shown = [];
const note = (did) => shown.push({ did, label: label(), words: words(), pressed: squares.findIndex((each) => each.attributes["aria-pressed"] === "true") });
note("open");
squares[asked.disc].fire("click");
note("click");
repaint();
note("repaint");
squares[asked.disc].fire("click");
note("click again");
squares[asked.empty].fire("click");
note("empty");
const prevented = page.fire("keydown", { key: "ArrowRight", target: {} });
note("right");
page.fire("keydown", { key: "ArrowLeft", target: {} });
note("left");
page.fire("keydown", { key: "ArrowRight", target: { type: "range" } });
note("in a slider");
squares[asked.disc].fire("keydown", { key: "Enter" });
note("enter");
squares[5].fire("keydown", { key: "ArrowDown" });
const down = squares.indexOf(focused);
focused = null;
squares[data.size - 1].fire("keydown", { key: "ArrowRight" });
const beyond = focused;
site.value = "0";
site.fire("input");
note("site");
step.value = "0";
step.fire("input");
note("start");
const labels = squares.map((each) => each.attributes["aria-label"]);
console.log(JSON.stringify({ registered, views, shown, prevented, down, beyond, labels, tabs: squares.filter((each) => each.attributes.tabindex === "0").length }));

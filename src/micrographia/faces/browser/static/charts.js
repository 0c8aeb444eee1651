// Small pictures: a histogram, bars of named values, a line of a density.

import { drawn, h } from "./dom.js";
import { alone, count, number } from "./words.js";

// `edges` (n + 1), `counts` (n). Heights are in square roots, so that the rare large values can be seen.
export function histogram(edges, counts, label, { height = 90 } = {}) {
  const top = Math.sqrt(Math.max(1, ...counts)), n = counts.length;
  const bars = counts.map((each, i) => {
    const tall = each ? Math.max(1.5, (Math.sqrt(each) / top) * height) : 0;
    return drawn("rect", { x: i + 0.06, y: height - tall, width: 0.88, height: tall,
      "data-told": `${number(edges[i])} to ${number(edges[i + 1])}: ${count(each)}` });
  });
  return h("div", { class: "histogram" },
    drawn("svg", { viewBox: `0 0 ${n} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, bars),
    h("p", { class: "ends" }, h("span", {}, number(edges[0])), h("span", {}, number(edges[n]))));
}

// Rows of [name, value, where it leads or nothing], each with a bar as long as its value.
export function bars(rows, { kind = "", largest } = {}) {
  const full = largest ?? Math.max(1e-9, ...rows.map((row) => Math.abs(row[1])));
  return h("ul", { class: `bars ${kind}` }, rows.map(([name, value, href]) =>
    h("li", { class: value < 0 ? "lowers" : "raises", "--strength": `${Math.round((100 * Math.abs(value)) / full)}%` },
      href ? h("a", { href }, name) : h("span", { class: "name" }, name), h("span", { class: "value" }, number(value)))));
}

export const tokenBars = (rows, largest) => bars(rows.map(([token, value]) => [alone(token), value]), { kind: "mono", largest });

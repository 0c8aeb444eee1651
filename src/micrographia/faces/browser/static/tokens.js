// Texts whose tokens are coloured by a value. The value of the token under the pointer or the focus is told beside it;
// a text is one stop of the tab key, and the arrow keys walk within it.

import { h } from "./dom.js";
import { alone, inText, number } from "./words.js";

const AROUND = 30;

// `largest`: the value of the full colour. `at`: the token where the keyboard enters, and around which a long text is cut.
export function passage(tokens, values, { largest, at = 0, label, onpick, quiet = false } = {}) {
  const full = largest || Math.max(1e-9, ...values.map(Math.abs));
  const whole = tokens.length <= 2 * AROUND + 8;
  const node = h("p", { class: quiet ? "passage quiet" : "passage", "aria-label": label });
  const show = (first, last) => {
    const tab = Math.min(Math.max(at, first), last - 1);
    node.replaceChildren();
    if (first > 0) node.append(more(() => show(0, tokens.length)));
    for (let i = first; i < last; i++) {
      const space = /^ +(?=[^ ])/.exec(tokens[i])?.[0] ?? ""; // stands before the coloured part, where a line may break
      if (i > first) node.append(space);
      node.append(token(tokens[i], space.length, values[i], full, i, i === tab && !quiet, onpick));
    }
    if (last < tokens.length) node.append(more(() => show(0, tokens.length)));
  };
  if (whole) show(0, tokens.length);
  else show(Math.max(0, at - AROUND), Math.min(tokens.length, at + AROUND));
  node.addEventListener("keydown", walk);
  return node;
}

function token(text, spaces, value, full, i, entry, onpick) {
  const strength = Math.min(1, Math.abs(value) / full);
  const kind = value > 0 ? " raises" : value < 0 ? " lowers" : "";
  const node = h("span", { class: `token${kind}`, "--strength": `${Math.round(8 + 77 * strength)}%`,
    tabindex: entry ? "0" : "-1", "data-told": `${alone(text)}  ${number(value)}`, "aria-label": `${text}, ${number(value)}` },
    value === 0 && /^ +$/.test(text) ? text : inText(text.slice(spaces)));
  if (onpick) {
    node.setAttribute("role", "button");
    node.addEventListener("click", () => onpick(i));
    node.addEventListener("keydown", (event) => { if (event.key === "Enter") onpick(i); });
  }
  return node;
}

const more = (show) => h("button", { type: "button", class: "more", "aria-label": "the whole text", onclick: show }, "…");

function walk(event) {
  const step = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  const next = step && event.target[step];
  if (!next || !next.classList.contains("token")) return;
  event.target.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
  event.preventDefault();
}

// One small label follows the pointer and the focus over everything that has something to tell.
export function tellValues(tip) {
  const show = (event) => {
    const node = event.target.closest?.("[data-told]");
    tip.hidden = !node;
    if (!node) return;
    tip.textContent = node.dataset.told;
    const box = node.getClientRects()[0] ?? node.getBoundingClientRect();
    const left = Math.min(Math.max(4, box.left), document.documentElement.clientWidth - tip.offsetWidth - 4);
    tip.style.setProperty("left", `${left}px`);
    tip.style.setProperty("top", `${box.top > 44 ? box.top - tip.offsetHeight - 5 : box.bottom + 5}px`);
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointerover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, true);
}

// Elements by hand. Text goes in as text nodes alone, so that no token can become markup.

const SVG = "http://www.w3.org/2000/svg";

export function h(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

export function drawn(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else if (key === "value" || key === "checked" || key === "selected") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A row of buttons of which one is pressed. `choices`: [value, text]; `chosen(value)` is called at each choice.
export function choice(label, choices, value, chosen) {
  const buttons = choices.map(([own, text]) => h("button", { type: "button", "aria-pressed": String(own === value),
    onclick: () => {
      buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(choices[i][0] === own)));
      chosen(own);
    } }, text));
  return h("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

// Calls `work` once, `wait` milliseconds after the last call.
export function calmly(work, wait = 160) {
  let timer;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), wait); };
}

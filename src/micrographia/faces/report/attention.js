// Looks at attention: a small picture of every head to choose from, the chosen one query by key, and the text itself, in
// which the keys are coloured that a query attends to. Viewers of one page follow one another: a head chosen in the
// clean prompt is chosen in the corrupt one too.

"use strict";

(() => {
  const CHOSEN = "micrographia-head"; // the event by which viewers follow one another
  const MOST_LABELS = 26;

  // 256 colours of a scale, as [r, g, b].
  function colours(scale) {
    const stops = scale.map(([at, hex]) => [at, [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16))]);
    return Array.from({ length: 256 }, (_, i) => {
      const x = i / 255;
      const next = Math.max(1, stops.findIndex(([at]) => at >= x));
      const [[a, one], [b, other]] = [stops[next - 1], stops[next]];
      return one.map((value, c) => Math.round(value + ((x - a) / (b - a)) * (other[c] - value)));
    });
  }

  function element(name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // `data`: z {values, shape} (heads, query, key) in steps, `step`, `most` steps, `signed`, panels, groups, tokens, shown, value.
  function draw(root, data, tools) {
    const [nHeads, n] = data.z.shape;
    const steps = data.z.values;
    const state = { head: data.first, query: n - 1, locked: false, keys: true };
    let palette = [];

    const at = (head, query, key) => steps[(head * n + query) * n + key];
    const value = (head, query, key) => at(head, query, key) * data.step;
    const told = (x) => tools.number(Number(x.toPrecision(2)));
    const colour = (x) => palette[data.signed ? Math.max(0, Math.min(255, x + 128)) : Math.round((x * 255) / data.most)];

    function paint(canvas, head) {
      canvas.width = canvas.height = n;
      const pen = canvas.getContext("2d");
      const image = pen.createImageData(n, n);
      for (let i = 0; i < n * n; i++) {
        const [r, g, b] = colour(steps[head * n * n + i]);
        image.data.set([r, g, b, 255], 4 * i);
      }
      pen.putImageData(image, 0, 0);
    }

    // ---- the heads ---------------------------------------------------------------------------------------------

    const heads = element("div", "heads");
    const buttons = [];
    let row = null;
    data.panels.forEach((name, head) => {
      if (!row || data.groups[head] !== data.groups[head - 1]) {
        row = element("div", "head-row");
        if (data.groups[head]) row.append(element("span", "label", data.groups[head]));
        heads.append(row);
      }
      const button = element("button", "head");
      button.type = "button";
      button.append(element("canvas"), element("span", "", name.split(" (")[0]));
      button.title = name;
      button.addEventListener("click", () => {
        choose(head);
        document.dispatchEvent(new CustomEvent(CHOSEN, { detail: { root, name, group: data.groups[head] } }));
      });
      buttons.push(button);
      row.append(button);
    });
    document.addEventListener(CHOSEN, ({ detail }) => {
      const same = data.panels.findIndex((name, head) => name === detail.name && data.groups[head] === detail.group);
      if (detail.root !== root && same >= 0) choose(same);
    });

    // ---- the chosen head ---------------------------------------------------------------------------------------

    const title = element("p", "chosen-head");
    const matrix = element("div", "matrix");
    const canvas = element("canvas");
    const cross = element("div", "query-row");
    const board = element("div", "board-of-head");
    board.append(canvas, cross);
    const every = Math.ceil(n / MOST_LABELS);
    const names = (className) => {
      const side = element("div", className);
      data.shown.forEach((text, i) => side.append(element("span", "", i % every ? "" : `${i} ${text}`)));
      return side;
    };
    const left = names("queries");
    const below = names("keys");
    const corner = element("span", "label corner", "query ↓ key →");
    matrix.append(left, board, corner, below);
    const readout = element("p", "readout-line");

    board.addEventListener("pointermove", (event) => {
      const box = board.getBoundingClientRect();
      const cell = (x, size) => Math.max(0, Math.min(n - 1, Math.floor((x / size) * n)));
      const key = cell(event.clientX - box.left, box.width);
      const query = cell(event.clientY - box.top, box.height);
      tell(query, key);
      if (!state.locked) look(query);
    });
    board.addEventListener("click", () => lock(!state.locked));

    function tell(query, key) {
      const name = (i) => `${i} “${data.shown[i]}”`;
      readout.textContent = `${data.value} from query ${name(query)} to key ${name(key)}: ${told(value(state.head, query, key))}`;
    }

    // ---- the text ----------------------------------------------------------------------------------------------

    const text = element("div", "token-text");
    const tokens = data.shown.map((shown, i) => {
      const token = element("button", "token", shown);
      token.type = "button";
      token.addEventListener("pointerenter", () => state.locked || look(i));
      token.addEventListener("focus", () => state.locked || look(i));
      token.addEventListener("click", () => {
        lock(!(state.locked && state.query === i));
        look(i);
      });
      text.append(token);
      return token;
    });
    const turn = element("button", "turn");
    turn.type = "button";
    turn.addEventListener("click", () => {
      state.keys = !state.keys;
      look(state.query);
    });

    function lock(locked) {
      state.locked = locked;
      root.classList.toggle("locked", locked);
    }

    function look(i) {
      state.query = i;
      const row = Array.from({ length: n }, (_, j) => (state.keys ? at(state.head, i, j) : at(state.head, j, i)));
      tokens.forEach((token, j) => {
        const [r, g, b] = colour(row[j]);
        token.style.backgroundColor = `rgb(${r} ${g} ${b})`;
        token.style.color = 0.3 * r + 0.59 * g + 0.11 * b > 140 ? "#15181d" : "#fdfcf9";
        token.classList.toggle("looked-at", j === i);
        token.title = told(row[j] * data.step);
      });
      cross.style.cssText = state.keys ? `top:${(100 * i) / n}%;left:0;width:100%;height:${100 / n}%` : `left:${(100 * i) / n}%;top:0;height:100%;width:${100 / n}%`;
      turn.textContent = state.keys ? "keys that it attends to" : "queries that attend to it";
      const most = row.map((x, j) => [Math.abs(x), j]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([x]) => x > 0);
      const list = most.map(([, j]) => `${j} “${data.shown[j]}” ${told(row[j] * data.step)}`).join(", ");
      readout.textContent = `${i} “${data.shown[i]}” ${state.keys ? "attends to" : "is attended to by"} ${list || "nothing"}`;
    }

    function choose(head) {
      state.head = head;
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === head)));
      title.textContent = data.panels[head].startsWith("L") || !data.groups[head] ? data.panels[head] : `${data.groups[head]}, ${data.panels[head]}`;
      paint(canvas, head);
      look(state.query);
    }

    function refresh() {
      palette = colours(tools.theme().scales[data.signed ? "diverging" : "sequential"]);
      buttons.forEach((button, head) => paint(button.firstChild, head));
      choose(state.head);
    }

    matrix.style.setProperty("--n", n);
    const body = element("div", "head-body");
    const side = element("div", "head-text");
    const bar = element("div", "controls");
    bar.append(turn);
    side.append(title, text, readout, bar, element("p", "source", `Point at a token, or click to hold it. Values in steps of ${tools.number(Number(data.step.toPrecision(1)))}.`));
    body.append(matrix, side);
    root.replaceChildren(...(nHeads > 1 ? [heads] : []), body);
    refresh();
    tools.onTheme(refresh);
  }

  window.micrographia = window.micrographia || {};
  window.micrographia.viewers = { ...window.micrographia.viewers, attention: draw };
})();

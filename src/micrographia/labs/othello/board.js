// A game, step by step: the board, what a probe of one layer reads, and what the model predicts; a click on a disc
// flips it inside the model.
//
// Nothing is computed from weights here: the Figure carries every step and every flip as arrays. A square is 0 empty, 1
// black, 2 white. Steps count moves played; the model has read something from step 1 on. Probabilities are whole
// numbers of 1/10000. The page calls it with an empty element, the Figure's data, and its tools: theme, onTheme.

"use strict";

(() => {
  const EMPTY = 0;
  const COLOURS = ["empty", "black", "white"];

  // What is to be seen at one step, site and flip, from the arrays; no element of the page is touched.
  const seen = (() => {
    const row = (array, i, n) => array.values.subarray(i * n, (i + 1) * n);
    const shares = (whole) => Array.from(whole, (x) => x / 10000);
    const where = (n, holds) => Array.from({ length: n }, (_, i) => i).filter(holds);
    const name = (square, size) => String.fromCharCode(97 + (square % size)) + (Math.floor(square / size) + 1);

    function at(data, state) {
      const game = data.games[state.game];
      const n = data.size * data.size;
      const { step, site } = state;
      const steps = game.moves.length;
      const read = game.predicted.shape[0];
      const board = Array.from(row(game.boards, step, n));
      const legal = Array.from(row(game.legal, step, n), Boolean);
      const played = step > 0 ? game.moves[step - 1] : null;
      const earlier = step > 0 ? row(game.boards, step - 1, n) : board;
      const turned = where(n, (i) => earlier[i] !== EMPTY && earlier[i] !== board[i]);
      const view = {
        step, steps, site, board, legal, played, turned, size: data.size, truth: board,
        mover: game.black[step] ? 1 : 2, isRead: step >= 1 && step <= read, flip: null, after: null,
      };
      if (played !== null) view.by = game.black[step - 1] ? 1 : 2;
      if (!view.isRead) return view;
      const nSites = data.sites.length;
      view.before = shares(row(game.predicted, step - 1, n));
      view.said = Array.from(row(game.said, (step - 1) * nSites + site, n));
      view.sure = Array.from(row(game.sure, (step - 1) * nSites + site, n), (x) => x / 255);
      const flip = state.flip === null ? -1 : game.flip_row.values[(step - 1) * n + state.flip];
      if (flip >= 0) {
        view.flip = state.flip;
        view.truth = board.map((colour, i) => (i === state.flip ? 3 - colour : colour));
        view.legalAfter = Array.from(row(game.flip_legal, flip, n), Boolean);
        view.after = shares(row(game.flip_predicted, flip, n));
        view.said = Array.from(row(game.flip_said, flip * nSites + site, n));
        view.sure = null;
        view.gained = where(n, (i) => view.legalAfter[i] && !legal[i]);
        view.lost = where(n, (i) => legal[i] && !view.legalAfter[i]);
      }
      view.wrong = where(n, (i) => view.said[i] !== view.truth[i]);
      return view;
    }

    const sum = (values, chosen) => values.reduce((total, x, i) => total + (chosen[i] ? x : 0), 0);
    const best = (values) => values.indexOf(Math.max(...values));

    function percent(x) {
      const hundred = 100 * x;
      return hundred > 0 && hundred < 0.1 ? "< 0.1\u202f%" : `${hundred >= 9.95 && hundred < 99.5 ? hundred.toFixed(0) : hundred.toFixed(1)}\u202f%`;
    }

    function listed(squares, size) {
      const names = squares.map((i) => name(i, size));
      return names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names.join("");
    }

    const counted = (k, thing) => (k === 0 ? `no ${thing}` : k === 1 ? `one ${thing}` : `${k} ${thing}s`);

    // What the position is.
    function position(view) {
      if (view.step === 0) return "The board before the first move. The model is given moves alone, and has read nothing yet.";
      const turned = view.turned.length ? ` and turns ${listed(view.turned, view.size)}` : "";
      const last = `Move ${view.step}: ${COLOURS[view.by]} plays ${name(view.played, view.size)}${turned}.`;
      const k = view.legal.filter(Boolean).length;
      if (k === 0) return `${last} Neither player can move: the game is over.`;
      const again = view.by === view.mover ? ", because the other cannot" : "";
      return `${last} Now ${COLOURS[view.mover]} moves${again}, with ${counted(k, "legal move")}.`;
    }

    // What the model predicts of it.
    function prediction(view) {
      if (!view.isRead) return view.step === 0 ? "" : "The model reads all moves of a game but the last: it predicts nothing here.";
      if (!view.legal.some(Boolean)) return "Whatever the model predicts here, it was never taught: training games end.";
      const first = best(view.before);
      const right = view.legal[first] ? "legal" : "not legal";
      return `The model puts ${percent(sum(view.before, view.legal))} of its probability on legal moves; its first choice, ` +
        `${name(first, view.size)}, is ${right}.`;
    }

    // What the probe reads.
    function probe(view, data) {
      if (!view.isRead) return "";
      const of = view.flip === null ? "the board" : "the changed board";
      const where = `The probe ${data.sites[view.site]}`;
      if (view.wrong.length === 0) return `${where} reads every square of ${of} right.`;
      const later = view.flip !== null && view.site < data.layers[0] + 2 ? "; the flip comes after it" : "";
      const some = view.wrong.length > 6 ? "" : `: ${listed(view.wrong, view.size)}`;
      return `${where} reads ${view.wrong.length} of ${view.truth.length} squares of ${of} wrong${some}${later}.`;
    }

    // What the flip did.
    function flipped(view, data) {
      if (view.flip === null) return "";
      const moved = data.layers.length === 1 ? `after layer ${data.layers[0]}` : `after layers ${data.layers[0]} to ${data.layers.at(-1)}`;
      const is = `${name(view.flip, view.size)} is flipped inside the model, from ${COLOURS[view.board[view.flip]]} to ` +
        `${COLOURS[view.truth[view.flip]]}: the residual stream is moved ${moved} along the probe's direction.`;
      if (view.gained.length + view.lost.length === 0) return `${is} That changes no legal move, so the predictions should stay.`;
      const change = (squares, becomes, verb) => {
        if (!squares.length) return "";
        const of = (values) => percent(squares.reduce((total, i) => total + values[i], 0));
        return ` On the changed board ${listed(squares, view.size)} ${becomes}: the model's probability ${verb(of(view.before), of(view.after))}.`;
      };
      const goes = (one, other) => (one === other ? `stays at ${one}` : `goes from ${one} to ${other}`);
      const n = view.legalAfter.filter(Boolean).length;
      const order = view.after.map((_, i) => i).sort((i, j) => view.after[j] - view.after[i]).slice(0, n);
      const right = order.filter((i) => view.legalAfter[i]).length;
      const told = n ? ` Of the model's ${n} likeliest moves ${right === n ? "all" : right} are legal there.` : " Nobody could move there.";
      return is + change(view.gained, view.gained.length > 1 ? "become legal" : "becomes legal", goes) +
        change(view.lost, view.lost.length > 1 ? "are no longer legal" : "is no longer legal", goes) + told;
    }

    // A square in words, for a pointer or a screen reader.
    function square(view, i, panel) {
      const here = name(i, view.size);
      if (panel === "board") {
        const played = i === view.played ? ", the last move" : view.legal[i] && view.flip === null ? ", a legal move" : "";
        return `${here}, ${COLOURS[view.truth[i]]}${i === view.flip ? ", flipped" : ""}${played}`;
      }
      if (!view.isRead) return here;
      if (panel === "probe") {
        const sure = view.sure ? ` (${percent(view.sure[i])})` : "";
        const wrong = view.said[i] === view.truth[i] ? "" : `, but it is ${COLOURS[view.truth[i]]}`;
        return `${here}: the probe reads ${COLOURS[view.said[i]]}${sure}${wrong}`;
      }
      const values = panel === "after" ? view.after : view.before;
      const legal = panel === "after" ? view.legalAfter : view.legal;
      return values ? `${here}: ${percent(values[i])}, ${legal[i] ? "legal" : "not legal"}` : here;
    }

    return { at, name, percent, position, prediction, probe, flipped, square };
  })();

  // ---- the page ------------------------------------------------------------------------------------------------

  const CELL = 10;
  const EDGE = 4.5; // room for the letters of columns and the numbers of rows
  const STYLE = `
.othello { font: .9375rem/1.5 var(--sans); }
.othello:focus { outline: none; }
.othello .boards { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .9rem 1.2rem; max-width: 43rem; margin: 0 auto; }
.othello .panel { display: grid; grid-template-rows: subgrid; grid-row: span 2; row-gap: .2rem; }
.othello .panel h4 { margin: 0; align-self: end; min-height: 1.25em; font: 600 .875rem/1.25 var(--sans); text-wrap: balance; }
.othello .panel svg { display: block; width: 100%; height: auto; overflow: visible; }
.othello .edge { font: 3px var(--sans); fill: var(--soft); text-anchor: middle; }
.othello .wood { fill: #6d9c80; }
.othello .plain { fill: var(--faint); }
.othello .line { stroke: #4a7259; stroke-width: .3; }
.othello .plain ~ .line { stroke: var(--line); }
.othello .disc { stroke: #17191d; stroke-width: .35; transition: fill .2s; }
.othello .disc.black { fill: #17191d; }
.othello .disc.white { fill: #fbfaf6; }
.othello .ghost .disc { stroke: var(--soft); opacity: .3; }
.othello .ghost .disc.black { fill: var(--soft); }
.othello .ghost .disc.white { fill: none; }
.othello .hint { fill: #17191d; opacity: .38; }
.othello .last { fill: none; stroke-width: .7; }
.othello .ring, .othello .legal { fill: none; }
.othello .value { font: 600 3.2px var(--sans); fill: #fff; text-anchor: middle; font-variant-numeric: tabular-nums; pointer-events: none; }
.othello .value.aside { font-size: 2.8px; fill: var(--ink); text-anchor: end; }
.othello .square { outline: none; }
.othello .square.flips { cursor: pointer; }
.othello .square .focus { fill: none; stroke: none; }
.othello .square:focus-visible .focus { stroke: #fff; stroke-width: .7; }
.othello .square.flips:hover .disc { stroke-width: .9; }
.othello .empty svg { display: none; }
.othello .invite { display: none; margin: 0; padding: 1rem; place-content: center; border: 1px dashed var(--line); border-radius: 8px; color: var(--soft); font-size: .9375rem; text-wrap: balance; text-align: center; }
.othello .empty .invite { display: grid; }
.othello .legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; max-width: 43rem; margin: .8rem auto 0; padding: 0; color: var(--soft); font-size: .8125rem; }
.othello .legend span { display: inline-flex; align-items: center; gap: .35rem; }
.othello .legend svg { width: 1rem; height: 1rem; flex: none; overflow: visible; }
.othello .words { max-width: 43rem; min-height: 9em; margin: .8rem auto 0; }
.othello .words p { margin: .3rem 0; max-width: none; }
.othello .sliders { max-width: 43rem; margin: 0 auto .9rem; }
.othello .sliders output { min-width: 8.5rem; }
.othello .turn { display: flex; align-items: center; gap: .8rem; }
.othello .turn .slider { flex: 1; }
.othello .slider .label { min-width: 3.4rem; }
.othello .sliders > .slider { margin-left: 3.1rem; }
.othello .clear { visibility: hidden; margin-left: auto; }
.othello .clear.on { visibility: visible; }
@media (prefers-reduced-motion: reduce) { .othello .disc { transition: none; } }
@media (max-width: 640px) {
  .othello .boards { gap: .8rem .6rem; }
  .othello .panel h4 { font-size: .8125rem; min-height: 2.5em; align-content: end; }
  .othello .invite { padding: .5rem; font-size: .8125rem; }
  .othello .sliders output { min-width: 6.4rem; font-size: .8125rem; }
  .othello .slider { gap: .5rem; }
  .othello .sliders > .slider { margin-left: 2.8rem; }
  .othello .turn { gap: .5rem; }
  .othello .slider .label { min-width: 2.9rem; }
}
@media print { .othello .invite, .othello .clear { display: none !important; } }
`;
  const INVITE = "Click a disc on the board: it is flipped inside the model, and the new predictions stand here.";
  const PANELS = ["board", "probe", "before", "after"];

  function player(element, data, tools) {
    const page = markup(element, data);
    const state = { game: 0, step: 1, site: 0, flip: null, ...data.opening };
    let focus = 0; // the square of the board that the Tab key comes to
    let timer = null;

    const steps = () => data.games[state.game].moves.length;

    function go(step) {
      const to = Math.max(0, Math.min(steps(), step));
      if (to !== state.step) state.flip = null;
      state.step = to;
      refresh();
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      page.play.textContent = "\u25b6";
      page.play.setAttribute("aria-label", "play");
    }

    function start() {
      if (state.step >= steps()) go(0);
      page.play.textContent = "\u275a\u275a";
      page.play.setAttribute("aria-label", "pause");
      timer = setInterval(() => {
        go(state.step + 1);
        if (state.step >= steps()) stop();
      }, 1000);
    }

    function flip(square) {
      const view = seen.at(data, { ...state, flip: null });
      if (!view.isRead || view.board[square] === EMPTY) return;
      stop();
      state.flip = state.flip === square ? null : square;
      refresh();
    }

    function choose(game) {
      stop();
      Object.assign(state, { game, flip: null });
      state.step = Math.min(state.step, steps());
      refresh();
    }

    page.games.forEach((button, i) => button.addEventListener("click", () => choose(i)));
    page.steps.addEventListener("input", () => {
      stop();
      go(Number(page.steps.value));
    });
    page.sites.addEventListener("input", () => {
      state.site = Number(page.sites.value);
      refresh();
    });
    page.play.addEventListener("click", () => (timer === null ? start() : stop()));
    page.clear.addEventListener("click", () => {
      state.flip = null;
      refresh();
    });
    page.root.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by === undefined || event.defaultPrevented || event.target.type === "range") return;
      event.preventDefault();
      stop();
      go(state.step + by);
    });
    page.panels.board.cells.forEach((cell, i) => {
      cell.group.addEventListener("click", () => {
        focus = i;
        flip(i);
        page.root.focus({ preventScroll: true }); // so that the arrow keys go on stepping
      });
      cell.group.addEventListener("keydown", (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data.size, ArrowDown: data.size }[event.key];
        if (event.key === "Enter" || event.key === " ") flip(i);
        else if (by === undefined) return;
        else moveFocus(i, by);
        event.preventDefault();
      });
    });

    function moveFocus(from, by) {
      const to = from + by;
      const sameRow = Math.floor(to / data.size) === Math.floor(from / data.size);
      if (to < 0 || to >= data.size * data.size || (Math.abs(by) === 1 && !sameRow)) return;
      page.panels.board.cells[from].group.setAttribute("tabindex", -1);
      focus = to;
      page.panels.board.cells[to].group.setAttribute("tabindex", 0);
      page.panels.board.cells[to].group.focus();
    }

    function refresh() {
      const view = seen.at(data, state);
      const theme = tools.theme();
      const colours = { legal: theme.lines[0], wrong: theme.lines[5], flip: theme.lines[1] };
      page.steps.max = String(steps());
      page.steps.value = String(state.step);
      page.stepLabel.textContent = `${state.step} of ${steps()}`;
      page.sites.value = String(state.site);
      page.siteLabel.textContent = data.sites[state.site];
      page.sites.disabled = !view.isRead;
      page.games.forEach((button, i) => button.setAttribute("aria-pressed", String(i === state.game)));
      page.clear.setAttribute("class", view.flip === null ? "clear" : "clear on");
      showBoard(page.panels.board, view, colours);
      showProbe(page.panels.probe, view, colours);
      const most = Math.max(0.1, ...(view.before || []), ...(view.after || []));
      showPrediction(page.panels.before, view, "before", most, colours);
      showPrediction(page.panels.after, view, "after", most, colours);
      showLegend(page.legend, view, most, colours);
      const said = [seen.position(view), seen.prediction(view), seen.probe(view, data), seen.flipped(view, data)];
      page.words.replaceChildren(...said.filter(Boolean).map((text) => make("p", {}, text)));
    }

    function showBoard(panel, view, colours) {
      panel.title.textContent = view.flip === null ? "The board" : `The board, with ${seen.name(view.flip, view.size)} flipped`;
      panel.cells.forEach((cell, i) => {
        const can = view.isRead && view.board[i] !== EMPTY;
        showDisc(cell, view.truth[i], 1);
        cell.hint.setAttribute("r", view.truth[i] === EMPTY && (view.legalAfter || view.legal)[i] ? 1.1 : 0);
        showShape(cell.last, i === view.played ? 1.3 : 0, colours.flip, 0.7);
        showShape(cell.ring, i === view.flip ? 4.6 : 0, colours.flip, 1);
        cell.group.setAttribute("class", can ? "square flips" : "square");
        cell.group.setAttribute("tabindex", i === focus ? 0 : -1);
        cell.group.setAttribute("aria-label", seen.square(view, i, "board") + (can ? ". Flip it in the model" : ""));
        cell.group.setAttribute("aria-pressed", String(i === view.flip));
        cell.group.setAttribute("aria-disabled", String(!can));
        cell.told.textContent = seen.square(view, i, "board") + (can ? " (click to flip it in the model)" : "");
      });
    }

    function showProbe(panel, view, colours) {
      panel.title.textContent = view.isRead ? `What the probe reads ${data.sites[view.site]}` : "Nothing for the probe to read";
      panel.svg.setAttribute("aria-label", view.isRead ? seen.probe(view, data) : "an empty board");
      panel.cells.forEach((cell, i) => {
        showDisc(cell, view.isRead ? view.said[i] : EMPTY, view.sure ? view.sure[i] : 1);
        showShape(cell.ring, view.isRead && view.said[i] !== view.truth[i] ? 4.5 : 0, colours.wrong, 1.1);
        cell.told.textContent = seen.square(view, i, "probe");
      });
    }

    function showPrediction(panel, view, which, most, colours) {
      const values = view[which];
      const legal = which === "after" ? view.legalAfter : view.legal;
      const flipped = view.flip === null ? "" : seen.name(view.flip, view.size);
      panel.title.textContent = which === "after" ? `The next move, with ${flipped || "a disc"} flipped` : "The next move as predicted";
      panel.node.setAttribute("class", which === "after" && !values ? "panel empty" : "panel");
      if (panel.invite) panel.invite.textContent = view.isRead ? INVITE : "Here the model has read nothing that could be flipped.";
      panel.svg.setAttribute("aria-label", values ? `probabilities of the next move ${which === "after" ? "after the flip" : "as they are"}` : "no prediction");
      panel.cells.forEach((cell, i) => {
        const p = values ? values[i] : 0;
        const ok = Boolean(values && legal[i]);
        showDisc(cell, which === "after" ? view.truth[i] : view.board[i], 1);
        const side = (CELL - 0.6) * Math.sqrt(Math.min(1, p / most));
        Object.entries({ x: (CELL - side) / 2, y: (CELL - side) / 2, width: side, height: side, fill: ok ? colours.legal : colours.wrong })
          .forEach(([key, value]) => cell.area.setAttribute(key, value));
        const fresh = which === "after" && ok && !view.legal[i];
        const gone = which === "after" && values && !ok && view.legal[i];
        cell.legal.setAttribute("stroke", gone ? colours.wrong : fresh ? colours.flip : colours.legal);
        cell.legal.setAttribute("stroke-width", ok || gone ? (fresh || gone ? 1 : 0.45) : 0);
        cell.legal.setAttribute("stroke-dasharray", gone ? "1.6 1.2" : "none");
        showValue(cell.value, p, side);
        cell.told.textContent = seen.square(view, i, which);
      });
    }

    refresh();
    tools.onTheme(refresh);
  }

  function showDisc(cell, colour, sure) {
    cell.disc.setAttribute("r", colour === EMPTY ? 0 : 3.9);
    cell.disc.setAttribute("class", `disc ${COLOURS[colour]}`);
    cell.disc.setAttribute("fill-opacity", (0.15 + 0.85 * sure).toFixed(2));
  }

  // Within a large area; beside a small one, in the corner of the square.
  function showValue(node, p, side) {
    const within = side > 4.8;
    node.setAttribute("class", within ? "value" : "value aside");
    node.setAttribute("x", within ? CELL / 2 : CELL - 1.1);
    node.setAttribute("y", within ? CELL / 2 + 1.1 : CELL - 1.2);
    node.textContent = p >= 0.005 ? String(Math.round(100 * p)) : "";
  }

  function showShape(node, r, colour, width) {
    node.setAttribute("r", r);
    node.setAttribute("stroke", colour);
    node.setAttribute("stroke-width", r ? width : 0);
  }

  function showLegend(node, view, most, colours) {
    const sign = (shape, ...texts) => make("span", {}, draw("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, shape), ...texts);
    const box = (more) => draw("rect", { x: 0.7, y: 0.7, width: 8.6, height: 8.6, fill: "none", ...more });
    const circle = (more) => draw("circle", { cx: 5, cy: 5, r: 4.2, fill: "none", ...more });
    const signs = [
      sign(circle({ r: 1.6, fill: "var(--soft)" }), "legal move"),
      sign(circle({ r: 2, stroke: colours.flip, "stroke-width": 1.2 }), "last move"),
      sign(circle({ stroke: colours.wrong, "stroke-width": 1.4 }), "misread square"),
      sign(box({ fill: colours.legal }), `${seen.percent(most)}, by area (numbers in %)`),
      sign(box({ stroke: colours.legal, "stroke-width": 0.9 }), "legal"),
      sign(box({ fill: colours.wrong }), "not legal"),
    ];
    if (view.flip !== null) {
      signs.push(
        sign(box({ stroke: colours.flip, "stroke-width": 1.4 }), "legal by the flip"),
        sign(box({ stroke: colours.wrong, "stroke-width": 1.4, "stroke-dasharray": "2 1.5" }), "legal no longer"),
      );
    } else {
      signs.push(sign(circle({ fill: "var(--soft)", "fill-opacity": 0.4 }), "paler disc: a less certain probe"));
    }
    node.replaceChildren(...signs);
  }

  // ---- parts ---------------------------------------------------------------------------------------------------

  function make(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function draw(name, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // A board of empty squares, with all that may be shown in each.
  function boardOf(size, kind) {
    const whole = size * CELL;
    const chart = kind === "before" || kind === "after";
    const focusable = kind === "board";
    const svg = draw("svg", { viewBox: `${-EDGE} ${-EDGE} ${whole + EDGE + 0.5} ${whole + EDGE + 0.5}`, role: focusable ? "group" : "img", class: chart ? "ghost" : "" });
    svg.append(draw("rect", { class: chart ? "plain" : "wood", width: whole, height: whole, rx: 0.6 }));
    for (let i = 0; i <= size; i++) {
      svg.append(draw("line", { class: "line", x1: i * CELL, x2: i * CELL, y2: whole }), draw("line", { class: "line", y1: i * CELL, y2: i * CELL, x2: whole }));
    }
    for (let i = 0; i < size; i++) {
      const letter = draw("text", { class: "edge", x: (i + 0.5) * CELL, y: -1.3 });
      const number = draw("text", { class: "edge", x: -2.3, y: (i + 0.5) * CELL + 1 });
      letter.textContent = seen.name(i, size)[0];
      number.textContent = String(i + 1);
      svg.append(letter, number);
    }
    const cells = Array.from({ length: size * size }, (_, i) => cellOf(i, size, chart, focusable));
    svg.append(...cells.map((cell) => cell.group));
    return { svg, cells };
  }

  function cellOf(i, size, chart, focusable) {
    const centre = { cx: CELL / 2, cy: CELL / 2, r: 0 };
    const cell = {
      told: draw("title", {}),
      disc: draw("circle", { class: "disc", ...centre }),
      ring: draw("circle", { class: "ring", ...centre }),
    };
    const ground = draw("rect", { width: CELL, height: CELL, fill: "transparent" });
    const parts = [cell.told, ground, cell.disc, cell.ring];
    if (chart) {
      cell.area = draw("rect", { class: "area" });
      cell.legal = draw("rect", { class: "legal", x: 0.6, y: 0.6, width: CELL - 1.2, height: CELL - 1.2 });
      cell.value = draw("text", { class: "value" });
      parts.push(cell.area, cell.legal, cell.value);
    }
    if (focusable) {
      cell.hint = draw("circle", { class: "hint", ...centre });
      cell.last = draw("circle", { class: "last", ...centre });
      parts.push(cell.hint, cell.last, draw("rect", { class: "focus", x: 0.35, y: 0.35, width: CELL - 0.7, height: CELL - 0.7 }));
    }
    const at = `translate(${(i % size) * CELL} ${Math.floor(i / size) * CELL})`;
    cell.group = draw("g", focusable ? { transform: at, role: "button", tabindex: -1 } : { transform: at }, ...parts);
    return cell;
  }

  function markup(element, data) {
    const panels = Object.fromEntries(PANELS.map((kind) => {
      const { svg, cells } = boardOf(data.size, kind);
      const title = make("h4", {});
      const node = make("div", { class: "panel" }, title, svg);
      const invite = kind === "after" ? make("p", { class: "invite" }) : null;
      if (kind === "board") svg.setAttribute("aria-label", "the board: arrow keys go from square to square, Enter flips a disc");
      if (invite) node.append(invite);
      return [kind, { node, title, svg, cells, invite }];
    }));
    const page = {
      panels,
      games: data.names.map((text) => make("button", { type: "button", "aria-pressed": "false" }, text)),
      play: make("button", { type: "button", class: "play", "aria-label": "play" }, "\u25b6"),
      clear: make("button", { type: "button", class: "clear" }, "undo the flip"),
      steps: make("input", { type: "range", min: 0, step: 1, "aria-label": "moves played" }),
      stepLabel: make("output", {}),
      sites: make("input", { type: "range", min: 0, max: data.sites.length - 1, step: 1, "aria-label": "layer of the probe" }),
      siteLabel: make("output", {}),
      legend: make("div", { class: "legend" }),
      words: make("div", { class: "words", "aria-live": "polite" }),
    };
    const slider = (text, input, label) => make("label", { class: "slider" }, make("span", { class: "label" }, text), input, label);
    const games = page.games.length > 1 ? [make("div", { class: "switch", role: "group", "aria-label": "games" }, ...page.games)] : [];
    page.root = make("div", { class: "othello", tabindex: -1 },
      make("style", {}, STYLE),
      make("div", { class: "sliders" },
        make("div", { class: "controls" }, ...games, page.clear),
        make("div", { class: "turn" }, page.play, slider("moves", page.steps, page.stepLabel)),
        slider("probe", page.sites, page.siteLabel)),
      make("div", { class: "boards" }, ...PANELS.map((kind) => panels[kind].node)),
      page.legend, page.words);
    element.append(page.root);
    return page;
  }

  if (typeof window !== "undefined") {
    window.micrographia = window.micrographia || { widgets: {} };
    window.micrographia.widgets = window.micrographia.widgets || {};
    window.micrographia.widgets["micrographia.labs.othello:board.js"] = player;
  }
  if (typeof module !== "undefined") module.exports = { seen, player };
})();

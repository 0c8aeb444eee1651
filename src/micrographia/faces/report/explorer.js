// The explorer: the reader picks frequencies and a checkpoint, and the losses are computed here, from the logits.
// The arithmetic is in explorer_loss.js; this file holds the panel.

"use strict";

function startExplorer(root, data, themeOf, redrawn) {
  const n = data.modulus || Math.round(Math.sqrt(data.folded.values.length / data.labels.length));
  const basis = ExplorerLoss.waves(n);
  const keys = Array.from(data.key_frequencies);
  const frames = data.labels.length;
  const counts = countsOf(data, n);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const state = { set: new Set(keys), rows: "all", frame: frames - 1 };
  const spectra = Array.from({ length: frames }, (_, i) =>
    ExplorerLoss.spectrum(data.folded.values.subarray(i * n * n, (i + 1) * n * n), basis));
  const everything = Array.from({ length: basis.half }, (_, i) => i + 1);
  const sums = sumsOf(data, n);
  const perFrame = data.full.values.length / Math.max(data.full_frames.length, 1);
  const remembered = new Map();

  function restricted(set) {
    const name = state.rows + ":" + [...set].join();
    if (!remembered.has(name)) {
      if (remembered.size > 40) remembered.clear();
      remembered.set(name, spectra.map((each) => ExplorerLoss.restricted(each, set, counts[state.rows], basis)));
    }
    return remembered.get(name);
  }

  function excludedAt(place, set) {
    const name = `excluded ${place}:` + [...set].join();
    if (!remembered.has(name)) {
      const logits = data.full.values.subarray(place * perFrame, (place + 1) * perFrame);
      remembered.set(name, ExplorerLoss.excluded(logits, sums, spectra[data.full_frames[place]], set, basis));
    }
    return remembered.get(name);
  }

  const chips = everything.map((k) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = keys.includes(k) ? "chip-k key" : "chip-k";
    chip.append(String(k), document.createElement("i"));
    chip.addEventListener("click", () => {
      if (!state.set.delete(k)) state.set.add(k);
      refresh();
    });
    part("chips").append(chip);
    return chip;
  });

  const chooser = { key: () => keys, all: () => everything, none: () => [], others: () => everything.filter((k) => !keys.includes(k)) };
  for (const button of root.querySelectorAll("[data-set]")) {
    button.addEventListener("click", () => {
      state.set = new Set(chooser[button.dataset.set]());
      refresh();
    });
  }
  for (const button of root.querySelectorAll("[data-rows]")) {
    button.disabled = !counts[button.dataset.rows];
    button.addEventListener("click", () => {
      state.rows = button.dataset.rows;
      refresh();
    });
  }
  const slider = part("checkpoint");
  slider.max = String(frames - 1);
  slider.value = String(state.frame);
  slider.addEventListener("input", () => {
    state.frame = Number(slider.value);
    refresh();
  });

  function sorted() {
    return [...state.set].sort((a, b) => a - b);
  }

  function refresh() {
    for (const button of root.querySelectorAll("[data-rows]")) {
      button.setAttribute("aria-pressed", String(button.dataset.rows === state.rows));
    }
    for (const button of root.querySelectorAll("[data-set]")) {
      const set = chooser[button.dataset.set]();
      const same = set.length === state.set.size && set.every((k) => state.set.has(k));
      button.setAttribute("aria-pressed", String(same));
    }
    part("label").textContent = data.labels[state.frame];
    slider.setAttribute("aria-valuetext", data.labels[state.frame]);
    showChips();
    showReadout();
    showPlot();
  }

  function showChips() {
    const shares = ExplorerLoss.energies(spectra[state.frame], basis);
    chips.forEach((chip, i) => {
      chip.setAttribute("aria-pressed", String(state.set.has(i + 1)));
      chip.title = `k = ${i + 1}${keys.includes(i + 1) ? ", key frequency" : ""}: ${percent(shares[i])} of the energy in a + b`;
      chip.lastChild.style.width = `${100 * Math.sqrt(shares[i])}%`;
    });
  }

  function showReadout() {
    const sets = [["your set", sorted()], ["key set", keys], ["all", everything]];
    const place = Array.from(data.full_frames).indexOf(state.frame);
    const kept = sets.map(([, set]) => restricted(set)[state.frame]);
    const cut = place < 0 ? null : sets.map(([, set]) => excludedAt(place, set));
    const rowsName = { all: "all pairs", train: "training pairs", test: "unseen pairs" }[state.rows];
    const table = document.createElement("table");
    table.append(row("th", ["", ...sets.map(([name]) => name)]));
    table.append(row("td", [`restricted loss, ${rowsName}`, ...kept.map((each) => each.loss)]));
    table.append(row("td", ["right with these alone", ...kept.map((each) => percent(each.accuracy))]));
    if (cut) {
      table.append(row("td", ["excluded loss, training pairs", ...cut.map((each) => each.loss)]));
      table.append(row("td", ["right without these", ...cut.map((each) => percent(each.accuracy))]));
    }
    const nodes = [said(), table];
    if (!cut) nodes.push(jumps());
    part("readout").replaceChildren(...nodes);
  }

  function said() {
    const found = restricted(sorted())[state.frame];
    const text = state.set.size === 0 ? "no frequency" : state.set.size > 12 ? `${state.set.size} frequencies` : `k = ${sorted().join(", ")}`;
    const line = document.createElement("p");
    line.append(`${data.labels[state.frame]}, with ${text}: `, strong(`${percent(found.accuracy)} right`), ", restricted loss ", strong(found.loss), ".");
    return line;
  }

  function jumps() {
    const line = document.createElement("p");
    line.className = "source";
    line.append("The excluded loss needs all logits, which this page carries for: ");
    Array.from(data.full_frames).forEach((frame, i) => {
      const jump = document.createElement("button");
      jump.type = "button";
      jump.className = "jump";
      jump.textContent = data.labels[frame];
      jump.addEventListener("click", () => {
        slider.value = String(frame);
        state.frame = frame;
        refresh();
      });
      line.append(i ? ", " : "", jump);
    });
    line.append(".");
    return line;
  }

  function showPlot() {
    const theme = themeOf();
    const x = data.epochs ? Array.from(data.epochs) : Array.from({ length: frames }, (_, i) => i);
    const curve = (name, set, line) => ({
      type: "scatter", mode: "lines", name, x, y: restricted(set).map((each) => each.loss), line,
      hovertemplate: `${name}: %{y:.4~g}<extra></extra>`,
    });
    const traces = [
      curve("all frequencies", everything, { color: theme.muted, width: 1.5, dash: "dot" }),
      curve("key set", keys, { color: theme.lines[1], width: 1.8, dash: "dash" }),
      curve("your set", sorted(), { color: theme.lines[0], width: 2.8 }),
    ];
    if (data.full_frames.length) {
      traces.push({
        type: "scatter", mode: "markers", name: "excluded, your set", x: Array.from(data.full_frames, (f) => x[f]),
        y: Array.from(data.full_frames, (_, i) => excludedAt(i, sorted()).loss),
        marker: { color: theme.lines[5], size: 9, symbol: "diamond" },
        hovertemplate: "without your set: %{y:.4~g}<extra></extra>",
      });
    }
    const rule = (along, at, text) => ({
      type: "line", [along + "ref"]: along, [(along === "x" ? "y" : "x") + "ref"]: "paper",
      [along + "0"]: at, [along + "1"]: at, [(along === "x" ? "y" : "x") + "0"]: 0, [(along === "x" ? "y" : "x") + "1"]: 1,
      line: { width: 1, dash: along === "y" ? "dot" : "solid" },
      label: { text, textposition: "end", textangle: 0, xanchor: "right", yanchor: "bottom", font: { size: 11 } },
    });
    const layout = {
      template: theme.template, height: 400, margin: { l: 8, r: 12, t: 8, b: 8 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "x unified",
      xaxis: { title: { text: data.epochs ? "epoch" : "checkpoint" }, automargin: true },
      yaxis: { title: { text: "loss (nats)" }, type: "log", exponentformat: "power", tickfont: { size: 11 }, automargin: true },
      shapes: [rule("x", x[state.frame], ""), rule("y", Math.log(n), "guessing: ln " + n)],
    };
    redrawn(part("plot"), traces, layout);
  }

  refresh();
  return refresh;

  function row(kind, texts) {
    const line = document.createElement("tr");
    texts.forEach((text, i) => {
      const cell = document.createElement(i === 0 ? "th" : kind);
      cell.append(...written(text));
      line.append(cell);
    });
    return line;
  }

  function strong(text) {
    const node = document.createElement("strong");
    node.append(...written(text));
    return node;
  }

  // A number with its power of ten set as one; texts as they are.
  function written(text) {
    if (typeof text === "string") return [text];
    const [mantissa, exponent] = short(text).split("e");
    if (exponent === undefined) return [mantissa];
    const power = document.createElement("sup");
    power.textContent = String(Number(exponent)).replace("-", "\u2212");
    return [`${mantissa}\u202f\u00d7\u202f10`, power];
  }

  function percent(x) {
    return x === 1 ? "100 %" : `${(100 * x).toFixed(x > 0.9 ? 2 : 1)} %`;
  }

  function short(x) {
    if (!Number.isFinite(x)) return "–";
    return Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4 ? x.toPrecision(4) : x.toExponential(2);
  }
}

// Pairs of each sum s: all n of them, those of the training set, and the rest.
function countsOf(data, n) {
  const all = data.counts_all ? Array.from(data.counts_all) : Array(n).fill(n);
  const train = data.counts_train ? Array.from(data.counts_train) : null;
  return { all, train, test: train ? all.map((count, s) => count - train[s]) : null };
}

// a + b mod n of every training row, from the pairs (row, 2).
function sumsOf(data, n) {
  if (!data.full_train) return new Int32Array(0);
  const pairs = data.full_train.values;
  return Int32Array.from({ length: pairs.length / 2 }, (_, i) => (pairs[2 * i] + pairs[2 * i + 1]) % n);
}

if (typeof module !== "undefined") module.exports = { countsOf, sumsOf };

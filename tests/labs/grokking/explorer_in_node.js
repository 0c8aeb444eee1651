// Reads logits and questions from standard input, answers with the losses that the page would show.

"use strict";

const [, , file] = process.argv;
globalThis.window = {}; // the script registers itself there
const { losses: loss, explorer } = require(file);
const registered = Object.entries(window.micrographia.widgets).filter(([, each]) => each === explorer).map(([name]) => name);
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const basis = loss.waves(asked.n);
const coefficients = loss.spectrum(Float32Array.from(asked.folded), basis);
const answers = asked.sets.map((set) => ({
  all: loss.restricted(coefficients, set, asked.counts_all, basis),
  train: loss.restricted(coefficients, set, asked.counts_train, basis),
  excluded: loss.excluded(Float32Array.from(asked.full), asked.sums, coefficients, set, basis),
}));
console.log(JSON.stringify({ answers, registered, energies: loss.energies(coefficients, basis) }));

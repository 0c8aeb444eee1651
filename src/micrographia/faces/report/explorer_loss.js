// The arithmetic of the explorer, without a page around it: restricted and excluded loss of any set of frequencies.
//
// Logits are read through s = a + b mod n. `folded[s * n + c]` is their mean over the pairs of one sum. The projection
// of all logits on cos(w_k s), sin(w_k s), w_k = 2 pi k / n, depends on s alone and follows from that table exactly:
// the restricted loss in its variant (i), and the part that the excluded loss takes away (Nanda et al., 2023, section
// 5.1 and their notebook). Losses are in nats; log1p keeps the relative accuracy of very small ones.

"use strict";

const ExplorerLoss = (() => {
  // Waves over s: cos and sin of w_k s for k = 0 .. n/2, each a table of n numbers.
  function waves(n) {
    const half = Math.floor(n / 2);
    const cos = [];
    const sin = [];
    for (let k = 0; k <= half; k++) {
      cos.push(Float64Array.from({ length: n }, (_, s) => Math.cos((2 * Math.PI * ((k * s) % n)) / n)));
      sin.push(Float64Array.from({ length: n }, (_, s) => Math.sin((2 * Math.PI * ((k * s) % n)) / n)));
    }
    return { n, half, cos, sin };
  }

  // Fourier coefficients of a folded table over s, for every k and c; k = 0 holds the means. For even n the wave of
  // k = n/2 has half the usual share, since its sine is nothing.
  function spectrum(folded, { n, half, cos, sin }) {
    const a = new Float64Array((half + 1) * n);
    const b = new Float64Array((half + 1) * n);
    for (let k = 0; k <= half; k++) {
      const norm = k === 0 || 2 * k === n ? 1 / n : 2 / n;
      for (let s = 0; s < n; s++) {
        const x = norm * cos[k][s];
        const y = norm * sin[k][s];
        for (let c = 0; c < n; c++) {
          a[k * n + c] += x * folded[s * n + c];
          b[k * n + c] += y * folded[s * n + c];
        }
      }
    }
    return { a, b };
  }

  // The part of the logits that the waves of the set carry, as a table [s, c].
  function projection(coefficients, set, { n, cos, sin }) {
    const table = new Float64Array(n * n);
    for (const k of set) {
      for (let s = 0; s < n; s++) {
        const x = cos[k][s];
        const y = sin[k][s];
        for (let c = 0; c < n; c++) {
          table[s * n + c] += x * coefficients.a[k * n + c] + y * coefficients.b[k * n + c];
        }
      }
    }
    return table;
  }

  // Cross-entropy of one row of logits, -log softmax at the target, and whether the target is the greatest.
  function rowLoss(logits, start, n, target) {
    const right = logits[start + target];
    let best = -Infinity;
    for (let c = 0; c < n; c++) if (c !== target && logits[start + c] > best) best = logits[start + c];
    const top = Math.max(best - right, 0);
    let rest = 0;
    for (let c = 0; c < n; c++) if (c !== target) rest += Math.exp(logits[start + c] - right - top);
    const loss = top === 0 ? Math.log1p(rest) : top + Math.log(rest + Math.exp(-top));
    return { loss, right: right > best };
  }

  // Restricted loss, variant (i): the projection on the set, plus the mean of what it leaves out, over the pairs.
  // `weights[s]` counts the pairs of each sum that are looked at.
  function restricted(coefficients, set, weights, basis) {
    const { n } = basis;
    const table = projection(coefficients, set, basis);
    let loss = 0;
    let right = 0;
    let total = 0;
    for (let s = 0; s < n; s++) {
      for (let c = 0; c < n; c++) table[s * n + c] += coefficients.a[c];
      if (!weights[s]) continue;
      const row = rowLoss(table, s * n, n, s);
      loss += weights[s] * row.loss;
      right += row.right ? weights[s] : 0;
      total += weights[s];
    }
    return { loss: loss / total, accuracy: right / total };
  }

  // Excluded loss: all logits of the given rows, less their projection on the set. `sums[i]` is a + b mod n of row i.
  function excluded(logits, sums, coefficients, set, basis) {
    const { n } = basis;
    const table = projection(coefficients, set, basis);
    const row = new Float64Array(n);
    let loss = 0;
    let right = 0;
    for (let i = 0; i < sums.length; i++) {
      for (let c = 0; c < n; c++) row[c] = logits[i * n + c] - table[sums[i] * n + c];
      const found = rowLoss(row, 0, n, sums[i]);
      loss += found.loss;
      right += found.right ? 1 : 0;
    }
    return { loss: loss / sums.length, accuracy: right / sums.length };
  }

  // Share of each frequency, k = 1 .. n/2, in what varies with s, less what all c have in common.
  function energies(coefficients, { n, half }) {
    const shares = [];
    for (let k = 1; k <= half; k++) {
      let energy = 0;
      for (const part of [coefficients.a, coefficients.b]) {
        const row = part.subarray(k * n, (k + 1) * n);
        const mean = row.reduce((sum, x) => sum + x, 0) / n;
        for (const x of row) energy += (x - mean) ** 2;
      }
      shares.push(2 * k === n ? 2 * energy : energy);
    }
    const total = shares.reduce((sum, x) => sum + x, 0) || 1;
    return shares.map((x) => x / total);
  }

  return { waves, spectrum, projection, restricted, excluded, energies };
})();

if (typeof module !== "undefined") module.exports = ExplorerLoss;

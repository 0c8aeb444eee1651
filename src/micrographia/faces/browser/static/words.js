// Numbers and tokens as they are written for people.

export function number(x) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1000) return Math.round(x).toLocaleString("en");
  if (size < 0.001) return x.toExponential(1).replace("-", "−").replace("e−", "e−").replace("e+", "e");
  return String(Number(x.toPrecision(3))).replace("-", "−");
}

export const count = (n) => n.toLocaleString("en");

// A share of tokens: in percent, below a hundredth of one as one in so many.
export function share(x) {
  if (!x) return "never";
  if (x >= 1e-4) return `${Number((100 * x).toPrecision(2))} %`;
  return `1 in ${count(Number((1 / x).toPrecision(2)))}`;
}

export const percent = (x) => (x === null || x === undefined ? "–" : `${Math.round(100 * x)} %`);

const signs = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍");

// A token within a text: line breaks and tabs by their signs, blanks alone by theirs.
export const inText = (token) => (/^ +$/.test(token) ? "␣".repeat(token.length) : signs(token) || "·");

// A token on its own: blanks can be seen too.
export const alone = (token) => signs(token).replaceAll(" ", "␣") || "·";

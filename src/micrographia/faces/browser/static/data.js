// Where the pages' data come from: this server, or the files beside the page, which register themselves as scripts.

const files = window.micrographia;
const kept = new Map();

export const fromFiles = Boolean(files);
export const NO_MODEL = "micrographia browse RUN --model NAME";

async function asked(path, options = {}) {
  const answer = await fetch(path, options).catch(() => {
    throw new Error("The server does not answer. Is `micrographia browse` still running?");
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error ?? `The server answered ${answer.status}.`);
  return content;
}

const sent = (method, path, body) =>
  asked(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
const at = (bundle) => `api/bundles/${encodeURIComponent(bundle)}`;

// A script file of data, loaded once. It calls `micrographia.give(key, value)`.
function given(key) {
  if (!files.waiting.has(key)) files.waiting.set(key, new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${key}.js`;
    script.onload = () => (files.given.has(key) ? resolve(files.given.get(key)) : reject(new Error(`${script.src} is cut short.`)));
    script.onerror = () => reject(new Error(`The file ${script.src} is missing. Export the pages again.`));
    document.head.append(script);
  }));
  return files.waiting.get(key);
}

function once(key, load) {
  if (!kept.has(key)) {
    const found = load();
    found.catch(() => kept.delete(key));
    kept.set(key, found);
  }
  return kept.get(key);
}

const matching = (rows, text) => rows.filter((row) => row.token.includes(text))
  .sort((a, b) => (b.token.trim() === text.trim()) - (a.token.trim() === text.trim())).slice(0, 30);
const chunk = (about, latent) => String(Math.floor(latent / about.chunk)).padStart(5, "0");

const fileSource = {
  about: () => given("about"),
  index: (bundle) => given(`${bundle}/index`),
  page: async (bundle, latent) => (await given(`${bundle}/latents-${chunk(await given("about"), latent)}`))[latent],
  byToken: async (bundle, text) => matching(await given(`${bundle}/tokens`), text),
  compare: (one, other) => given(`compare/${one}--${other}`),
  notes: () => given("notes"),
};
const serverSource = {
  about: () => once("about", () => asked("api/about")),
  index: (bundle) => once(`${bundle} index`, () => asked(`${at(bundle)}/index`)),
  page: (bundle, latent) => once(`${bundle} ${latent}`, () => asked(`${at(bundle)}/latents/${latent}`)),
  byToken: (bundle, text) => asked(`${at(bundle)}/tokens?text=${encodeURIComponent(text)}`),
  compare: (one, other) => once(`${one} - ${other}`, () => asked(`api/compare/${encodeURIComponent(one)}/${encodeURIComponent(other)}`)),
  notes: () => once("notes", () => asked("api/notes")),
  saveNote: async (bundle, latent, text) => {
    await sent("PUT", `${at(bundle)}/latents/${latent}/note`, { text });
    const own = ((await source.notes())[bundle] ??= {});
    if (text.trim()) own[latent] = text; else delete own[latent];
  },
  read: (bundle, text, latent) => sent("POST", `${at(bundle)}/read`, latent === undefined ? { text } : { text, latent }),
  steer: (bundle, asking) => sent("POST", `${at(bundle)}/steer`, asking),
};

export const source = fromFiles ? fileSource : serverSource;

export const isLive = (about, bundle) => Boolean(about.live && about.live.bundles.includes(bundle));

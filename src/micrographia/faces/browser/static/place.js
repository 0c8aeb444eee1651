// Addresses within the pages: #/BUNDLE/PAGE/WHAT, so that they work from a file too.

export const to = (bundle, page = "latents", what) =>
  `#/${encodeURIComponent(bundle)}/${page}${what === undefined ? "" : `/${encodeURIComponent(what)}`}`;

export function read(hash) {
  const parts = hash.replace(/^#\/?/, "").split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  return { bundle: parts[0] || null, page: parts[1] || "latents", what: parts[2] };
}

export const go = (...place) => { location.hash = to(...place); };

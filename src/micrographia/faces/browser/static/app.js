// The frame around the pages: which one the address names, its keys, light and dark.

import { compare } from "./compare.js";
import { fromFiles, source } from "./data.js";
import { fill, h } from "./dom.js";
import { feature } from "./feature.js";
import { list } from "./list.js";
import { go, read, to } from "./place.js";
import { steer } from "./steer.js";
import { text } from "./text.js";
import { tellValues } from "./tokens.js";
import { tour } from "./tour.js";

const PAGES = { latents: list, latent: feature, text, steer, compare, tour };
const NAMES = [["latents", "latents"], ["text", "text"], ["steer", "steer"], ["compare", "compare"], ["tour", "tour"]];
const KEYS = [["/", "find"], ["j k", "down and up the list"], ["Enter", "open"], ["n p", "next and previous latent"], ["r", "a random one"],
  ["l", "the list"], ["← →", "along a text"], ["?", "these keys"], ["Esc", "leave a box"]];
const part = (id) => document.getElementById(id);
let keys = {}, turn = 0;

async function show() {
  const own = ++turn, main = part("main");
  main.classList.add("waiting");
  part("tip").hidden = true;
  try {
    const about = await source.about(), names = Object.keys(about.bundles), place = read(location.hash);
    const bundle = names.includes(place.bundle) ? place.bundle : names[0];
    if (place.bundle && place.bundle !== bundle) throw new Error(`There is no bundle ${place.bundle}. There are ${names.join(", ")}.`);
    const [index, notes] = await Promise.all([source.index(bundle), source.notes()]);
    const made = await (PAGES[place.page] ?? list)({ bundle, about, index, notes, what: place.what });
    if (own !== turn) return;
    frame(bundle, names, place);
    fill(main, made.page);
    keys = { l: () => go(bundle, "latents"), ...made.keys };
    document.title = `${made.title} · micrographia`;
    if (place.page === "latents" || !place.bundle) scrollToChosen(main);
    else scrollTo(0, 0);
  } catch (error) {
    if (own !== turn) return;
    keys = {};
    fill(main, h("div", { class: "failed", role: "alert" }, error.message));
  }
  main.classList.remove("waiting");
  document.documentElement.dataset.ready = String(own);
}

const scrollToChosen = (main) => main.querySelector(".chosen:not(:first-child)")?.scrollIntoView({ block: "center" });

function frame(bundle, names, place) {
  const now = place.page === "latent" ? "latents" : place.page;
  fill(part("places"), NAMES.filter(([page]) => page !== "compare" || names.length > 1)
    .map(([page, name]) => h("a", { href: to(bundle, page), "aria-current": page === now ? "page" : null }, name)));
  const select = part("bundles");
  select.hidden = names.length < 2;
  fill(select, names.map((name) => h("option", { value: name, selected: name === bundle }, name)));
  select.onchange = () => go(select.value, place.page, ["latents", "text"].includes(place.page) ? undefined : place.what);
}

function typed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const within = event.target.closest("input, textarea, select");
  if (event.key === "Escape") return within?.blur();
  if (within || part("keys").open || (event.key === "Enter" && event.target.closest("a, button, summary, .token"))) return;
  if (event.key === "?") return help();
  if (event.key === "/") return find(event);
  keys[event.key]?.();
}

async function find(event) {
  event.preventDefault();
  if (!part("find")) {
    go(read(location.hash).bundle ?? Object.keys((await source.about()).bundles)[0], "latents");
    for (let i = 0; i < 100 && !part("find"); i++) await new Promise((done) => setTimeout(done, 20));
  }
  part("find")?.focus();
  part("find")?.select();
}

function help() {
  const box = part("keys");
  fill(box, h("h2", {}, "Keys"), h("dl", {}, KEYS.map(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)])),
    h("form", { method: "dialog" }, h("button", {}, "close")));
  box.showModal();
}

// The choice of light or dark is kept where the browser lets it; else that of the system holds.
function themes() {
  const kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("theme", value); } catch { /* a page from a file may keep nothing */ } } };
  const set = (value) => { document.documentElement.dataset.theme = value; };
  if (kept.get()) set(kept.get());
  part("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    set(dark ? "light" : "dark");
    kept.set(dark ? "light" : "dark");
  });
}

themes();
tellValues(part("tip"));
part("help").addEventListener("click", help);
document.addEventListener("keydown", typed);
addEventListener("hashchange", show);
if (location.search && !fromFiles) history.replaceState(null, "", location.pathname + location.hash); // the token stays out of sight
show();

"use strict";
// The gallery. Views live in the address: #/ (all photos), #/albums,
// #/albums/NAME, and any of them with /photo/ID behind for the viewer.

const $ = (id) => document.getElementById(id);
const SIZES = ["original", "large", "medium", "small", "thumb"];
const PAGE = 60;
const UPLOADS_AT_ONCE = 3;
const TRIES = 6;

const state = { view: "photos", album: null, photos: [], next: null, loading: false, turn: 0, at: -1, size: "large" };
const picked = new Set();

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

const size = (bytes) => bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
const photosOf = (count) => count === 1 ? "1 photo" : `${count} photos`;

function day(ms) {
  const date = new Date(ms), today = new Date();
  const days = Math.round((new Date(today).setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  const year = date.getFullYear() === today.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year });
}

let toastTimer;
function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("shown"), 2600);
}

// --- the server

async function call(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  let told;
  try { told = (await answer.json()).message; } catch { told = `the server answered ${answer.status}`; }
  throw Object.assign(new Error(told), { status: answer.status });
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure connection there is no clipboard to write to.
    const area = element("textarea", { value: text });
    ($("viewer").open ? $("viewer") : document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(`${what} copied`);
}

const absolute = (path) => new URL(path, location.origin).href;

// --- questions

function ask({ title, text = "", yes, input = null, danger = false }) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-text").hidden = !text;
  $("ask-yes").textContent = yes;
  $("ask-yes").className = danger ? "danger" : "primary";
  $("ask-input").hidden = input === null;
  $("ask-input").required = input !== null;
  $("ask-input").value = input ?? "";
  $("ask").returnValue = "";
  $("ask").showModal();
  (input === null ? $("ask-yes") : $("ask-input")).focus();
  return new Promise((done) => {
    $("ask").onclose = () => {
      const agreed = $("ask").returnValue === "yes";
      done(input === null ? agreed : agreed && $("ask-input").value.trim());
    };
  });
}

// --- views

function parseAddress() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  const place = parts.indexOf("photo");
  const photo = place >= 0 && place === parts.length - 2 ? parts.splice(place)[1] : null;
  if (parts[0] === "albums") return { view: parts[1] ? "album" : "albums", album: parts[1] ?? null, photo };
  return { view: "photos", album: null, photo };
}

function addressOf(view, album, photo) {
  const base = view === "photos" ? "#/" : view === "albums" ? "#/albums" : `#/albums/${encodeURIComponent(album)}`;
  return photo ? `${base.replace(/\/$/, "")}/photo/${photo}` : base;
}

const here = (photo) => addressOf(state.view, state.album, photo);

async function route() {
  const { view, album, photo } = parseAddress();
  if (view !== state.view || album !== state.album || !route.started) {
    route.started = true;
    state.view = view;
    state.album = album;
    await reload();
  }
  if (photo) await show(photo);
  else if ($("viewer").open) $("viewer").close();
}

async function reload() {
  state.turn += 1;
  Object.assign(state, { photos: [], next: null, loading: false, at: -1 });
  picked.clear();
  showSelection();
  $("view").replaceChildren();
  $("empty").hidden = true;
  $("more").hidden = true;
  const { view, album } = state;
  $("title").textContent = view === "album" ? album : view === "albums" ? "Albums" : "Photos";
  document.title = view === "photos" ? "Hayloft" : `${$("title").textContent} – Hayloft`;
  $("count").textContent = "";
  $("back").hidden = view !== "album";
  $("new-album").hidden = view !== "albums";
  $("share-album").hidden = view !== "album";
  $("delete-album").hidden = true;
  $("drop-album").textContent = album ? ` to ${album}` : "";
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.dataset.view === (view === "album" ? "albums" : view);
    if (current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const first = view === "photos" ? "/photos" : view === "albums" ? "/albums" : `/albums/${encodeURIComponent(album)}`;
  state.next = `${first}?limit=${PAGE}`;
  await load();
}

async function load() {
  if (state.loading || !state.next) return;
  state.loading = true;
  $("view").setAttribute("aria-busy", "true");
  const turn = state.turn;
  try {
    const page = await call(state.next);
    if (turn !== state.turn) return;
    state.next = page.next ?? null;
    if (page.albums) addAlbums(page.albums); else addPhotos(page.photos);
  } catch (error) {
    if (turn !== state.turn) return;
    toast(`Cannot load: ${error.message}`);
  } finally {
    if (turn === state.turn) {
      state.loading = false;
      $("view").setAttribute("aria-busy", "false");
      $("more").hidden = !state.next;
      showEmpty();
      // A tall window may show the end of the page at once.
      if (state.next && $("more").getBoundingClientRect().top < innerHeight + 600) load();
    }
  }
}

function showEmpty() {
  const empty = $("view").children.length === 0 && !state.next;
  $("empty").hidden = !empty;
  $("delete-album").hidden = state.view !== "album" || empty;
  const words = {
    photos: ["No photos yet", "Drop some anywhere on this page, or choose them. JPEG, PNG, WebP and GIF are taken.", "Choose photos"],
    albums: ["No albums yet", "An album is there as soon as it has a photo.", "New album"],
    album: ["This album is empty", "Drop photos anywhere on this page and they go into it.", "Choose photos"],
  }[state.view];
  $("empty-title").textContent = words[0];
  $("empty-hint").textContent = words[1];
  $("empty-action").textContent = words[2];
  if (state.view === "albums") $("count").textContent = "";
  else if (!empty) $("count").textContent = `${photosOf(state.photos.length)}${state.next ? " and more" : ""}`;
  else $("count").textContent = "";
}

function addPhotos(photos) {
  for (const photo of photos) {
    state.photos.push(photo);
    const label = day(photo.uploaded_ms);
    let rows = $("view").lastElementChild;
    if (!rows || rows.dataset.day !== label) {
      rows = element("div", { className: "rows" });
      rows.dataset.day = label;
      $("view").append(element("h2", { className: "day", textContent: label }), rows);
    }
    rows.append(tile(photo));
  }
}

function picture(photo, sizes) {
  const image = new Image();
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = photo.filename ?? "";
  image.width = photo.sizes.small.width;
  image.height = photo.sizes.small.height;
  image.onload = () => image.classList.add("loaded");
  image.sizes = sizes;
  image.srcset = [...new Set(["thumb", "small", "medium"].map((name) => `${photo.sizes[name].url} ${photo.sizes[name].width}w`))].join(", ");
  image.src = photo.sizes.small.url;
  return image;
}

function tile(photo) {
  const ratio = Math.min(3, Math.max(.45, photo.width / photo.height));
  const name = photo.filename ?? "photo";
  const shows = element("button", { className: "show", type: "button" }, picture(photo, `calc(${ratio.toFixed(3)} * clamp(8.5rem, 17vw, 14rem) * 1.2)`));
  shows.setAttribute("aria-label", `Show ${name}`);
  shows.onclick = () => picked.size ? pick(photo) : location.assign(here(photo.id));
  const picks = element("button", { className: "pick", type: "button" }, icon("m4 10 4 4 8-8"));
  picks.setAttribute("aria-label", `Select ${name}`);
  picks.setAttribute("aria-pressed", "false");
  picks.onclick = () => pick(photo);
  const made = element("div", { className: "tile" }, shows, picks);
  made.dataset.id = photo.id;
  made.style.flex = `${ratio} 1 calc(var(--row) * ${ratio})`;
  made.style.aspectRatio = ratio;
  made.style.maxWidth = `calc(var(--row) * ${ratio} * 1.8)`;
  return made;
}

function addAlbums(albums) {
  let grid = $("view").querySelector(".albums");
  if (!grid && albums.length) $("view").append(grid = element("div", { className: "albums" }));
  for (const { album, newest } of albums) {
    const when = new Date(newest.uploaded_ms).toLocaleDateString(undefined, { day: "numeric", month: "long", year: "numeric" });
    grid.append(element("a", { className: "album", href: addressOf("album", album) },
      element("div", { className: "tile" }, picture(newest, "(max-width: 40rem) 44vw, 20rem")),
      element("b", { textContent: album }), element("span", { textContent: when })));
  }
}

const tileOf = (id) => $("view").querySelector(`[data-id="${CSS.escape(id)}"]`);

function forget(ids) {
  for (const id of ids) {
    state.photos = state.photos.filter((photo) => photo.id !== id);
    picked.delete(id);
    const gone = tileOf(id), rows = gone?.parentElement;
    gone?.remove();
    if (rows && !rows.children.length) { rows.previousElementSibling.remove(); rows.remove(); }
  }
  showSelection();
  showEmpty();
}

// --- selecting several

function pick(photo) {
  if (!picked.delete(photo.id)) picked.add(photo.id);
  const made = tileOf(photo.id), is = picked.has(photo.id);
  made.classList.toggle("picked", is);
  made.querySelector(".pick").setAttribute("aria-pressed", String(is));
  showSelection();
}

function showSelection() {
  $("selection").hidden = !picked.size;
  $("view").classList.toggle("picking", picked.size > 0);
  $("selected").textContent = `${picked.size} selected`;
}

function clearSelection() {
  for (const id of [...picked]) pick({ id });
}

async function deletePhotos(ids) {
  const what = ids.length === 1 ? "this photo" : `these ${ids.length} photos`;
  if (!await ask({ title: `Delete ${what}?`, text: "It cannot be undone.", yes: "Delete", danger: true })) return false;
  try {
    for (let start = 0; start < ids.length; start += 500) {
      const body = JSON.stringify({ ids: ids.slice(start, start + 500) });
      const { deleted, failed } = await call("/photos/delete", { method: "POST", body, headers: { "content-type": "application/json" } });
      forget(deleted);
      if (failed.length) throw new Error(failed[0].message);
    }
    toast(`${photosOf(ids.length)} deleted`);
    return true;
  } catch (error) {
    toast(`Not deleted: ${error.message}`);
    return false;
  }
}

// --- the viewer

async function show(id) {
  let photo = state.photos.find((photo) => photo.id === id);
  if (!photo) {
    // A link that somebody sent: the photo is on no page that is loaded.
    try {
      photo = await call(`/photos/${encodeURIComponent(id)}`, { headers: { accept: "application/json" } });
    } catch (error) {
      toast(`Cannot show the photo: ${error.message}`);
      return history.replaceState(null, "", here());
    }
    if (parseAddress().photo !== id) return;
  }
  state.at = state.photos.findIndex((photo) => photo.id === id);
  state.shown = photo;
  state.size = "large";
  if (!$("viewer").open) $("viewer").showModal();
  $("caption").replaceChildren(element("b", { textContent: photo.filename ?? "Photo" }),
    ` · ${photo.width} × ${photo.height} · ${size(photo.bytes)} · ${new Date(photo.uploaded_ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}`);
  $("sizes").replaceChildren(...SIZES.map((name) => {
    const { width, height } = photo.sizes[name];
    const button = element("button", { type: "button", textContent: name }, element("small", { textContent: ` ${width} × ${height}` }));
    button.dataset.size = name;
    button.onclick = () => showSize(name);
    return button;
  }));
  $("download").href = photo.sizes.original.url;
  $("download").download = photo.filename ?? photo.id;
  showSize("large");
  const step = (by) => state.at >= 0 && state.photos[state.at + by];
  $("previous").disabled = !step(-1);
  $("next").disabled = !step(1);
  $("previous").hidden = !step(-1);
  $("next").hidden = !step(1);
  for (const by of [1, -1]) if (step(by)) new Image().src = step(by).sizes.large.url;
  if (state.at >= state.photos.length - 5) load();
}

function showSize(name) {
  const about = state.shown.sizes[name];
  state.size = name;
  $("shown").width = about.width;
  $("shown").height = about.height;
  $("shown").src = about.url;
  $("shown").alt = state.shown.filename ?? "";
  $("open").href = about.url;
  for (const button of $("sizes").children) button.setAttribute("aria-pressed", String(button.dataset.size === name));
}

function step(by) {
  const photo = state.at >= 0 && state.photos[state.at + by];
  if (photo) location.replace(here(photo.id));
}

function close() {
  const id = state.shown?.id;
  if (parseAddress().photo) location.replace(here());
  if ($("viewer").open) $("viewer").close();
  if (id) tileOf(id)?.querySelector(".show").focus();
}

async function deleteShown() {
  const { shown, at } = state;
  if (!await deletePhotos([shown.id])) return;
  const beside = at >= 0 && (state.photos[at] ?? state.photos[at - 1]);
  if (beside) location.replace(here(beside.id)); else close();
}

// --- uploads

const uploads = { waiting: [], running: 0, all: [], hiding: 0 };

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function enqueue(files) {
  const photos = [...files];
  if (!photos.length) return;
  if (uploads.running === 0 && !uploads.waiting.length) { uploads.all = []; $("uploads-list").replaceChildren(); }
  for (const file of photos) {
    const label = element("span", { textContent: file.name, title: file.name });
    const told = element("span", { className: "state", textContent: size(file.size) });
    const bar = element("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", file.name);
    const row = element("li", {}, label, told, bar);
    $("uploads-list").append(row);
    const upload = { file, row, told, bar, album: state.album, key: randomKey(), sent: 0, over: false };
    uploads.all.push(upload);
    uploads.waiting.push(upload);
  }
  clearTimeout(uploads.hiding);
  $("uploads").hidden = false;
  showUploads();
  while (uploads.running < UPLOADS_AT_ONCE && uploads.waiting.length) { uploads.running += 1; work(); }
}

async function work() {
  for (let upload; (upload = uploads.waiting.shift());) {
    await send(upload);
    showUploads();
  }
  uploads.running -= 1;
  if (uploads.running > 0) return;
  const failed = uploads.all.filter((upload) => upload.failed).length;
  if (!failed) uploads.hiding = setTimeout(() => { $("uploads").hidden = true; }, 2500);
  if (state.view !== "albums" || !failed) { if (!$("viewer").open) await reload(); }
}

function showUploads() {
  const { all } = uploads, over = all.filter((upload) => upload.over).length, failed = all.filter((upload) => upload.failed).length;
  const bytes = all.reduce((sum, { file }) => sum + file.size, 0), sent = all.reduce((sum, { sent }) => sum + sent, 0);
  $("uploads-all").value = bytes ? sent / bytes : 1;
  const what = over < all.length ? `Uploading ${over + 1} of ${all.length}` : `${photosOf(all.length - failed)} uploaded`;
  $("uploads-title").textContent = failed && over === all.length ? `${what}, ${failed} failed` : what;
}

// An upload is sent again where that may help; its key makes that one photo.
async function send(upload) {
  for (let attempt = 1; ; attempt += 1) {
    const { status, retryAfter, message } = await post(upload);
    if (status === 201) return finish(upload, "done", "Done");
    const again = status === 0 || status === 409 || status === 503;
    if (!again || attempt === TRIES) { upload.failed = true; return finish(upload, "failed", message); }
    const seconds = retryAfter || Math.min(8, 2 ** attempt / 2);
    upload.told.textContent = "Waiting to try again";
    await new Promise((done) => setTimeout(done, seconds * 1000));
  }
}

function finish(upload, className, text) {
  Object.assign(upload, { over: true, sent: upload.file.size });
  upload.row.className = className;
  upload.told.textContent = text;
  upload.bar.remove();
}

function post(upload) {
  return new Promise((done) => {
    const form = new FormData(), request = new XMLHttpRequest();
    form.append("photo", upload.file);
    request.open("POST", upload.album ? `/photos?album=${encodeURIComponent(upload.album)}` : "/photos");
    request.setRequestHeader("idempotency-key", upload.key);
    request.upload.onprogress = ({ loaded, total }) => {
      upload.sent = upload.file.size * loaded / total;
      upload.bar.value = loaded / total;
      upload.told.textContent = loaded === total ? "Storing" : `${Math.floor(100 * loaded / total)} %`;
      showUploads();
    };
    request.onloadend = () => {
      let message = "The connection broke off";
      try { message = JSON.parse(request.responseText).message; } catch { /* it did */ }
      done({ status: request.status, retryAfter: Number(request.getResponseHeader("retry-after")), message });
    };
    request.send(form);
  });
}

// --- what people do

$("upload").onclick = () => $("files").click();
$("files").onchange = () => { enqueue($("files").files); $("files").value = ""; };
$("more").onclick = load;
$("uploads-close").onclick = () => { $("uploads").hidden = true; };
$("empty-action").onclick = () => state.view === "albums" ? newAlbum() : $("files").click();
$("new-album").onclick = newAlbum;
async function newAlbum() {
  const name = await ask({ title: "New album", text: "It is there once you put a photo into it.", yes: "Create", input: "" });
  if (name) location.assign(addressOf("album", name));
}
$("share-album").onclick = () => copy(location.href, "Link");
$("delete-album").onclick = async () => {
  const { album } = state;
  if (!await ask({ title: `Delete “${album}”?`, text: "Its photos are deleted too. It cannot be undone.", yes: "Delete album", danger: true })) return;
  try {
    const { deleted } = await call(`/albums/${encodeURIComponent(album)}`, { method: "DELETE" });
    toast(`${photosOf(deleted)} deleted`);
    location.assign("#/albums");
  } catch (error) { toast(`Not deleted: ${error.message}`); }
};

$("copy-selected").onclick = () => {
  const links = state.photos.filter(({ id }) => picked.has(id)).map(({ url }) => absolute(url));
  copy(links.join("\n"), links.length === 1 ? "Link" : "Links");
};
$("delete-selected").onclick = () => deletePhotos([...picked]);
$("clear-selected").onclick = clearSelection;

$("previous").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("close").onclick = close;
$("copy").onclick = () => copy(absolute(state.shown.sizes[state.size].url), `Link to ${state.size}`);
$("delete").onclick = deleteShown;
$("viewer").addEventListener("cancel", (event) => { event.preventDefault(); close(); });
$("viewer").onclick = (event) => { if (event.target === $("viewer") || event.target.tagName === "FIGURE") close(); };

let swipe = null;
$("viewer").addEventListener("pointerdown", (event) => {
  swipe = event.isPrimary && event.pointerType === "touch" ? { x: event.clientX, y: event.clientY } : null;
});
$("viewer").addEventListener("pointerup", (event) => {
  if (!swipe) return;
  const dx = event.clientX - swipe.x, dy = event.clientY - swipe.y;
  swipe = null;
  if (Math.abs(dx) > 60 && Math.abs(dx) > 2 * Math.abs(dy)) step(dx < 0 ? 1 : -1);
});

addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || $("ask").open) return;
  if ($("viewer").open) {
    const act = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Delete: deleteShown, c: () => $("copy").click() }[event.key];
    if (act) { event.preventDefault(); act(); }
  } else if (event.key === "Escape" && picked.size) {
    clearSelection();
  } else if (event.target.matches?.(".tile > .show")) {
    const tiles = [...$("view").querySelectorAll(".tile > .show")], at = tiles.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tiles.length - 1 }[event.key];
    if (tiles[to]) { event.preventDefault(); tiles[to].focus(); }
    if (event.key === "x") event.target.nextElementSibling.click();
  }
});

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  enqueue(event.dataTransfer.files);
});
addEventListener("paste", (event) => { if (event.clipboardData?.files.length) enqueue(event.clipboardData.files); });
addEventListener("beforeunload", (event) => { if (uploads.running) event.preventDefault(); });
addEventListener("hashchange", route);
new IntersectionObserver((seen) => { if (seen.some(({ isIntersecting }) => isIntersecting)) load(); }, { rootMargin: "600px" }).observe($("more"));
route();

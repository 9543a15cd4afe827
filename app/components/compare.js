// The uncached image and those of the chosen schedules, at the same pixels: one zoom for all, side by side, under a
// wipe, or as an amplified difference. `props.value` is {images: [{key, letter, title, state, place, progress, path,
// alt, speed, measured, seconds, macs, fidelity: [[name, text]], facts: [{text, right}], message}]}; the first is uncached.
const query = s => element.querySelector(s);
const views = query('.views'), slider = query('.wipe-at'), pair = query('.pair');
let mode = 'side', zoom = {s: 1, x: 0, y: 0}, cards = new Map(), blink = false;
const make = (tag, name, text) => { const e = document.createElement(tag); e.className = name; if (text != null) e.textContent = text; return e; };

// --- cards --------------------------------------------------------------------------------------------------------
function newCard() {
  const root = make('figure', 'card'), frame = make('div', 'pane'), base = make('img', 'layer base'), top = make('img', 'layer top');
  const veil = make('div', 'veil'), caption = make('figcaption', 'caption');
  base.hidden = top.hidden = true; base.draggable = top.draggable = false; frame.tabIndex = 0;
  frame.append(base, top, veil); root.append(frame, caption);
  gestures(frame);
  return {root, frame, base, top, veil, caption};
}
const served = path => path ? `${window.gradio_config?.root ?? ''}/gradio_api/file=${encodeURI(path)}` : null;
function source(img, path, alt) {
  const url = served(path);
  if (!url) { img.hidden = true; img.removeAttribute('src'); delete img.dataset.url; return; }
  if (img.dataset.url !== url) { img.dataset.url = url; img.src = url; }
  img.alt = alt ?? ''; img.hidden = false;
}
function fillCaption(box, image) {
  box.replaceChildren();
  const head = make('div', 'head');
  if (image.letter) head.append(make('span', 'letter', image.letter));
  head.append(make('span', 'title', image.title));
  box.append(head);
  if (image.state !== 'done') return;
  const speed = make('div', 'speed');
  speed.append(make('b', '', image.speed ?? ''), make('span', '', image.measured));
  box.append(speed, make('div', 'small', image.macs));
  if (image.fidelity?.length) {
    const list = make('dl', 'fidelity');
    for (const [name, text, help] of image.fidelity) { const d = make('div', ''); d.title = help ?? ''; d.append(make('dt', '', name), make('dd', '', text)); list.append(d); }
    box.append(list);
  }
  if (image.facts?.length) {
    const list = make('ul', 'facts');
    list.setAttribute('aria-label', 'what the judge reads in the picture');
    for (const fact of image.facts) {
      const chip = make('li', fact.right ? 'right' : 'wrong');
      chip.append(make('span', 'mark', fact.right ? '✓' : '✗'), make('span', '', fact.text));
      chip.title = fact.right ? 'the judge reads this fact in the picture' : 'the judge does not read this fact in the picture';
      list.append(chip);
    }
    box.append(list);
  }
}
function waiting(image) {
  if (image.state === 'done') return '';
  if (image.state === 'failed') return image.message ?? 'not rendered';
  if (image.state === 'running') return `rendering, ${Math.round(100 * image.progress)} %`;
  return image.place > 0 ? `waiting, ${image.place} before it` : 'waiting for its turn';
}
function render() {
  const images = props.value?.images ?? [], uncached = images[0];
  query('.empty').hidden = images.length > 0;
  element.dataset.mode = mode;
  for (const b of element.querySelectorAll('.mode')) b.setAttribute('aria-checked', b.dataset.mode === mode);
  const others = images.slice(1), choices = JSON.stringify(others.map(o => [o.key, o.letter]));
  if (pair.dataset.choices !== choices) {
    const kept = pair.value; pair.dataset.choices = choices; pair.length = 0;
    for (const o of others) pair.add(new Option((o.letter ? o.letter + ' · ' : '') + o.title, o.key));
    if (others.some(o => o.key === kept)) pair.value = kept;
  }
  query('.wiping').hidden = mode !== 'wipe' || !others.length;
  pair.hidden = others.length < 2;
  let shown = images;
  if (mode === 'wipe' && others.length) shown = [others.find(o => o.key === pair.value) ?? others[0]];
  if (mode === 'difference' && others.length) shown = others;
  views.dataset.count = shown.length;
  const keys = new Set(shown.map(i => i.key));
  for (const [key, card] of cards) if (!keys.has(key)) { card.root.remove(); cards.delete(key); }
  shown.forEach((image, place) => {
    let card = cards.get(image.key);
    if (!card) { card = newCard(); cards.set(image.key, card); }
    if (views.children[place] !== card.root) views.insertBefore(card.root, views.children[place] ?? null);
    card.root.dataset.key = image.key; card.root.dataset.state = image.state;
    const two = mode !== 'side' && others.length && uncached?.path && image.path && image !== uncached;
    source(card.base, two || (blink && uncached?.path) ? uncached.path : image.path, two ? uncached.alt : image.alt);
    source(card.top, two ? image.path : null, image.alt);
    card.frame.classList.toggle('differs', mode === 'difference' && two === true || mode === 'difference' && !!two);
    card.frame.classList.toggle('wipes', mode === 'wipe' && !!two);
    card.frame.setAttribute('aria-label', `${image.letter ? image.letter + ', ' : ''}${image.title}: plus and minus zoom, arrows move, 0 resets`);
    const text = waiting(image);
    card.veil.textContent = text; card.veil.hidden = !text; card.veil.classList.toggle('bad', image.state === 'failed');
    card.veil.style.setProperty('--share', image.state === 'running' ? image.progress : 0);
    const said = JSON.stringify(image);
    if (card.said !== said) { card.said = said; fillCaption(card.caption, image); }
  });
  place();
}

// --- one zoom for all -----------------------------------------------------------------------------------------------
function place() {
  const limit = (v, s) => Math.max(1 - s, Math.min(0, v));     // the picture always covers its frame
  zoom.x = limit(zoom.x, zoom.s); zoom.y = limit(zoom.y, zoom.s);
  views.style.setProperty('--zoom', `translate(${100 * zoom.x}%, ${100 * zoom.y}%) scale(${zoom.s})`);
  views.style.setProperty('--wipe', `${slider.value}%`);               // where the line stands in the frame,
  views.style.setProperty('--wipe-in', `${Math.max(0, Math.min(100, (slider.value - 100 * zoom.x) / zoom.s))}%`);   // and in the picture
  views.classList.toggle('near', zoom.s > 2.5);
  query('.reset').disabled = zoom.s === 1;
  views.dataset.zoom = zoom.s.toFixed(2);
}
function zoomBy(factor, fx = 0.5, fy = 0.5) {                   // (fx, fy): the point of the frame that stays where it is
  const s = Math.max(1, Math.min(16, zoom.s * factor)), k = s / zoom.s;
  zoom = {s, x: fx - (fx - zoom.x) * k, y: fy - (fy - zoom.y) * k};
  place();
}
function gestures(frame) {
  const share = e => { const b = frame.getBoundingClientRect(); return [(e.clientX - b.left) / b.width, (e.clientY - b.top) / b.height]; };
  const fingers = new Map();
  let spread = 0;
  frame.addEventListener('wheel', e => {                       // the page scrolls over the pictures unless asked otherwise
    if (!e.ctrlKey && document.activeElement !== frame) return;
    e.preventDefault(); zoomBy(Math.exp(-e.deltaY / 300), ...share(e));
  }, {passive: false});
  frame.addEventListener('dblclick', e => zoom.s > 1 ? (zoom = {s: 1, x: 0, y: 0}, place()) : zoomBy(3, ...share(e)));
  frame.addEventListener('pointerdown', e => {
    fingers.set(e.pointerId, share(e));
    if (mode === 'wipe' && zoom.s === 1) { slider.value = 100 * share(e)[0]; place(); }
    if (e.pointerType !== 'touch') frame.setPointerCapture(e.pointerId);
  });
  frame.addEventListener('pointermove', e => {
    const from = fingers.get(e.pointerId);
    if (!from) return;
    const to = share(e);
    if (fingers.size === 2) {
      fingers.set(e.pointerId, to);
      const [a, b] = [...fingers.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (spread) zoomBy(now / spread, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      spread = now; return;
    }
    if (mode === 'wipe' && zoom.s === 1) slider.value = 100 * to[0];
    else { zoom.x += to[0] - from[0]; zoom.y += to[1] - from[1]; }
    fingers.set(e.pointerId, to); place();
  });
  for (const end of ['pointerup', 'pointercancel']) frame.addEventListener(end, e => { fingers.delete(e.pointerId); spread = 0; });
  frame.addEventListener('keydown', e => {
    const step = 0.1;
    const act = {'+': () => zoomBy(1.4), '=': () => zoomBy(1.4), '-': () => zoomBy(1 / 1.4), '0': () => { zoom = {s: 1, x: 0, y: 0}; place(); },
      ArrowLeft: () => { zoom.x += step; place(); }, ArrowRight: () => { zoom.x -= step; place(); },
      ArrowUp: () => { zoom.y += step; place(); }, ArrowDown: () => { zoom.y -= step; place(); }}[e.key];
    if (act && !e.ctrlKey && !e.metaKey) { e.preventDefault(); act(); }
    if (e.key === 'u' && !blink) { blink = true; render(); }
  });
  frame.addEventListener('keyup', e => { if (e.key === 'u') { blink = false; render(); } });
}

// --- tools --------------------------------------------------------------------------------------------------------
const modes = [...element.querySelectorAll('.mode')];
modes.forEach((b, i) => {
  b.addEventListener('click', () => { mode = b.dataset.mode; render(); });
  b.addEventListener('keydown', e => {
    const to = {ArrowRight: i + 1, ArrowLeft: i - 1}[e.key];
    if (to === undefined) return;
    e.preventDefault(); const next = modes[(to + modes.length) % modes.length]; next.focus(); next.click();
  });
});
slider.addEventListener('input', place);
pair.addEventListener('change', render);
query('.reset').addEventListener('click', () => { zoom = {s: 1, x: 0, y: 0}; place(); });
query('.in').addEventListener('click', () => zoomBy(1.5));
watch('value', render);
render();

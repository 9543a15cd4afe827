// The paintable schedule: components across, denoising steps down (turned round on a narrow screen).
// `props.value` is {rows: ["0110…", one string per step], times: [int per step], own: bool, gate, name, point,
// others: schedules whose differences can be outlined}; 1 = compute.
// The first step always computes, so its cells are locked. One message to Python per gesture, never per cell.
const model = props.model;                       // {columns: [{block, index, words, cost, gated}], parts: [...], fixed, fixedGated, once, uncached, grid, presets}
const C = model.columns.length;
const canvas = element.querySelector('canvas');
const pen = canvas.getContext('2d');
const status = element.querySelector('.status');
const figures = element.querySelector('.figures');
const query = s => element.querySelector(s);

let value = props.value, R = value.rows.length, bits = parse(value.rows);
let undo = [], redo = [], header = null, sent = value, drag = null, cursor = {r: Math.min(1, R - 1), c: 0}, hover = null;
let other = null;                                // {rows, times, name}: the schedule whose differences are outlined
let turned = false, cell = {w: 10, h: 14}, left = 46, top = 34, queued = false, asked = 0;
let slots = [], starts = [];                     // the sampler's steps in order, those the schedule leaves out too; where rows begin
const GAP = 6;                                   // pixels that a step left out still takes

function parse(rows) { return Uint8Array.from(rows.join(''), Number); }
function strings() { return Array.from({length: R}, (_, r) => bits.subarray(r * C, r * C + C).join('')); }
const clock = t => Number.isInteger(t) ? t : t.toFixed(3);    // PixArt's times are whole numbers, FLUX's sigmas are not
const on = (r, c) => r === 0 || bits[r * C + c] === 1;

// --- figures ------------------------------------------------------------------------------------------------------
// The same sum as the library's `full` convention for families whose only neutral bits are the first step's; the
// server confirms the figure when a gesture ends.
function macs() {
  const gate = value.gate ?? R;                   // from T-GATE's gate on one guidance half is left
  let total = model.once;
  for (let r = 0; r < R; r++) {
    total += r < gate ? model.fixed : model.fixedGated;
    for (let c = 0; c < C; c++) if (on(r, c)) total += r < gate ? model.columns[c].cost : model.columns[c].gated;
  }
  return total;
}
function count() { let n = 0; for (let r = 0; r < R; r++) for (let c = 0; c < C; c++) n += on(r, c); return n; }
const giga = n => n >= 1e12 ? (n / 1e12).toFixed(2) + ' TMACs' : (n / 1e9).toFixed(2) + ' GMACs';
function show(total, exact) {                     // exact: the server's answer; without it MACs are all there is
  const times = model.uncached / total, faster = exact ? exact.faster : times, by = exact ? exact.by : 'MACs';
  const share = 100 * count() / (R * C);
  figures.innerHTML = `<b>${times.toFixed(2)}×</b> fewer MACs`
    + `<span class="faster">${faster.toFixed(2)}× faster, predicted from ${by}</span>`
    + `<span>${giga(total)} of ${giga(model.uncached)}</span><span>${share.toFixed(0)} % of the cells computed</span>`
    + `<span>${R} step${R === 1 ? '' : 's'}</span>`;
  figures.dataset.macs = total;
  figures.dataset.confirmed = Boolean(exact);
  element.dataset.rows = R; element.dataset.bits = strings().join(' ');
}
async function confirmFigures() {
  const mine = ++asked;
  try {
    const exact = await server.predict(props.value);
    if (mine === asked && exact.macs) show(exact.macs, exact);
  } catch (e) { /* the browser's own figure stays, marked as not confirmed */ }
}

// --- drawing ------------------------------------------------------------------------------------------------------
const css = name => getComputedStyle(element).getPropertyValue(name).trim();
// Which steps there are to show: all of the sampler's where the schedule stands on some of them, else just its own.
function layOut() {
  const known = value.times && value.times.every(t => model.grid.includes(t));
  slots = known ? model.grid.map(t => ({t, r: value.times.indexOf(t)})) : Array.from({length: R}, (_, r) => ({t: value.times?.[r], r}));
}
function measure() {
  const width = element.querySelector('.sheet').clientWidth;
  if (!width) return;
  turned = width < 700;
  const d = window.devicePixelRatio || 1;
  layOut();
  const gaps = slots.filter(s => s.r < 0).length * GAP;
  left = turned ? 52 : 78; top = turned ? 22 : 34;
  cell.w = turned ? (width - left - 1 - gaps) / R : (width - left - 1) / C;
  cell.h = turned ? 16 : Math.max(9, Math.min(16, 340 / R));
  const height = top + 1 + (turned ? C * cell.h : R * cell.h + gaps);
  let along = turned ? left : top;
  starts = [];
  for (const s of slots) { s.at = along; if (s.r >= 0) starts[s.r] = along; along += s.r < 0 ? GAP : turned ? cell.w : cell.h; }
  starts[R] = along;
  canvas.width = Math.round(width * d); canvas.height = Math.round(height * d);
  canvas.style.height = height + 'px';
  pen.setTransform(d, 0, 0, d, 0, 0);
  draw();
}
function box(r, c) { return turned ? [starts[r], top + c * cell.h] : [left + c * cell.w, starts[r]]; }
function redraw() { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } }
function draw() {
  const ink = css('--body-text-color'), faint = css('--body-text-color-subdued'), line = css('--border-color-primary');
  const empty = css('--ecad-cell'), d = window.devicePixelRatio || 1;
  const colours = model.parts.map((_, i) => css(`--ecad-part-${i}`));
  pen.clearRect(0, 0, canvas.width / d, canvas.height / d);
  for (let r = 0; r < R; r++) for (let c = 0; c < C; c++) {
    const [x, y] = box(r, c), part = model.columns[c].index;
    pen.globalAlpha = r === 0 ? 0.45 : 1;
    pen.fillStyle = on(r, c) ? colours[part % colours.length] : empty;
    pen.fillRect(x + 0.5, y + 0.5, cell.w - 1, cell.h - 1);
  }
  pen.globalAlpha = 1;
  pen.strokeStyle = line; pen.lineWidth = 1; pen.beginPath();
  for (let c = 0; c <= C; c++) if (c === C || c === 0 || model.columns[c].block !== model.columns[c - 1].block) {
    const [x, y] = box(0, c);
    if (turned) { pen.moveTo(left, y); pen.lineTo(starts[R], y); } else { pen.moveTo(x, top - 14); pen.lineTo(x, starts[R]); }
  }
  pen.stroke();
  pen.strokeStyle = faint; pen.setLineDash([2, 4]); pen.beginPath();
  for (const s of slots) if (s.r < 0) {
    const m = s.at + GAP / 2;
    if (turned) { pen.moveTo(m, top); pen.lineTo(m, top + C * cell.h); } else { pen.moveTo(left, m); pen.lineTo(left + C * cell.w, m); }
  }
  pen.stroke(); pen.setLineDash([]);
  labels(ink, faint, colours);
  if (other) outlineDifferences(ink);
  const spot = drag ? drag.at : (document.activeElement === canvas ? cursor : hover);
  if (spot && spot.r >= 0 && spot.c >= 0) {
    const [x, y] = box(spot.r, spot.c);
    pen.strokeStyle = ink; pen.lineWidth = 2; pen.strokeRect(x + 1, y + 1, cell.w - 2, cell.h - 2);
  }
  if (drag?.rectangle) {
    const [x0, y0] = box(Math.min(drag.from.r, drag.at.r), Math.min(drag.from.c, drag.at.c));
    const [x1, y1] = box(Math.max(drag.from.r, drag.at.r) + 1, Math.max(drag.from.c, drag.at.c) + 1);
    pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.setLineDash([4, 3]);
    pen.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0 - 1, y1 - y0 - 1); pen.setLineDash([]);
  }
}
function labels(ink, faint, colours) {
  pen.font = `11px ${css('--font') || 'sans-serif'}`; pen.textBaseline = 'middle';
  const every = turned ? (cell.w < 22 ? 4 : 1) : (cell.h < 11 ? 2 : 1);
  for (let r = 0; r < R; r++) {
    const [x, y] = box(r, 0);
    if (turned) {
      if (r % every) continue;
      pen.fillStyle = faint; pen.textAlign = 'center'; pen.fillText(r, x + cell.w / 2, top - 10);
    } else {
      if (r % every) continue;
      pen.textAlign = 'right'; pen.fillStyle = ink; pen.fillText(r, 30, y + cell.h / 2);
      if (header === r) { pen.textAlign = 'left'; pen.fillText('×', 2, y + cell.h / 2); pen.textAlign = 'right'; }
      if (value.times) {
        pen.fillStyle = value.own ? ink : faint; pen.fillText('t ' + clock(value.times[r]), left - 8, y + cell.h / 2);
      }
    }
  }
  const perBlock = C / new Set(model.columns.map(k => k.block)).size;
  const step = turned ? 1 : (perBlock * cell.w < 20 ? 4 : perBlock * cell.w < 30 ? 2 : 1);
  let seen = -1;
  for (let c = 0; c < C; c++) {
    const [x, y] = box(0, c), k = model.columns[c];
    pen.fillStyle = colours[k.index % colours.length];
    if (turned) pen.fillRect(left - 8, y + 1, 5, cell.h - 2); else pen.fillRect(x + 1, top - 8, cell.w - 2, 5);
    if (c && model.columns[c - 1].block === k.block) continue;
    seen += 1;
    if (seen % step) continue;
    let n = 1; while (c + n < C && model.columns[c + n].block === k.block) n++;
    pen.fillStyle = faint;
    if (turned) { pen.textAlign = 'right'; pen.fillText(seen, left - 14, y + n * cell.h / 2); }
    else { pen.textAlign = 'center'; pen.fillText(seen, x + n * cell.w / 2, top - 20); }
  }
  pen.fillStyle = faint; pen.textAlign = 'left';
  pen.fillText(turned ? 'block' : 'step', 0, turned ? top - 10 : top - 20);
}
function outlineDifferences(ink) {
  const theirs = new Map((other.times ?? other.rows.map((_, r) => r)).map((t, r) => [t, other.rows[r]]));
  pen.strokeStyle = css('--ecad-edited'); pen.lineWidth = 1.5;
  for (let r = 1; r < R; r++) {
    const row = theirs.get(value.times ? value.times[r] : r);
    if (!row) continue;
    for (let c = 0; c < C; c++) if ((row[c] === '1') !== on(r, c)) {
      const [x, y] = box(r, c); pen.strokeRect(x + 1.25, y + 1.25, cell.w - 2.5, cell.h - 2.5);
    }
  }
}

// --- words --------------------------------------------------------------------------------------------------------
function describe(r, c) {
  const k = model.columns[c], time = value.times ? ` (t = ${clock(value.times[r])})` : '';
  const where = `${k.words}, step ${r}${time}: `;
  if (r === 0) return where + 'computed; the first step always is';
  if (on(r, c)) return where + 'computed';
  let from = r - 1; while (!on(from, c)) from--;
  return where + `reused from step ${from}`;
}
function say(text) { status.textContent = text; }

// --- editing ------------------------------------------------------------------------------------------------------
const set = (r, c, v) => { if (r > 0 && r < R && c >= 0 && c < C) bits[r * C + c] = v; };
function stroke(a, b, v) {
  const n = Math.max(Math.abs(b.r - a.r), Math.abs(b.c - a.c), 1);
  for (let i = 0; i <= n; i++) set(Math.round(a.r + (b.r - a.r) * i / n), Math.round(a.c + (b.c - a.c) * i / n), v);
}
function fill(a, b, v) {
  for (let r = Math.min(a.r, b.r); r <= Math.max(a.r, b.r); r++)
    for (let c = Math.min(a.c, b.c); c <= Math.max(a.c, b.c); c++) set(r, c, v);
}
const snapshot = () => ({bits: bits.slice(), value});
function publish() {
  sent = {...value, rows: strings()};
  value = sent;
  props.value = sent;
  trigger('input', {});
  buttons(); show(macs()); confirmFigures(); redraw();
}
function commit(before) {
  if (before.bits.length === bits.length && before.bits.every((x, i) => x === bits[i])) { redraw(); confirmFigures(); return; }
  undo.push(before); if (undo.length > 200) undo.shift(); redo = [];
  const base = value.point == null && value.edited ? value.base : value.name;
  value = {...value, point: null, edited: true, base, name: `edited from ${base}`};
  publish();
}
function restore(from, to) {
  if (!from.length) return;
  to.push(snapshot());
  const last = from.pop();
  value = last.value; bits = last.bits; R = bits.length / C;
  cursor.r = Math.min(cursor.r, R - 1);
  publish(); title(); measure();
}
function adopt(next, remember) {           // a schedule that did not come from painting: a point, a preset, an upload
  if (remember) { undo.push(snapshot()); redo = []; }
  value = next; sent = next; R = next.rows.length; bits = parse(next.rows); cursor.r = Math.min(cursor.r, R - 1);
  buttons(); title(); otherChoices(); show(macs()); confirmFigures(); measure();
}
function toggleLine(cells) {               // all computed -> all reused, otherwise all computed
  const before = snapshot(), free = cells.filter(([r]) => r > 0);
  const v = free.every(([r, c]) => bits[r * C + c]) ? 0 : 1;
  free.forEach(([r, c]) => set(r, c, v));
  commit(before);
}
// A schedule may leave steps out: it then names its own subset of the sampler's times (never without the first one,
// which the noise belongs to).
const canDrop = () => value.times && slots.length === model.grid.length && value.gate == null;
function dropStep(r) {
  if (!canDrop() || r < 1 || R < 3) { say(r < 1 ? 'the first step always stays' : 'this step cannot be left out'); return; }
  retime([...strings().slice(0, r), ...strings().slice(r + 1)], value.times.filter((_, k) => k !== r));
  say(`step ${r} is left out; the others keep their times`);
}
function restoreStep(t) {
  const times = [...value.times, t].sort((a, b) => b - a), k = times.indexOf(t), rows = strings();
  rows.splice(k, 0, '1'.repeat(C));
  retime(rows, times);
  say(`the step at t = ${clock(t)} is back, computed`);
}
function retime(rows, times) {
  const before = snapshot(), base = value.point == null && value.edited ? value.base : value.name;
  undo.push(before); redo = [];
  bits = parse(rows); R = rows.length; cursor.r = Math.min(cursor.r, R - 1); header = hover = null;
  value = {...value, times, own: times.length !== model.grid.length, point: null, edited: true, base, name: `edited from ${base}`};
  publish(); title(); measure();
}
const rowCells = r => Array.from({length: C}, (_, c) => [r, c]);
const columnCells = c => Array.from({length: R}, (_, r) => [r, c]);
const blockCells = c => model.columns.flatMap((k, i) => k.block === model.columns[c].block ? columnCells(i) : []);

// --- pointer ------------------------------------------------------------------------------------------------------
function at(e) {
  const b = canvas.getBoundingClientRect();
  const x = e.clientX - b.left, y = e.clientY - b.top, along = turned ? x : y;
  const c = turned ? Math.floor((y - top) / cell.h) : Math.floor((x - left) / cell.w);
  let r = along < starts[0] ? -1 : R;
  for (let k = 0; k < R; k++) if (along >= starts[k]) r = k;
  if (along >= starts[R]) r = R;
  const gap = slots.find(s => s.r < 0 && along >= s.at && along < s.at + GAP);
  return {r, c, x, y, gap};
}
const inside = p => p.r >= 0 && p.r < R && p.c >= 0 && p.c < C;
const clamp = p => ({r: Math.max(0, Math.min(R - 1, p.r)), c: Math.max(0, Math.min(C - 1, p.c))});
canvas.addEventListener('pointerdown', e => {
  if (e.button) return;
  const p = at(e);
  if (p.gap) { restoreStep(p.gap.t); return; }
  if (!inside(p)) {
    if (p.r >= 0 && p.r < R && p.c < 0) { if (!turned && p.x < 12) dropStep(p.r); else toggleLine(rowCells(p.r)); }
    else if (p.c >= 0 && p.c < C && p.r < 0) {
      const tick = turned ? p.x > left - 10 : p.y > top - 10;
      toggleLine(tick ? columnCells(p.c) : blockCells(p.c));
    }
    return;
  }
  if (e.pointerType !== 'touch' || query('.grid').classList.contains('touch-paints')) canvas.setPointerCapture(e.pointerId);
  drag = {before: snapshot(), v: on(p.r, p.c) ? 0 : 1, from: p, at: p, rectangle: e.shiftKey, type: e.pointerType, moved: false};
  if (!drag.rectangle && e.pointerType !== 'touch') set(p.r, p.c, drag.v);
  cursor = clamp(p); say(p.r ? describe(p.r, p.c) : 'the first step always computes'); show(macs()); redraw();
});
canvas.addEventListener('pointermove', e => {
  if (!drag) {
    const p = at(e), over = inside(p) && !p.gap ? p : null;
    const near = !turned && p.x < left && p.r > 0 && p.r < R ? p.r : null;
    if (near !== header) { header = near; redraw(); }
    if (p.gap) say(`the step at t = ${clock(p.gap.t)} is left out: click to bring it back`);
    else if (near !== null) say(p.x < 12 ? `leave step ${near} out` : `switch the whole step ${near}`);
    if (over?.r !== hover?.r || over?.c !== hover?.c) { hover = over; if (over) say(describe(over.r, over.c)); redraw(); }
    return;
  }
  if (drag.type === 'touch' && !query('.grid').classList.contains('touch-paints')) return;
  for (const q of e.getCoalescedEvents?.() ?? [e]) {
    const p = clamp(at(q));
    if (p.r !== drag.at.r || p.c !== drag.at.c) drag.moved = true;
    if (!drag.rectangle) stroke(drag.at, p, drag.v);
    drag.at = p;
  }
  say(describe(drag.at.r, drag.at.c)); show(macs()); redraw();
});
canvas.addEventListener('pointerup', () => {
  if (!drag) return;
  const d = drag; drag = null;
  if (d.rectangle) fill(d.from, d.at, d.v);
  else if (d.type === 'touch' && !d.moved) set(d.from.r, d.from.c, d.v);
  commit(d.before); say(describe(cursor.r, cursor.c));
});
canvas.addEventListener('pointercancel', () => {
  if (!drag) return;
  const d = drag; drag = null;
  if (d.type === 'touch' && !query('.grid').classList.contains('touch-paints')) { bits = d.before.bits; redraw(); return; }
  commit(d.before);
});
canvas.addEventListener('pointerleave', () => { hover = header = null; redraw(); });

// --- keyboard -----------------------------------------------------------------------------------------------------
const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
canvas.addEventListener('keydown', e => {
  const key = e.key.toLowerCase();
  if ((e.ctrlKey || e.metaKey) && (key === 'z' || key === 'y')) {
    e.preventDefault();
    if (key === 'y' || e.shiftKey) restore(redo, undo); else restore(undo, redo);
    return;
  }
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (moves[e.key]) {
    e.preventDefault();
    let [dr, dc] = moves[e.key]; if (turned) [dr, dc] = [dc, dr];
    const to = clamp({r: cursor.r + dr, c: cursor.c + dc});
    if (e.shiftKey) { const before = snapshot(); stroke(to, to, on(cursor.r, cursor.c) ? 1 : 0); cursor = to; commit(before); }
    cursor = to; say(describe(to.r, to.c)); redraw();
  } else if (key === ' ' || key === 'enter') {
    e.preventDefault();
    const before = snapshot(); set(cursor.r, cursor.c, on(cursor.r, cursor.c) ? 0 : 1); commit(before);
    say(describe(cursor.r, cursor.c));
  } else if (key === 's') toggleLine(rowCells(cursor.r));
  else if (key === 'l') toggleLine(columnCells(cursor.c));
  else if (key === 'b') toggleLine(blockCells(cursor.c));
  else if (key === 'x') dropStep(cursor.r);
  else if (key === 'i') {
    const t = value.times && slots.find(s => s.r < 0 && s.t < value.times[cursor.r])?.t;
    if (t != null) restoreStep(t);
  }
});
canvas.addEventListener('focus', () => { say(describe(cursor.r, cursor.c)); redraw(); });
canvas.addEventListener('blur', redraw);

// --- toolbar ------------------------------------------------------------------------------------------------------
function buttons() { query('.undo').disabled = !undo.length; query('.redo').disabled = !redo.length; }
function title() { query('.name').textContent = value.name || 'schedule'; }
query('.undo').addEventListener('click', () => restore(undo, redo));
query('.redo').addEventListener('click', () => restore(redo, undo));
query('.paint').addEventListener('click', e => {
  const paints = query('.grid').classList.toggle('touch-paints');
  e.currentTarget.setAttribute('aria-pressed', paints);
});
const presets = query('.presets');
for (const name of model.presets) presets.add(new Option(name, name));
presets.addEventListener('change', async () => {
  const name = presets.value;
  presets.value = '';
  const next = await server.preset({name});
  if (next.rows) { const before = snapshot(); adopt({...next, others: value.others}, false); undo.push(before); redo = []; publish(); }
});
const against = query('.against');
function otherChoices() {
  const kept = against.value;
  against.length = 1;
  for (const o of value.others ?? []) against.add(new Option(o.title, o.title));
  against.value = [...against.options].some(o => o.value === kept) ? kept : '';
  other = (value.others ?? []).find(o => o.title === against.value) ?? null;
}
against.addEventListener('change', () => { otherChoices(); redraw(); });
query('.download').addEventListener('click', async () => {
  const file = await server.export_schedule(props.value);
  if (!file.json) return;
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([file.json], {type: 'application/json'}));
  a.download = file.name; a.click(); setTimeout(() => URL.revokeObjectURL(a.href), 5000);
});
const picker = query('input[type=file]');
query('.upload').addEventListener('click', () => picker.click());
picker.addEventListener('change', async () => {
  const file = picker.files[0];
  if (!file) return;
  const small = file.size <= props.largest;
  trigger('upload', {name: file.name, size: file.size, text: small ? await file.text() : null});
  picker.value = '';
});

watch('value', () => {
  const next = props.value;
  if (!next?.rows || next === sent || (next.rows.join() === strings().join() && next.name === value.name && String(next.times) === String(value.times))) {
    if (next?.rows) { value = next; sent = next; title(); otherChoices(); redraw(); }
    return;
  }
  adopt(next, true);
});
new MutationObserver(redraw).observe(document.body, {attributes: true, attributeFilter: ['class']});
new ResizeObserver(measure).observe(element.querySelector('.sheet'));
element.dataset.ready = 'true';
otherChoices(); buttons(); title(); show(macs()); confirmFigures(); measure();

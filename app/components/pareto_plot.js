// The front: every evaluated schedule as a point, cost across, quality up. Points arrive as deltas from `server.poll`
// and are only ever appended, so zoom, selection and the WebGL context survive any number of live updates.
// `props.value` is {run, ids}: the selected points, in the order of their letters A, B, C, ...
const P = window.Plotly;                          // our own reference: other bundles on a page may overwrite the global
const query = s => element.querySelector(s);
const gd = query('.gd'), line = query('.line'), frame = query('.frame');
const LETTERS = 'ABCDEF';
const ticks = narrow => { const v = narrow ? [1, 1.5, 2, 3, 5, 10, 20, 50] : [1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50]; return {tickvals: v, ticktext: v.map(x => x + '×')}; };
const coarse = matchMedia('(pointer: coarse)').matches;
const decode = text => Array.from(new Float64Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer));
const css = name => getComputedStyle(element).getPropertyValue(name).trim();

let run = props.value?.run ?? null, runs = [], metrics = [], uncached = 1;
let macs = [], y = {}, kinds = '', names = {}, labels = {}, generations = [];
let metric = null, xAxis = 'speed', front = [], ready = false, busy = false, again = false, last = null;
let selected = [...(props.value?.ids ?? [])];

// --- data ---------------------------------------------------------------------------------------------------------
const X = i => xAxis === 'speed' ? uncached / macs[i] : macs[i] / 1e9;
const info = () => metrics.find(m => m.name === metric) ?? {label: 'quality', percent: false};
const Y = i => info().percent ? 100 * y[metric][i] : y[metric][i];
const finite = i => Number.isFinite(y[metric]?.[i]);
const better = (a, b) => info().higher === false ? a < b : a > b;
function computeFront() {                         // cheapest first; a dearer point stays only if it is strictly better
  const order = macs.map((_, i) => i).filter(finite)
    .sort((a, b) => macs[a] - macs[b] || (better(y[metric][a], y[metric][b]) ? -1 : 1));
  const kept = [];
  for (const i of order) if (!kept.length || better(y[metric][i], y[metric][kept.at(-1)])) kept.push(i);
  return kept;
}
// Of fewer steps only the best choice of times for each number of steps is on the line.
const fewerSteps = () => {
  const best = new Map();
  for (const i of ofKind('f')) { const k = best.get(macs[i]); if (k === undefined || better(y[metric][i], y[metric][k])) best.set(macs[i], i); }
  return [...best.values()];
};
const ofKind = k => macs.map((_, i) => i).filter(i => kinds[i] === k && finite(i)).sort((a, b) => macs[a] - macs[b]);
const title = i => names[i] ?? `schedule ${i}`;
const number = v => info().percent ? v.toFixed(1) + ' %' : v.toPrecision(4);
const card = i => `<b>${title(i)}</b><br>${(uncached / macs[i]).toFixed(2)}× fewer MACs · ${(macs[i] / 1e9).toFixed(2)} G<br>`
  + metrics.map(m => [m, y[m.name][i]]).filter(([, v]) => Number.isFinite(v))
    .map(([m, v]) => `${m.label}: ${m.percent ? (100 * v).toFixed(1) + ' %' : v.toPrecision(4)}`).join('<br>')
  + (generations[i] >= 0 ? `<br>generation ${generations[i]}` : '');

// Labels that would lie on one another are left out: at least `room` of the plot's width between two.
const place = i => xAxis === 'speed' ? Math.log(X(i)) : X(i);
function spaced(ids, room, text) {
  const all = macs.map((_, i) => place(i)), width = Math.max(...all) - Math.min(...all) || 1;
  let last = null;
  return ids.map(i => { if (last !== null && Math.abs(place(i) - last) < room * width) return ''; last = place(i); return text(i); });
}

// --- drawing ------------------------------------------------------------------------------------------------------
// WebGL pays from some thousand points on; below, plain SVG draws sooner, above all where there is no GPU.
const cloudType = () => macs.length > 3000 ? 'scattergl' : 'scatter';
function traces() {
  const points = (ids, more) => ({type: 'scatter', x: ids.map(X), y: ids.map(Y), customdata: ids,
    hovertext: ids.map(card), hovertemplate: '%{hovertext}<extra></extra>', cliponaxis: false, ...more});
  const ink = css('--body-text-color'), accent = css('--ecad-accent');
  const fewer = fewerSteps(), fora = ofKind('o'), edited = ofKind('e'), whole = ofKind('u');
  return [
    {type: cloudType(), mode: 'markers', name: 'evaluated', x: macs.map((_, i) => X(i)), y: macs.map((_, i) => finite(i) ? Y(i) : null),
      hovertext: macs.map((_, i) => card(i)), hovertemplate: '%{hovertext}<extra></extra>', cliponaxis: true,
      marker: {size: 5, color: css('--ecad-cloud'), opacity: 0.45}},
    points(fewer, {name: 'fewer steps, uncached', mode: 'lines+markers+text', text: spaced(fewer, 0.035, i => labels[i] ?? ''),
      textposition: 'bottom left', textfont: {size: 11, color: css('--ecad-fewer')},
      line: {dash: 'dot', width: 1.5, color: css('--ecad-fewer')}, marker: {symbol: 'square', size: 7, color: css('--ecad-fewer')}}),
    points(fora, {name: 'FORA', mode: 'markers+text', text: spaced(fora, 0.1, i => labels[i] ?? ''),
      textposition: 'top center', textfont: {size: 11, color: css('--ecad-fora')},
      marker: {symbol: 'triangle-up', size: 10, color: css('--ecad-fora')}}),
    points(front, {name: 'front', mode: 'lines+markers', line: {shape: 'hv', width: 2, color: accent},
      marker: {size: 8, color: accent}}),
    points(edited, {name: 'edited by hand', mode: 'markers', marker: {symbol: 'diamond', size: 12, color: css('--ecad-edited'), line: {width: 1.5, color: ink}}}),
    points(whole, {name: 'uncached', mode: 'markers', marker: {symbol: 'star', size: 13, color: ink}}),
    rings(),
  ];
}
// The selection is a trace of its own: rings with their letters. (Shapes of a size in pixels are squeezed on a log axis.)
const chosen = () => selected.filter(i => i < macs.length && finite(i));
function rings() {
  const ids = chosen(), ink = css('--body-text-color');
  return {type: 'scatter', mode: 'markers+text', name: 'chosen', showlegend: false, hoverinfo: 'skip', cliponaxis: false,
    x: ids.map(X), y: ids.map(Y), text: ids.map(i => `<b>${LETTERS[selected.indexOf(i)]}</b>`), textposition: 'top right',
    textfont: {size: 15, color: ink}, marker: {symbol: 'circle-open', size: 20, color: ink, line: {width: 2.5}}};
}
const RINGS = 6;                                  // its place among the traces
const mark = () => { const r = rings(); return P.restyle(gd, {x: [r.x], y: [r.y], text: [r.text]}, [RINGS]); };
// What is seen first is what is compared: the front and the lines to beat. A few ruined candidates would flatten it;
// they are there on a double click.
let firstView = null;
function span() {
  const values = [...front, ...fewerSteps(), ...'oeu'].flatMap(k => typeof k === 'string' ? ofKind(k) : [k]).map(Y);
  if (!values.length) return null;
  const low = Math.min(...values), high = Math.max(...values), pad = 0.07 * (high - low || Math.abs(high) || 1);
  return [low - pad, high + pad];
}
function layout() {
  firstView = span();
  const ink = css('--body-text-color'), faint = css('--body-text-color-subdued'), grid = css('--border-color-primary');
  const axis = text => ({title: {text, font: {size: 13, color: faint}, standoff: 8}, gridcolor: grid, zeroline: false, linecolor: grid,
    tickfont: {size: 12, color: faint}, automargin: true, fixedrange: coarse});
  const narrow = gd.clientWidth < 520;
  return {
    uirevision: `${run}/${metric}/${xAxis}`, height: narrow ? 360 : 430, hovermode: 'closest', dragmode: coarse ? false : 'zoom',
    margin: {l: 12, r: 20, t: 8, b: 12}, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: {family: css('--font'), color: ink}, showlegend: true,
    legend: {orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, font: {size: 12, color: ink}},
    hoverlabel: {bgcolor: css('--background-fill-primary'), bordercolor: grid, font: {size: 12, color: ink, family: css('--font')}, align: 'left'},
    xaxis: {...axis(xAxis === 'speed' ? (narrow ? 'times fewer MACs' : 'times fewer MACs than uncached (right is cheaper)') : 'GMACs per image (left is cheaper)'),
      ...(macs.length ? {} : {range: xAxis === 'speed' ? [0, 1] : [0, uncached / 1e9]}), ...(xAxis === 'speed' ? {type: 'log', tickangle: 0, ...ticks(narrow)} : {type: 'linear'})},
    yaxis: {...axis(info().label), ...(firstView ? {range: [...firstView]} : {}), ...(info().percent ? {ticksuffix: ' %'} : {})},
  };
}
const config = {responsive: true, displaylogo: false, displayModeBar: coarse ? false : 'hover', modeBarButtons: [['zoom2d', 'pan2d', 'resetScale2d']]};
async function drawAll() {
  if (!metric) return;
  front = computeFront();
  await (ready ? P.react(gd, traces(), layout(), config) : P.newPlot(gd, traces(), layout(), config));
  if (!ready) {
    ready = true;
    gd.on('plotly_click', e => {
      const p = e.points.find(q => q.customdata !== undefined) ?? e.points[0];
      if (p) pick(p.customdata ?? p.pointNumber, e.event.shiftKey || e.event.ctrlKey || e.event.metaKey || query('.more').getAttribute('aria-pressed') === 'true');
    });
  }
  say();
}
async function drawDelta(from) {
  const fresh = Array.from({length: macs.length - from}, (_, k) => from + k);
  await P.extendTraces(gd, {x: [fresh.map(X)], y: [fresh.map(i => finite(i) ? Y(i) : null)], hovertext: [fresh.map(card)]}, [0]);
  const moved = computeFront(), special = fresh.some(i => 'foeu'.includes(kinds[i]));
  if (special || String(moved) !== String(front)) {
    front = moved;
    const all = traces(), which = special ? [1, 2, 3, 4, 5] : [3];
    for (const k of which)
      await P.restyle(gd, {x: [all[k].x], y: [all[k].y], customdata: [all[k].customdata], hovertext: [all[k].hovertext], ...(all[k].text ? {text: [all[k].text]} : {})}, [k]);
  }
  const next = span();                           // grow with the front, unless somebody chose what to look at
  if (firstView && next && String(gd.layout.yaxis.range) === String(firstView)) {
    firstView = next;
    await P.relayout(gd, {'yaxis.range': [...next]});
  }
  await mark();
  say();
}
function say() {
  const s = last?.state ?? {};
  if (!macs.length) line.textContent = 'Nothing is evaluated yet: start the search, or evaluate the schedule below.';
  else line.textContent = `${macs.length.toLocaleString('en')} schedules evaluated, ${front.length} on the front` + (s.running ? ', searching' : '');
  frame.dataset.points = macs.length;
  frame.dataset.front = front.length;
  frame.dataset.edited = ofKind('e').length;
}

// --- selection ----------------------------------------------------------------------------------------------------
function pick(id, add) {
  selected = add ? (selected.includes(id) ? selected.filter(i => i !== id) : [...selected, id].slice(-props.most)) : [id];
  tell(id);
}
function tell(id) {
  props.value = {run, ids: [...selected]};        // a new object, or the change is not seen
  trigger('pick', {run, id});                     // the event first, the drawing after it
  if (ready) mark();
  query('.chosen').textContent = selected.map((i, k) => `${LETTERS[k]}: ${title(i)}`).join(', ');
}
frame.addEventListener('keydown', e => {
  const here = front.indexOf(selected.at(-1)), right = xAxis === 'speed' ? -1 : 1;   // `front` runs from cheap to dear
  const to = {ArrowRight: here + right, ArrowLeft: here - right, Home: right > 0 ? 0 : front.length - 1, End: right > 0 ? front.length - 1 : 0}[e.key];
  if (to === undefined || !front.length || e.target.closest('select, button')) return;
  e.preventDefault();
  const id = front[Math.max(0, Math.min(front.length - 1, here < 0 ? 0 : to))];
  if (id !== selected.at(-1)) pick(id, false);
});

// --- polling ------------------------------------------------------------------------------------------------------
function forget() { macs = []; y = {}; kinds = ''; names = {}; labels = {}; generations = []; front = []; }
async function poll() {
  if (busy) { again = true; return; }
  if (document.hidden && ready) return;
  busy = true;
  try {
    const d = await server.poll({run, since: macs.length});
    if (d.run !== run) {                          // another run than the one asked for: begin with what came
      run = d.run; forget();
      selected = props.value?.run === run ? [...props.value.ids] : [];
    }
    if (d.from !== macs.length) { forget(); again = true; return; }
    const from = macs.length, changed = JSON.stringify(metrics) !== JSON.stringify(d.metrics) || uncached !== d.uncached;
    metrics = d.metrics; uncached = d.uncached; last = d;
    if (!metrics.some(m => m.name === metric)) metric = d.metrics[0]?.name ?? null;
    macs.push(...decode(d.macs)); kinds += d.kinds; Object.assign(names, d.names); Object.assign(labels, d.labels); generations.push(...d.generations);
    for (const m of metrics) (y[m.name] ??= []).push(...decode(d.quality[m.name]));
    choices(d);
    if (!ready || changed || from === 0 || gd.data[0].type !== cloudType()) await drawAll();
    else if (macs.length > from) await drawDelta(from);
    else say();
    document.dispatchEvent(new CustomEvent('ecad-state', {detail: d.state}));
  } catch (e) {
    document.dispatchEvent(new CustomEvent('ecad-state', {detail: {lost: true}}));
  } finally {
    busy = false;
    if (again) { again = false; poll(); }
  }
}
function choices(d) {
  const fill = (select, options, chosen) => {
    const wanted = JSON.stringify(options);
    if (select.dataset.options !== wanted) {
      select.dataset.options = wanted; select.length = 0;
      for (const [value, text] of options) select.add(new Option(text, value));
    }
    if (chosen != null) select.value = chosen;
  };
  fill(query('.metric'), d.metrics.map(m => [m.name, m.label]), metric);
  fill(query('.run'), d.runs.map(r => [r.key, r.title]), run);
  query('.run').closest('label').hidden = d.runs.length < 2;
  const note = query('.note');
  note.textContent = d.note ?? ''; note.hidden = !d.note;
}
query('.metric').addEventListener('change', e => { metric = e.target.value; drawAll(); });
query('.axis').addEventListener('change', e => { xAxis = e.target.value; drawAll(); });
query('.run').addEventListener('change', e => { run = e.target.value; selected = []; forget(); ready && P.purge(gd); ready = false; poll(); });
query('.more').addEventListener('click', e => e.currentTarget.setAttribute('aria-pressed', e.currentTarget.getAttribute('aria-pressed') !== 'true'));
watch('value', () => {
  const v = props.value ?? {ids: []};
  if (v.run !== run) { run = v.run; selected = [...v.ids]; forget(); poll(); return; }
  if (String(v.ids) !== String(selected)) { selected = [...v.ids]; if (selected.some(i => i >= macs.length)) poll(); else if (ready) mark(); }
});
document.addEventListener('ecad-look', () => poll());            // something changed on our account: look at once
new MutationObserver(() => ready && drawAll()).observe(document.body, {attributes: true, attributeFilter: ['class']});
let due = 0;
const timer = setInterval(() => {
  if (!element.isConnected) { clearInterval(timer); return; }
  if (--due > 0) return;
  due = last?.state?.running || last?.state?.evaluating ? 1 : 5;
  poll();
}, 1000);
poll();

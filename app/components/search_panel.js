// The shared search as every visitor sees it: drawn only from what the poll says, never from this tab's own clicks.
const query = s => element.querySelector(s);
const buttons = Object.fromEntries(['start', 'pause', 'resume', 'stop'].map(n => [n, query('.' + n)]));
const clock = s => s == null ? '' : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
const make = (tag, text) => { const e = document.createElement(tag); e.textContent = text; return e; };
function draw(s) {
  if (s.lost) { query('.word').textContent = 'connection lost, trying again'; return; }
  const status = s.status ?? 'idle', live = status === 'running' || status === 'paused';
  element.dataset.status = status;
  query('.word').textContent = s.words ?? status;
  buttons.start.hidden = live || status === 'stopping'; buttons.pause.hidden = status !== 'running';
  buttons.resume.hidden = status !== 'paused'; buttons.stop.hidden = !live;
  buttons.start.disabled = !s.can_start; buttons.start.title = s.can_start ? '' : (s.why_not ?? '');
  const bar = query('.bar');
  bar.hidden = !live && status !== 'stopping';
  bar.value = s.share ?? 0; bar.textContent = `${Math.round(100 * (s.share ?? 0))} %`;
  const list = query('.numbers');
  list.replaceChildren();
  for (const [name, text] of [...(s.numbers ?? []), ...(live && s.eta != null ? [['left', 'about ' + clock(s.eta)]] : []),
      ...(s.waiting ? [['waiting for the device', String(s.waiting)]] : [])]) {
    const d = make('div', ''); d.append(make('dt', name), make('dd', text)); list.append(d);
  }
  query('.message').textContent = s.message ?? ''; query('.message').hidden = !s.message;
}
for (const name of ['pause', 'resume', 'stop']) buttons[name].addEventListener('click', () => act(name));
buttons.start.addEventListener('click', () => act('start'));
function act(name) {
  // Each name stands in quotes, so that Python can listen for it.
  ({start: () => trigger('start', {}), pause: () => trigger('pause', {}), resume: () => trigger('resume', {}), stop: () => trigger('stop', {})})[name]();
  setTimeout(() => document.dispatchEvent(new CustomEvent('ecad-look')), 300);
}
const listen = e => element.isConnected ? draw(e.detail) : document.removeEventListener('ecad-state', listen);
document.addEventListener('ecad-state', listen);
draw(props.value ?? {});

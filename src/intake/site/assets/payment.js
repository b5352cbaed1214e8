// A payment's page: shows what becomes of the payment, by events, else by asking; leads to the bank once.
const find = (id) => document.getElementById(id);
const { words } = JSON.parse(find('words').textContent);
const page = () => find('live');

const ASK_EVERY_MS = 5000;
const LOST_AFTER_MS = 10000;

let events = null;
let asking = null;
let lost = null;

// What the browser remembers of a bill: the payment's id to come back to; nothing once another may be made.
const remember = () => {
  const { id, bill, again } = page().dataset;
  const key = `tolom.${bill}`;
  const kept = store.read(key);
  if (again === undefined) store.keep(key, { ...kept, payment: id });
  else if (kept.payment === undefined || kept.payment === id) store.forget(key);
};

// The bank's page is opened by itself once; who comes back from it without an answer has the button. Where it would not be
// remembered, the bank's page could come again and again, so there is the button alone.
const leadToTheBank = () => {
  const form = find('bank');
  if (!form || !store.lasts) return;
  const key = `tolom.bank.${form.dataset.once}`;
  if (store.read(key).opened) return;
  store.keep(key, { opened: true });
  form.submit();
};

const showReceipt = () => {
  const button = find('print');
  if (!button) return;
  button.hidden = false;
  button.addEventListener('click', () => window.print());
};

const arrange = () => {
  remember();
  showReceipt();
  leadToTheBank();
};

// Takes over what the page says now. A form that leads to the bank needs the headers that come with it: a whole load.
const renew = async () => {
  const response = await fetch(location.href, { cache: 'no-store' });
  if (!response.ok) throw new Error('no page');
  const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
  const next = fresh.getElementById('live');
  if (!next || fresh.getElementById('bank')) {
    location.reload();
    return;
  }
  const told = page().dataset.public !== next.dataset.public;
  document.title = fresh.title;
  page().replaceWith(next);
  if (told) next.querySelector('h1').focus();
  arrange();
  if (next.dataset.final === 'true') stop();
};

const stop = () => {
  events?.close();
  clearInterval(asking);
  clearTimeout(lost);
};

const hear = async (state) => {
  told();
  if (Number(state.version) > Number(page().dataset.version)) await renew().catch(() => ask());
};

const told = () => {
  clearTimeout(lost);
  lost = null;
  find('lost')?.remove();
};

// Says that the connection is lost, once that has lasted.
const losing = () => {
  lost ??= setTimeout(() => {
    const note = Object.assign(document.createElement('p'), { id: 'lost', className: 'notice', textContent: words['live-lost'] });
    note.setAttribute('role', 'status');
    if (!find('lost')) page().prepend(note);
  }, LOST_AFTER_MS);
};

// Where there are no events: asks from time to time.
const ask = () => {
  asking ??= setInterval(async () => {
    try {
      const response = await fetch(`/v1/payments/${page().dataset.id}`, { cache: 'no-store' });
      if (response.ok) await hear(await response.json());
      else losing();
    } catch {
      losing();
    }
  }, ASK_EVERY_MS);
};

const follow = () => {
  if (page().dataset.final === 'true') return;
  if (!('EventSource' in window)) {
    ask();
    return;
  }
  events = new EventSource(`/v1/payments/${page().dataset.id}/events`);
  events.addEventListener('status', (event) => hear(JSON.parse(event.data)));
  events.addEventListener('open', told);
  events.addEventListener('error', () => {
    losing();
    // Refused for good, for example because too many are open.
    if (events.readyState === EventSource.CLOSED) ask();
  });
};

arrange();
follow();
// Shown again from the browser's memory: what it says is old.
addEventListener('pageshow', (event) => event.persisted && location.reload());

// The card's form: checks what is typed, seals the card in this browser, and submits the payment until there is an answer.
// The card is in no request in clear: its fields have no names, the form has no address, and what is sent is a JWE.
const find = (id) => document.getElementById(id);
const known = JSON.parse(find('words').textContent);
const { words, brands } = known;
const form = find('card-form');
const say = (name, filled = {}) => words[name].replace(/\{(\w+)\}/g, (_, key) => filled[key]);

// ---- What is remembered: the attempt under way with its key, and what else was typed.

const ATTEMPT = `tolom.${known.bill}`;
const PAYER = 'tolom.payer';

// ---- Rules, as the worker has them (payment/card.rs). What is refused here would be declined there.

const digitsOf = (text) => text.replace(/\D/g, '');

const luhn = (number) => {
  let sum = 0;
  [...number].reverse().forEach((digit, index) => {
    const value = Number(digit) << index % 2;
    sum += value > 9 ? value - 9 : value;
  });
  return sum % 10 === 0;
};

const brandOf = (number) => {
  const start = (length) => Number(number.slice(0, length).padEnd(length, '0'));
  if (start(4) === 9417) return 'elcart';
  if (start(4) >= 2200 && start(4) <= 2204) return 'mir';
  if ((start(4) >= 2221 && start(4) <= 2720) || (start(2) >= 51 && start(2) <= 55)) return 'mastercard';
  if (start(1) === 4) return 'visa';
  if (start(2) === 62 || start(2) === 81) return 'unionpay';
  return 'other';
};

// Month and year as 0928, 09/28, 9/28, 09 / 2028.
const expiryOf = (text) => {
  const parts = /^\s*(\d{1,2})\s*[/.\- ]\s*(\d{2}|\d{4})\s*$/.exec(text) ?? /^\s*(\d{2})(\d{2}|\d{4})\s*$/.exec(text);
  if (!parts) return null;
  const [month, year] = [Number(parts[1]), Number(parts[2])];
  return month >= 1 && month <= 12 ? { month, year: year < 100 ? 2000 + year : year } : null;
};

const phoneOf = () => {
  const typed = find('phone').value.trim();
  const digits = digitsOf(typed);
  if (typed.startsWith('+')) return `+${digits}`;
  if (typed.startsWith('00')) return `+${digits.slice(2)}`;
  const { value: code, dataset } = find('country').selectedOptions[0];
  // Within a country a number is often written with a 0 (or, where the code is +7, an 8) before it.
  const national = code === '+7' ? digits.replace(/^8(?=\d{10}$)/, '') : digits.replace(/^0/, '');
  // Or with the country's code, but no plus: what follows it is then as long as a number of that country.
  const whole = `+${national}`;
  return whole.startsWith(code) && whole.length - code.length >= Number(dataset.digits) ? whole : code + national;
};

const checks = {
  number: (text) => {
    const number = digitsOf(text);
    if (!number) return 'number-missing';
    if (!known.lengths.includes(number.length)) return 'number-length';
    if (!luhn(number)) return 'number-wrong';
    return known.networks.length && !known.networks.includes(brandOf(number)) ? 'network-not-taken' : '';
  },
  expiry: (text) => {
    if (!text.trim()) return 'expiry-missing';
    const expiry = expiryOf(text);
    if (!expiry) return 'expiry-wrong';
    const now = new Date();
    const months = (expiry.year - now.getFullYear()) * 12 + expiry.month - (now.getMonth() + 1);
    if (months > 240) return 'expiry-wrong';
    // A day's grace: the worker goes by the date in Bishkek.
    return months < 0 && !(months === -1 && now.getDate() === 1) ? 'expiry-past' : '';
  },
  cvc: (text) => {
    if (!text.trim()) return 'cvc-missing';
    return /^\d{3}$/.test(text.trim()) ? '' : 'cvc-wrong';
  },
  holder: (text) => {
    const holder = text.trim();
    if (!holder) return 'holder-missing';
    if (/[\u0400-\u04ff]/.test(holder)) return 'holder-cyrillic';
    return /^[A-Za-z .'/-]{2,64}$/.test(holder) && /[A-Za-z]/.test(holder) ? '' : 'holder-wrong';
  },
  email: (text) => {
    if (!text.trim()) return 'email-missing';
    return /^[\w!#$%&'*+/=?^`{|}~.-]{1,64}@([A-Za-z0-9-]+\.)+[A-Za-z][A-Za-z0-9-]*$/.test(text.trim()) ? '' : 'email-wrong';
  },
  phone: (text) => {
    if (!digitsOf(text)) return 'phone-missing';
    return /^\+[1-9]\d{6,14}$/.test(phoneOf()) ? '' : 'phone-wrong';
  },
};

// ---- Errors: beside the field, and listed above when the form was sent.

const show = (field, text) => {
  find(`${field}-error`).textContent = text;
  find(`${field}-field`).classList.toggle('wrong', text !== '');
  if (text) find(field).setAttribute('aria-invalid', 'true');
  else find(field).removeAttribute('aria-invalid');
};

const check = (field) => {
  const name = checks[field](find(field).value);
  show(field, name ? words[name] : '');
  return name;
};

const title = document.title;

// `errors` are [field or none, text]; a bill's own page is offered where it says more.
const summarize = (errors, bill = false) => {
  const summary = find('summary');
  const list = summary.querySelector('ul');
  summary.hidden = errors.length === 0;
  document.title = errors.length ? `${summary.querySelector('h2').textContent}: ${title}` : title;
  list.replaceChildren(
    ...errors.map(([field, text]) => {
      const item = document.createElement('li');
      if (field) {
        const link = Object.assign(document.createElement('a'), { href: `#${field}`, textContent: text });
        link.addEventListener('click', (event) => {
          event.preventDefault();
          find(field).focus();
        });
        item.append(link);
      } else item.textContent = text;
      return item;
    }),
  );
  if (bill) {
    const item = document.createElement('li');
    const href = `/${known.locale}/bills/${known.bill}`;
    item.append(Object.assign(document.createElement('a'), { href, textContent: words['to-the-bill'] }));
    list.append(item);
  }
  if (errors.length) summary.focus();
};

// ---- Sealing: compact JWE (RFC 7516), ECDH-ES on P-256 with the Concat KDF (RFC 7518 4.6), A256GCM.

const encoder = new TextEncoder();
const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
const number32 = (value) => new Uint8Array([value >>> 24, value >>> 16, value >>> 8, value]);
const join = (...parts) => {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
};
const sized = (bytes) => join(number32(bytes.length), bytes);
const P256 = { name: 'ECDH', namedCurve: 'P-256' };

const seal = async (card, { key, now }) => {
  const theirs = await crypto.subtle.importKey('jwk', { kty: key.kty, crv: key.crv, x: key.x, y: key.y }, P256, false, []);
  const ours = await crypto.subtle.generateKey(P256, false, ['deriveBits']);
  const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', ours.publicKey);
  const header = { alg: 'ECDH-ES', enc: 'A256GCM', kid: key.kid, epk: { kty, crv, x, y }, bill: known.bill, exp: now + 600 };
  const agreed = await crypto.subtle.deriveBits({ name: 'ECDH', public: theirs }, ours.privateKey, 256);
  const info = join(sized(encoder.encode('A256GCM')), sized([]), sized([]), number32(256));
  const secret = await crypto.subtle.digest('SHA-256', join(number32(1), new Uint8Array(agreed), info));
  const content = await crypto.subtle.importKey('raw', secret, 'AES-GCM', false, ['encrypt']);
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const aad = base64url(encoder.encode(JSON.stringify(header)));
  const plain = encoder.encode(JSON.stringify(card));
  const sealed = new Uint8Array(
    await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData: encoder.encode(aad) }, content, plain),
  );
  plain.fill(0);
  const [text, tag] = [sealed.slice(0, -16), sealed.slice(-16)];
  return [aad, '', base64url(iv), base64url(text), base64url(tag)].join('.');
};

// The key, and the server's time: a telephone's own may be wrong by more than a sealed card lives.
const keyNow = async () => {
  const response = await send('/v1/encryption-keys', { cache: 'no-store' });
  if (!response.ok) throw await problemOf(response);
  const date = Date.parse(response.headers.get('date') ?? '');
  const { keys } = await response.json();
  return { key: keys[0], now: Math.floor((Number.isNaN(date) ? Date.now() : date) / 1000) };
};

// ---- Sending, until there is an answer.

class Problem extends Error {
  constructor(name, fields = {}) {
    super(name);
    Object.assign(this, { name, ...fields });
  }
}

const problemOf = async (response) => {
  const body = await response.json().catch(() => ({}));
  const name = String(body.type ?? '').split('/').pop();
  const wait = Number(response.headers.get('retry-after')) || 0;
  return new Problem(name, { status: response.status, field: body.field, wait });
};

const REQUEST_MS = 30000;
const send = (path, options) =>
  fetch(path, { ...options, signal: AbortSignal.timeout?.(REQUEST_MS) }).catch(() => {
    throw new Problem('no-connection');
  });

const WAITS_S = [1, 2, 4, 8, 15, 15, 30, 30];
const progress = (text) => {
  find('progress').textContent = text;
};
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
// Nothing came back, or for now: the same request under the same key may be sent again.
const passes = ({ name, status, wait }) =>
  name === 'no-connection' || name === 'request-in-flight' || status >= 500 || status === 408 || (status === 429 && wait <= 30);

const persist = async (work) => {
  for (let tried = 0; ; tried += 1) {
    try {
      return await work();
    } catch (problem) {
      if (!(problem instanceof Problem) || !passes(problem) || tried === WAITS_S.length) throw problem;
      let seconds = Math.max(WAITS_S[tried], problem.wait ?? 0);
      const words = problem.name === 'no-connection' ? 'trying-again' : 'waiting';
      for (; seconds > 0; seconds -= 1) {
        progress(say(words, { seconds }));
        await sleep(1);
      }
      progress(say('still-trying'));
    }
  }
};

const post = async (attempt, sealed) => {
  const { amount, payer, terms } = attempt.sent;
  const body = { bill: known.bill, amount, card: { sealed }, payer, locale: known.locale, terms };
  const headers = { 'content-type': 'application/json', 'idempotency-key': attempt.key };
  const response = await send('/v1/payments', { method: 'POST', headers, body: JSON.stringify(body) });
  if (response.status !== 202) throw await problemOf(response);
  return (await response.json()).id;
};

// One payment: sealed, sent, and its id. What a first request under this key said of the payer stays said until that
// request has been refused: it may have been taken.
const submit = async (card, payer) => {
  const attempt = store.read(ATTEMPT);
  attempt.key ??= base64url(crypto.getRandomValues(new Uint8Array(16)));
  const now = { amount: known.amount, payer, terms: known.terms };
  const first = attempt.sent;
  attempt.sent = now;
  if (!first) store.keep(ATTEMPT, attempt);
  const sealedPost = async () => {
    const sealed = await seal(card, await persist(keyNow));
    progress(say('sending'));
    return persist(() => post(attempt, sealed));
  };
  try {
    try {
      return await sealedPost();
    } catch (problem) {
      if (problem.name === 'idempotency-key-reused' && first) {
        progress(say('resume-earlier'));
        attempt.sent = first;
        return await sealedPost();
      }
      // The key was changed, or the card lay too long: seal it once more.
      if (!['card-key-unknown', 'card-expired', 'card-malformed', 'card-used'].includes(problem.name)) throw problem;
      return await sealedPost();
    }
  } catch (problem) {
    // Refused for good: nothing is kept under the key, so other details may be sent under it.
    if (problem instanceof Problem && problem.name !== 'idempotency-key-reused' && !passes(problem)) {
      store.keep(ATTEMPT, { key: attempt.key });
    }
    throw problem;
  }
};

const open = (payment) => {
  forgetCard();
  location.assign(`/${known.locale}/payments/${payment}`);
};

// ---- What a refusal means for the payer.

const BILL = {
  'bill-unknown': 'problem-bill-unknown',
  'bill-paid': 'problem-bill-paid',
  'bill-cancelled': 'problem-bill-cancelled',
  'bill-expired': 'problem-bill-expired',
  'payment-in-progress': 'problem-payment-in-progress',
};
const OTHER = {
  'idempotency-key-reused': 'problem-key-reused',
  'terms-not-in-force': 'problem-terms',
  'amount-differs': 'problem-amount',
  'currency-differs': 'problem-amount',
  'card-malformed': 'problem-card',
  'card-expired': 'problem-card',
  'card-key-unknown': 'problem-card',
  'card-of-other-bill': 'problem-card',
  'card-unknown': 'problem-card',
  'card-used': 'problem-card',
  'no-connection': 'no-answer',
};
const FIELDS = { 'payer.email': ['email', 'problem-email'], 'payer.phone': ['phone', 'problem-phone'] };

const refuse = (problem) => {
  progress('');
  if (!(problem instanceof Problem)) {
    summarize([[null, say(globalThis.crypto?.subtle ? 'problem-page' : 'cannot-seal')]]);
    return;
  }
  const { name, field, status, wait } = problem;
  if (name === 'invalid-field' && FIELDS[field]) {
    const [input, text] = FIELDS[field];
    show(input, words[text]);
    summarize([[input, words[text]]]);
  } else if (BILL[name]) summarize([[null, words[BILL[name]]]], true);
  else if (OTHER[name]) summarize([[null, words[OTHER[name]]]]);
  else if (status === 429) {
    const minutes = Math.ceil(wait / 60);
    summarize([[null, minutes ? say('problem-wait', { minutes }) : words['problem-too-many']]]);
  } else if (status === 503) summarize([[null, words['problem-later']]]);
  else summarize([[null, words['problem-page']]]);
};

// ---- The form.

const FIELD_NAMES = Object.keys(checks);
let busy = false;

const setBusy = (value) => {
  busy = value;
  find('pay').setAttribute('aria-disabled', String(value));
  form.setAttribute('aria-busy', String(value));
};

const forgetCard = () => {
  ['number', 'expiry', 'cvc', 'holder'].forEach((field) => {
    find(field).value = '';
  });
};

const keepPayer = () => store.keep(PAYER, { email: find('email').value, phone: find('phone').value, country: find('country').value });

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  if (busy) return;
  const errors = FIELD_NAMES.map((field) => [field, check(field)]).filter(([, name]) => name);
  summarize(errors.map(([field, name]) => [field, words[name]]));
  if (errors.length) return;
  keepPayer();
  setBusy(true);
  progress(say('sealing'));
  const expiry = expiryOf(find('expiry').value);
  const card = {
    number: digitsOf(find('number').value),
    expiry_month: expiry.month,
    expiry_year: expiry.year,
    cvc: find('cvc').value.trim(),
    holder: find('holder').value.trim().toUpperCase(),
  };
  const payer = { email: find('email').value.trim(), phone: phoneOf() };
  try {
    const payment = await submit(card, payer);
    store.keep(ATTEMPT, { ...store.read(ATTEMPT), payment });
    progress(say('accepted'));
    open(payment);
  } catch (problem) {
    find('cvc').value = '';
    refuse(problem);
    setBusy(false);
  }
});

const group = (input, shape) => {
  const digits = digitsOf(input.value);
  const before = digitsOf(input.value.slice(0, input.selectionStart)).length;
  const shaped = shape(digits);
  if (shaped === input.value) return;
  const atEnd = input.selectionStart === input.value.length;
  input.value = shaped;
  let [caret, seen] = [atEnd ? shaped.length : 0, 0];
  while (!atEnd && caret < shaped.length && seen < before) {
    if (/\d/.test(shaped[caret])) seen += 1;
    caret += 1;
  }
  input.setSelectionRange(caret, caret);
};

find('number').addEventListener('input', (event) => {
  group(event.target, (digits) => digits.replace(/(\d{4})(?=\d)/g, '$1 '));
  const number = digitsOf(event.target.value);
  find('brand').textContent = (number && brands[brandOf(number)]) ?? '';
  // A mistake in a whole number is told while the card is still at hand.
  if (known.lengths.includes(number.length) && number.length === Math.max(...known.lengths)) check('number');
  else if (find('number').hasAttribute('aria-invalid')) show('number', '');
});

find('expiry').addEventListener('input', (event) => {
  if (event.inputType?.startsWith('delete') || !/^\d{2,4}$/.test(event.target.value)) return;
  group(event.target, (digits) => `${digits.slice(0, 2)}/${digits.slice(2)}`);
});

find('holder').addEventListener('input', () => {
  const name = checks.holder(find('holder').value);
  if (name === 'holder-cyrillic') show('holder', words[name]);
  else if (find('holder').hasAttribute('aria-invalid')) check('holder');
});

FIELD_NAMES.forEach((field) => {
  // Told when the field is left; what was left empty is told when the form is sent.
  find(field).addEventListener('blur', () => find(field).value.trim() && check(field));
  find(field).addEventListener('input', () => find(field).hasAttribute('aria-invalid') && field !== 'number' && check(field));
});

// ---- Beginning: a payment of this tab is gone back to; else the form is opened.

const begin = async () => {
  const attempt = store.read(ATTEMPT);
  if (attempt.payment) {
    const response = await send(`/v1/payments/${attempt.payment}`, { cache: 'no-store' }).catch(() => null);
    const state = response?.ok ? (await response.json()).public_status : null;
    if (state === 'declined' || state === 'not_charged' || response?.status === 404) store.forget(ATTEMPT);
    else {
      location.replace(`/${known.locale}/payments/${attempt.payment}`);
      return;
    }
  }
  const payer = store.read(PAYER);
  ['email', 'phone', 'country'].forEach((field) => {
    if (payer[field]) find(field).value = payer[field];
  });
  if (globalThis.crypto?.subtle) find('fields').disabled = false;
  else summarize([[null, words['cannot-seal']]]);
  // Until here the page says what to do should the form stay grey.
  document.querySelector('.late')?.remove();
};

['email', 'phone', 'country'].forEach((field) => find(field).addEventListener('change', keepPayer));
// Shown again from the browser's memory: the card is gone, and what became of the payment is looked at first.
addEventListener('pagehide', forgetCard);
addEventListener('pageshow', (event) => event.persisted && location.reload());
begin();

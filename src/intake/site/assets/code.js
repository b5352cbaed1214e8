// The code's form: says at once what is wrong with a code, and shows the way to this browser's own payment of a bill.
const find = (id) => document.getElementById(id);

const form = find('code-form');
if (form) {
  const { words, prefixes } = JSON.parse(find('words').textContent);
  const input = find('code');
  const digitsOf = (text) => text.replace(/[\s\u200b\ufeff.\u2010-\u2015-]/g, '');

  // Groups of four, with the caret kept behind the same digit.
  const group = () => {
    const digits = digitsOf(input.value);
    if (!/^\d*$/.test(digits)) return;
    const before = digitsOf(input.value.slice(0, input.selectionStart)).length;
    const grouped = digits.replace(/(\d{4})(?=\d)/g, '$1 ');
    if (grouped === input.value) return;
    input.value = grouped;
    const caret = before + Math.max(0, Math.ceil(before / 4) - 1);
    input.setSelectionRange(caret, caret);
  };
  // While the code is being typed only what further typing cannot mend is wrong.
  const wrong = (whole) => {
    const digits = digitsOf(input.value);
    if (!digits) return whole ? 'code-missing' : '';
    if (!/^\d+$/.test(digits)) return 'code-not-digits';
    const fits = (prefix) => (digits.length < prefix.length ? prefix.startsWith(digits) : digits.startsWith(prefix));
    if (!prefixes.some(fits)) return 'code-prefix';
    if (digits.length > 20 || (whole && digits.length < 6)) return 'code-length';
    return '';
  };
  const show = (name) => {
    find('code-error').textContent = name ? words[name] : '';
    find('code-field').classList.toggle('wrong', name !== '');
    if (name) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  };
  input.addEventListener('input', () => {
    group();
    show(wrong(false));
  });
  form.addEventListener('submit', (event) => {
    const name = wrong(true);
    show(name);
    if (!name) {
      input.value = digitsOf(input.value);
      return;
    }
    event.preventDefault();
    input.focus();
  });
  group();
}

// A bill that is being paid: by this browser, perhaps.
const own = find('own');
if (own) {
  const { payment } = store.read(`tolom.${own.dataset.bill}`);
  if (payment) {
    const link = own.querySelector('a');
    link.href = `/${link.dataset.lang}/payments/${payment}`;
    own.hidden = false;
  }
}

// Looks for what must never leave the browser in everything that left it.
//
// Texts are taken apart the way somebody on the other side could: percent and form encoding, base64, JSON and HTML
// escapes, nested to a depth of three. So it does not matter how a number was packed.

const DEPTH = 3;
/** Between the digits of a number that people or programs have grouped. */
const BETWEEN = "[\\s\\u00a0+.,:;_\\-/\\\\\"']{0,3}";

/** What was found: in which part of which request. */
export function leaks(requests, secrets) {
  const patterns = secrets.map(({ name, digits }) => ({ name, pattern: pattern(digits) }));
  const found = [];
  for (const request of requests) {
    for (const [part, text] of parts(request)) {
      for (const { name, pattern } of patterns) {
        if (readings(text).some((reading) => pattern.test(reading))) {
          found.push(`${name} in the ${part} of ${request.method} ${request.url}`);
        }
      }
    }
  }
  return found;
}

function parts({ url, headers, body }) {
  const lines = headers
    // Its digits are a length.
    .filter(({ name }) => name.toLowerCase() !== "content-length")
    .map(({ name, value }) => `${name}: ${value}`);
  const all = [["URL", url], ["headers", lines.join("\n")]];
  if (body) {
    all.push(["body", body.toString("utf8")], ["body", body.toString("latin1")]);
    // Two bytes a character.
    all.push(["body", body.toString("utf16le")]);
  }
  return all;
}

/** A long number stands anywhere and in any grouping; a short one only by itself, or every hash would hold it. */
function pattern(digits) {
  return digits.length > 6 ? new RegExp([...digits].join(BETWEEN)) : new RegExp(`(?<![0-9A-Za-z])${digits}(?![0-9A-Za-z])`);
}

/** The text and everything that it can be decoded to. */
export function readings(text) {
  let level = new Set([text]);
  const all = new Set(level);
  for (let depth = 0; depth < DEPTH; depth += 1) {
    const next = new Set();
    for (const reading of level) {
      for (const decoded of decodings(reading)) {
        if (!all.has(decoded)) {
          all.add(decoded);
          next.add(decoded);
        }
      }
    }
    level = next;
  }
  return [...all];
}

function* decodings(text) {
  yield text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  yield text.replace(/\\u([0-9a-f]{4})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  yield text.replace(/&#(?:x([0-9a-f]{1,6})|([0-9]{1,7}));/gi, (whole, hex, decimal) => {
    const point = hex ? parseInt(hex, 16) : Number(decimal);
    return point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
  for (const [token] of text.matchAll(/[A-Za-z0-9+/_-]{4,}={0,2}/g)) {
    // Whoever put it among other letters may have begun it at any of four places.
    for (let cut = 0; cut < 4; cut += 1) yield* printable(Buffer.from(token.slice(cut), "base64"));
  }
  for (const [token] of text.matchAll(/(?:[0-9a-f]{2}){3,}/gi)) yield* printable(Buffer.from(token, "hex"));
}

/** The text in these bytes: all of them, or a run long enough to be no accident of ciphertext. */
function* printable(bytes) {
  const text = bytes.toString("latin1");
  if (/^[\t\n\r\x20-\x7e]{3,}$/.test(text)) yield text;
  else for (const [run] of text.matchAll(/[\t\n\r\x20-\x7e]{8,}/g)) yield run;
}

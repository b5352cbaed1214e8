// The checks can fail: a card that leaves the browser in any of these ways is found, and so is a page that breaks the
// rules of access.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { close, open, Visit, WALK, WALKS } from "../support/browser.mjs";
import { inspect } from "../support/inspect.mjs";
import { tabTo } from "../support/keyboard.mjs";
import { serve } from "../support/page_of_ours.mjs";
import { stage } from "../support/stage.mjs";
import { leaks } from "../support/traffic.mjs";

const CARD = "4000000000003220";
const CODE = "737";
const SECRETS = [{ name: "the card", digits: CARD }, { name: "the code", digits: CODE }];

const HTML = `<!DOCTYPE html><html lang="en"><title>Planted</title><link rel="icon" href="data:,">
<form method="post" action="/form"><input name="n" value=""><button>Send</button></form></html>`;

/** How a card may be written. */
const WRITTEN = {
  plainly: (digits) => digits,
  "in groups of four": (digits) => digits.replace(/(.{4})(?=.)/g, "$1 "),
  "with dashes": (digits) => digits.replace(/(.{4})(?=.)/g, "$1-"),
  "in base64": (digits) => btoa(digits),
  "in base64 of JSON": (digits) => btoa(JSON.stringify({ cvc: digits, number: digits })),
  "in base64 behind other letters": (digits) => `x${btoa(`{"card":"${digits}"}`)}`,
  "in percent signs": (digits) => [...digits].map((digit) => `%3${digit}`).join(""),
  "in JSON escapes": (digits) => JSON.stringify({ n: 1 }) + [...digits].map((digit) => `\\u003${digit}`).join(""),
  "in HTML entities": (digits) => [...digits].map((digit) => `&#x3${digit};`).join(""),
  "in hexadecimal": (digits) => [...digits].map((digit) => `3${digit}`).join(""),
  "in base64 of base64": (digits) => btoa(btoa(`{"a":"${digits}"}`)),
};

/** How it may leave a page. */
const SENT = {
  "in an address": (text) => fetch(`/q?a=1&n=${encodeURIComponent(text)}`),
  "in a header": (text) => fetch("/h", { headers: { "x-n": encodeURIComponent(text) } }),
  "in a body": (text) => fetch("/b", { method: "POST", body: JSON.stringify({ n: text }) }),
  "by a beacon": (text) => navigator.sendBeacon("/beacon", new URLSearchParams({ n: text })),
  "as an event source": (text) =>
    new Promise((done) => {
      const source = new EventSource(`/events?n=${encodeURIComponent(text)}`);
      source.addEventListener("end", () => done(source.close()));
    }),
  "by a form": (text) => {
    document.forms[0].n.value = text;
    document.forms[0].submit();
  },
};

before(open);
after(close);

const complain = (text) => console.error(text);

describe("a planted card", WALKS, () => {
  let page;
  before(async () => {
    page = await serve(HTML);
    stage.bank = page.url;
  });
  after(() => page.close());

  for (const [way, send] of Object.entries(SENT)) {
    test(`is found when it leaves ${way}`, WALK, async () => {
      for (const { name, digits } of SECRETS) {
        await assert.rejects(carry(page, send, digits), new RegExp(name));
        await assert.rejects(carry(page, send, WRITTEN["in base64 of JSON"](digits)), new RegExp(name));
      }
    });
  }

  for (const [writing, write] of Object.entries(WRITTEN)) {
    test(`is found when it is written ${writing}`, WALK, () => {
      for (const { name, digits } of SECRETS) {
        // A code of three digits cannot be grouped, and in hexadecimal it is like any other number.
        if (digits === CODE && /groups|dashes|hexa/.test(writing)) continue;
        const text = write(digits);
        const request = { method: "POST", url: "http://a.example/", headers: [], body: Buffer.from("") };
        for (const carrying of [{ url: `http://a.example/?n=${encodeURIComponent(text)}` }, { body: Buffer.from(`n=${text}`) }, { headers: [{ name: "x-n", value: text }] }]) {
          assert.match(leaks([{ ...request, ...carrying }], SECRETS).join(), new RegExp(name), text);
        }
      }
    });
  }

  test("is not found where there is none", WALK, async () => {
    for (const send of Object.values(SENT)) await carry(page, send, "eyJhbGciOiJFQ0RILUVTIn0..400000000000 3221 x7371");
  });

  test("is not the only thing that is: so are a foreign origin and a complaint of the page", WALK, async () => {
    const elsewhere = await serve("");
    await assert.rejects(carry(page, (url) => fetch(url, { mode: "no-cors" }), elsewhere.url), /a foreign origin/);
    await assert.rejects(carry(page, complain, "oh"), /oh/);
    elsewhere.close();
  });
});

const BROKEN = `<!DOCTYPE html><html lang="en"><title>Planted</title><link rel="icon" href="data:,">
<style>p { color: #aaa } div { width: 700px } button { outline: none } @media (prefers-color-scheme: dark) { body { background: #111 } p { color: #222 } }</style>
<main><h1>Planted</h1><p>Pale</p><input><div>Wide</div><button>Hidden focus</button></main></html>`;

describe("a planted fault", WALKS, () => {
  let page;
  before(async () => {
    page = await serve(BROKEN);
    stage.bank = page.url;
  });
  after(() => page.close());

  test("of contrast, of a missing label and of width is found", WALK, async () => {
    const visit = await Visit.begin({ site: page.url });
    await visit.page.goto(page.url);
    const found = await inspect(visit, "planted", "broken").then(() => "", (error) => error.message);
    for (const expected of [/light: color-contrast/, /dark: color-contrast/, /light: label/, /320 px: \d+ px wide/, /zoomed to 200 %/]) assert.match(found, expected);
    await visit.end([]);
  });

  test("of a focus that cannot be seen is found", WALK, async () => {
    const visit = await Visit.begin({ site: page.url });
    await visit.page.goto(page.url);
    await assert.rejects(tabTo(visit.page, "#nowhere-at-all, button"), /the focus cannot be seen on <button>/);
    await visit.end([]);
  });
});

async function carry(page, send, text) {
  const visit = await Visit.begin({ site: page.url });
  await visit.page.goto(page.url);
  const sent = send === complain || visit.context.waitForEvent("request");
  await visit.page.evaluate(`void (${send})(${JSON.stringify(text)})`);
  await sent;
  await visit.end(SECRETS);
}

// The bank's page by itself, sent to by a shop that is not ours.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { close, NARROW, open, Visit, WALK, WALKS } from "../support/browser.mjs";
import { inspect } from "../support/inspect.mjs";
import { serve } from "../support/page_of_ours.mjs";
import { stage } from "../support/stage.mjs";

const CARDS = { "EMV 3-D Secure": "4000000000003220", "3-D Secure 1.0": "4000000000003063" };
const SHORT = "4000000000050007";

/** A visit that has just come to the bank's page. */
async function atTheBank(number, options) {
  const challenge = await authorize(number);
  const fields = [...challenge.fields, ["TermUrl", ""]].map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`);
  const shop = await serve(`<!DOCTYPE html><html lang="en"><title>Shop</title><link rel="icon" href="data:,">
    <form method="post" action="${challenge.url}">${fields.join("")}<button>Pay</button></form></html>`);
  const visit = await Visit.begin({ ...options, site: shop.url });
  await visit.page.goto(shop.url);
  await visit.page.locator("[name=TermUrl]").evaluate((input, url) => (input.value = url), `${shop.url}/back`);
  await visit.page.getByRole("button", { name: "Pay" }).click();
  return { visit, page: visit.page, shop };
}

async function authorize(number) {
  const reference = crypto.randomUUID();
  const card = { number, expiry_month: 12, expiry_year: 2035, cvc: "123", holder: "AIBEK ASANOV" };
  const answer = await fetch(`${stage.bank}/v1/authorizations`, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": reference },
    body: JSON.stringify({ reference, amount: { value: 51000, currency: "KGS" }, capture: false, card }),
  });
  return (await answer.json()).challenge;
}

/** Waits until the shop has the bank's answer, and reads it. */
async function answer({ visit, page, shop }, protocol) {
  await page.waitForURL(`${shop.url}/back`);
  const form = new URLSearchParams(shop.posted.at(-1));
  shop.close();
  await visit.end([]);
  const [name, decode] = protocol.startsWith("EMV") ? ["cres", (text) => JSON.parse(Buffer.from(text, "base64url"))] : ["PaRes", (text) => text];
  return { form, message: decode(form.get(name)) };
}

describe("the bank's page", WALKS, () => {
  before(open);
  after(close);

  for (const [protocol, number] of Object.entries(CARDS)) {
    test(`${protocol}: a wrong code, then the right one`, WALK, async () => {
      const walk = await atTheBank(number);
      const { visit, page } = walk;
      await page.getByText("Enter it within").waitFor();
      await inspect(visit, "bank", "ask");
      await page.keyboard.type("000000");
      await page.keyboard.press("Enter");
      await page.getByText("You have 2 tries left").waitFor();
      await inspect(visit, "bank", "wrong");
      await page.keyboard.type("123456");
      await page.keyboard.press("Enter");
      const { form, message } = await answer(walk, protocol);
      if (message.transStatus) assert.equal(message.transStatus, "Y");
      else assert.ok(form.get("MD"));
    });
  }

  test("three wrong codes, without a script and on a narrow screen", WALK, async () => {
    const walk = await atTheBank(CARDS["EMV 3-D Secure"], { javaScript: false, viewport: NARROW });
    const { visit, page } = walk;
    for (let tries = 0; tries < 3; tries += 1) {
      await page.getByLabel("One-time code").fill("000000");
      await page.getByRole("button", { name: "Confirm" }).click();
      await page.getByText(/wrong/).waitFor();
    }
    await page.getByRole("heading", { name: "Not confirmed" }).waitFor();
    await inspect(visit, "bank", "failed");
    await page.getByRole("button", { name: "Back to the shop" }).click();
    assert.equal((await answer(walk, "EMV")).message.transStatus, "N");
  });

  test("cancel", WALK, async () => {
    const walk = await atTheBank(CARDS["EMV 3-D Secure"]);
    await walk.page.getByRole("button", { name: "Cancel" }).click();
    assert.equal((await answer(walk, "EMV")).message.transStatus, "N");
  });

  test("when time is over, the page says so by itself", WALK, async () => {
    const walk = await atTheBank(SHORT);
    await walk.page.getByRole("heading", { name: "Time is over" }).waitFor();
    await inspect(walk.visit, "bank", "late");
    await walk.page.keyboard.press("Enter");
    assert.equal((await answer(walk, "EMV")).message.transStatus, "N");
  });

  test("what is not this payment's form is refused", WALK, async () => {
    const visit = await Visit.begin({ forgiven: /404/, site: stage.bank });
    await visit.page.goto(`${stage.bank}/health`);
    await visit.page.setContent(`<html lang="en"><form method="post" action="${stage.bank}/acs/nobody"><button>Go</button></form>`);
    await visit.page.getByRole("button").click();
    await visit.page.getByRole("heading", { name: "Nothing to confirm" }).waitFor();
    await inspect(visit, "bank", "nothing");
    await visit.end([]);
  });
});

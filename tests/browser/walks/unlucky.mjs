// Browsers that keep nothing, networks that break, banks that redirect, and telephone numbers as people type them.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { close, open, WALK, WALKS } from "../support/browser.mjs";
import { seen } from "../support/inspect.mjs";
import { bill, CARD, Payer } from "../support/payer.mjs";
import { stage } from "../support/stage.mjs";

/** What browsers inside apps, and such as block cookies, have in place of `sessionStorage`. */
const STORAGES = {
  "is none": () => Object.defineProperty(window, "sessionStorage", { value: null }),
  throws: () =>
    Object.defineProperty(window, "sessionStorage", {
      get() {
        throw new DOMException("denied", "SecurityError");
      },
    }),
  "is full": () => {
    Storage.prototype.setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
  },
};

/** What is typed where a country is chosen, and what the receipt is sent to. */
const NUMBERS = [
  ["+996", "555123456", "+996555123456"],
  ["+996", "0555 123 456", "+996555123456"],
  ["+996", "996555123456", "+996555123456"],
  ["+996", "0996 555 12 34 56", "+996555123456"],
  ["+996", "00996555123456", "+996555123456"],
  ["+996", "+996 (555) 123-456", "+996555123456"],
  // A number of Kyrgyzstan that begins like the country's code.
  ["+996", "996123456", "+996996123456"],
  ["+7", "9161234567", "+79161234567"],
  ["+7", "8 916 123-45-67", "+79161234567"],
  ["+7", "7 916 123-45-67", "+79161234567"],
  // One of Kazakhstan that does.
  ["+7", "7012345678", "+77012345678"],
  ["+1", "1 202 555 0123", "+12025550123"],
  ["+49", "4915112345678", "+4915112345678"],
  ["+39", "3912345678", "+393912345678"],
  ["+", "351912345678", "+351912345678"],
];

const isPost = (request) => request.method() === "POST" && request.url().endsWith("/v1/payments");
const posted = (visit) => visit.requests.filter(({ method, url }) => method === "POST" && url.endsWith("/v1/payments"));
const keyOf = ({ headers }) => headers.find(({ name }) => name.toLowerCase() === "idempotency-key").value;

describe("an unlucky payer", WALKS, () => {
  before(open);
  after(close);

  const walk = (name, way, options) =>
    test(name, WALK, async () => {
      const payer = await Payer.arrive("en", options);
      await seen(payer.visit, `unlucky ${name}`, () => way(payer));
      await payer.leave();
    });

  for (const [name, spoil] of Object.entries(STORAGES)) {
    walk(`whose browser's storage ${name} pays, and opens the bank's page`, async (payer) => {
      await payer.visit.context.addInitScript(spoil);
      // Safari before 15.4, Chrome before 92.
      await payer.visit.context.addInitScript(() => delete Crypto.prototype.randomUUID);
      await payer.pay(bill(), CARD.confirmed);
      await payer.sees("confirm");
      await payer.page.locator("#bank button").click();
      await payer.confirm();
      await payer.sees("paid");
    });
  }

  walk("whose bank answers the form with a redirect comes back", async (payer) => {
    const { page } = payer;
    await page.route(`${stage.bank}/acs/**`, async (route) => {
      const location = new URLSearchParams(route.request().postData()).get("TermUrl");
      await route.fulfill({ status: 303, headers: { location } });
    });
    const back = page.waitForResponse(/\/return$/);
    await payer.pay(bill(), CARD.confirmed);
    assert.equal((await back).status(), 303);
    await payer.sees("confirm");
    await page.unroute(`${stage.bank}/acs/**`);
    await page.locator("#bank button").click();
    await payer.confirm();
    await payer.sees("paid");
  });

  walk("to whom the answer is lost sends the same again", async (payer) => {
    const { page, visit } = payer;
    await page.route("**/v1/payments", lose, { times: 1 });
    await payer.pay(bill(), CARD.approved);
    await payer.sees("paid");
    assert.equal(posted(visit).length, 2);
    assert.equal(new Set(posted(visit).map(keyOf)).size, 1, "one key");
  }, { forgiven: /ERR_FAILED/ });

  walk("to whom it is lost, and who loads the page again and types another address, has the first payment", async (payer) => {
    const { page, visit } = payer;
    await page.route("**/v1/payments", lose);
    await payer.pay(bill(), CARD.approved);
    await page.waitForEvent("requestfailed", isPost);
    await page.reload();
    await payer.formIsReady();
    await page.unroute("**/v1/payments");
    await payer.fill(CARD.approved, { email: "another@example.com" });
    await payer.press();
    await payer.sees("paid");
    assert.equal(new Set(posted(visit).map(keyOf)).size, 1, "one key");
    const emails = posted(visit).map(({ body }) => JSON.parse(body).payer.email);
    assert.equal(emails.at(-1), "payer@example.com", emails.join());
  }, { forgiven: /ERR_FAILED|422/ });

  walk("whose card is sealed for a key that is gone seals it once more", async (payer) => {
    const { page, visit } = payer;
    await page.route("**/v1/encryption-keys", async (route) => {
      const response = await route.fetch();
      const { keys } = await response.json();
      await route.fulfill({ response, json: { keys: [{ ...keys[0], kid: crypto.randomUUID() }] } });
    }, { times: 1 });
    await payer.pay(bill(), CARD.approved);
    await payer.sees("paid");
    assert.equal(posted(visit).length, 2);
    assert.equal(new Set(posted(visit).map(keyOf)).size, 1, "one key");
  }, { forgiven: /422/ });

  walk("may write a telephone number in many ways", async (first) => {
    const code = bill();
    const second = await Payer.arrive("en", { forgiven: /409/ });
    await second.open(`/bills/${code}`);
    await second.toTheCard(code);
    await first.pay(code, CARD.confirmed);
    await first.isAtTheBank();
    // A bill that is being paid: what is sent is refused, so it can be sent again.
    for (const [country, typed, expected] of NUMBERS) {
      await second.page.locator("#country").selectOption(country);
      await second.fill(CARD.approved, { phone: typed });
      const [sent] = await Promise.all([second.page.waitForRequest(isPost), second.press()]);
      await second.page.locator("#summary:not([hidden])").waitFor();
      assert.equal(sent.postDataJSON().payer.phone, expected, `${country} ${typed}`);
    }
    await second.leave();
  });
});

/** Hands a request on, and loses its answer. */
async function lose(route) {
  await route.fetch();
  await route.abort("failed");
}

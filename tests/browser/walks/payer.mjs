// The payer's whole way, in each language.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { close, NARROW, open, WALK, WALKS } from "../support/browser.mjs";
import { inspect, seen } from "../support/inspect.mjs";
import { tabTo } from "../support/keyboard.mjs";
import { bill, CARD, ONE_TIME_CODE, Payer } from "../support/payer.mjs";
import { stage } from "../support/stage.mjs";

/** Lighthouse's mobile throttling: 150 ms there and back, 1.6 Mbit/s down, 750 kbit/s up. */
const SLOW = { latency: 150, downloadThroughput: (1.6 * 1024 * 1024) / 8, uploadThroughput: (750 * 1024) / 8 };
/** What it does not slow down, and TCP and TLS 1.3 take: two ways there and back. */
const CONNECTING_MS = 300;

const LANGUAGES = ["ky", "ru", "en"];

describe("the payer's way", WALKS, () => {
  before(open);
  after(close);

  for (const lang of LANGUAGES) {
    const walk = (name, way, options) =>
      test(`${lang}: ${name}`, WALK, async () => {
        const payer = await Payer.arrive(lang, options);
        const look = (page, who = payer) => inspect(who.visit, lang, page);
        await seen(payer.visit, `${lang} ${name}`, () => way(payer, look));
        await payer.leave();
      });

    walk("approved, from the code to the receipt", async (payer, look) => {
      const { page } = payer;
      const code = bill();
      await payer.open("/");
      await look("home");
      await page.locator("#code").fill("99");
      await page.locator("#code[aria-invalid=true]").waitFor();
      await page.keyboard.press("Enter");
      await look("home.wrong");
      await payer.enter(code);
      await look("bill");
      await payer.toTheCard(code);
      await look("card");
      await payer.press();
      await page.locator("#summary:not([hidden])").waitFor();
      assert.equal(await page.locator("[aria-invalid=true]").count(), 6, "every field is asked for");
      await look("card.missing");
      await payer.fill("4111111111111112", { expiry: "13/35", cvc: "12", holder: "Асанов", email: "nobody", phone: "1" });
      await payer.press();
      assert.equal(await page.locator("[aria-invalid=true]").count(), 6, "every field says how to mend it");
      await look("card.wrong");
      await payer.fill(CARD.approved);
      await page.locator("#summary[hidden], #brand:not(:empty)").first().waitFor({ state: "attached" });
      await look("card.filled");
      await page.setViewportSize(NARROW);
      assert.ok(await page.evaluate(numberIsFree), "the whole number can be read on a narrow screen");
      await payer.press();
      await payer.sees("paid");
      await look("paid");
      await page.locator(".verify a").click();
      await page.locator("main h1.good").waitFor();
      await look("receipt.genuine");
      await payer.open(`/bills/${code}`);
      await page.locator("main h1.good").waitFor();
      await look("bill.paid");
    });

    walk("approved with the bank's code, after a look back", async (payer, look) => {
      await payer.pay(bill(), CARD.confirmed);
      await payer.isAtTheBank();
      await look("bank");
      await payer.page.goBack();
      await payer.sees("confirm");
      await look("confirm");
      await payer.page.locator("#bank button").click();
      await payer.confirm();
      await payer.sees("paid");
    });

    walk("3-D Secure 1.0, on a screen of 320 px", async (payer) => {
      await payer.pay(bill(), CARD.legacy);
      await payer.confirm();
      await payer.sees("paid");
    }, { viewport: NARROW });

    walk("a wrong code three times", async (payer, look) => {
      await payer.pay(bill(), CARD.confirmed);
      for (let tries = 0; tries < 2; tries += 1) {
        await payer.confirm("000000");
        await payer.page.locator("#otp[aria-invalid=true]").waitFor();
      }
      await payer.page.locator("#otp").fill("000000");
      await payer.page.keyboard.press("Enter");
      await payer.page.locator("form button.main:focus").waitFor();
      await payer.page.keyboard.press("Enter");
      await payer.sees("declined");
      await look("declined.code");
    });

    walk("cancelled at the bank", async (payer) => {
      await payer.pay(bill(), CARD.confirmed);
      await payer.isAtTheBank();
      await payer.page.locator("button[name=cancel]").click();
      await payer.sees("declined");
    });

    walk("too late at the bank", async (payer) => {
      await payer.pay(bill(), CARD.short);
      // The time may be over before the bank's page is seen, while it is, or on the way back from it.
      const declined = payer.page.locator('#live[data-public="declined"] h1');
      const back = payer.page.locator('form[action$="/return"] button');
      await declined.or(back).waitFor();
      if (await back.isVisible()) await back.click();
      await payer.sees("declined");
    });

    walk("declined, then paid with another card", async (payer, look) => {
      const { page } = payer;
      const code = bill();
      await payer.pay(code, CARD.insufficient);
      await payer.sees("declined");
      await look("declined");
      await page.locator("#live a.main.button").click();
      await payer.formIsReady();
      assert.equal(await page.locator("#email").inputValue(), "payer@example.com", "kept");
      assert.equal(await page.locator("#phone").inputValue(), "555 123 456", "kept");
      for (const field of ["number", "expiry", "cvc"]) assert.equal(await page.locator(`#${field}`).inputValue(), "", field);
      await payer.fill(CARD.mastercard);
      await payer.press();
      await payer.sees("paid");
    });

    walk("double click, reload and back in the middle pay once", async (payer) => {
      const { page, visit } = payer;
      const code = bill();
      await payer.open(`/bills/${code}`);
      await payer.toTheCard(code);
      await payer.fill(CARD.confirmed);
      await page.locator("#pay").dblclick();
      await payer.isAtTheBank();
      await page.reload();
      await payer.isAtTheBank();
      // Back: first to the payment, then to the form, which leads to the payment that is under way.
      await page.goBack();
      await payer.sees("confirm");
      const payment = page.url();
      await page.reload();
      await payer.sees("confirm");
      await payer.open(`/bills/${code}/pay`);
      await page.waitForURL(payment);
      await page.locator("#bank button").click();
      await payer.confirm();
      await payer.sees("paid");
      await page.reload();
      await payer.sees("paid");
      const keys = visit.requests
        .filter(({ method, url }) => method === "POST" && url.endsWith("/v1/payments"))
        .map(({ headers }) => headers.find(({ name }) => name.toLowerCase() === "idempotency-key").value);
      assert.equal(new Set(keys).size, 1, "one key");
      const payments = visit.requests.map(({ url }) => /\/payments\/([0-9a-f-]{36})/.exec(url)?.[1]).filter(Boolean);
      assert.equal(new Set(payments).size, 1, "one payment");
    });

    walk("two browsers on one bill", async (first, look) => {
      const code = bill();
      const second = await Payer.arrive(lang, { forgiven: /409/ });
      await second.open(`/bills/${code}`);
      await second.toTheCard(code);
      await second.fill(CARD.approved);
      await first.pay(code, CARD.confirmed);
      await first.isAtTheBank();
      await second.press();
      await second.page.locator("#summary:not([hidden])").waitFor();
      await look("card.being-paid", second);
      assert.equal(await second.page.locator("#cvc").inputValue(), "", "the code is not kept");
      await second.open(`/bills/${code}`);
      await second.page.locator("main h1.wait").waitFor();
      await look("bill.being-paid", second);
      await first.confirm();
      await first.sees("paid");
      await second.page.reload();
      await second.page.locator("main h1.good").waitFor();
      await second.leave();
    });

    walk("without a script", async (payer, look) => {
      const { page, visit } = payer;
      const code = bill();
      await payer.enter(code);
      await look("noscript.bill");
      await page.locator("main a.main.button").click();
      await page.locator("noscript .notice").waitFor();
      await look("noscript.card");
      assert.equal(await page.locator("#fields:disabled").count(), 1, "nothing can be typed");
      await page.locator("#pay").click({ force: true });
      assert.ok(visit.requests.every(({ method }) => method === "GET"), "nothing is posted");
      await payer.open("/?code=99");
      await page.locator("#code[aria-invalid=true]").waitFor();
      await look("noscript.home");
    }, { javaScript: false, forgiven: /4\d\d/ });

    walk("bills that cannot be paid, and addresses that lead nowhere", async (payer, look) => {
      const { page } = payer;
      for (const [name, code] of Object.entries(stage.closed)) {
        await payer.open(`/bills/${code}`);
        await page.locator("main h1").waitFor();
        assert.equal(await page.locator("main a.main.button").count(), 0, `${name} cannot be paid`);
        await look(`bill.${name}`);
      }
      for (const [name, path] of Object.entries({
        "bill.unknown": "/bills/110000999999",
        "payment.unknown": "/payments/00000000-0000-7000-8000-000000000000",
        "receipt.unknown": "/receipts/0000000000",
        "page.unknown": "/nowhere",
      })) {
        await payer.open(path);
        await page.locator("main h1").waitFor();
        await look(name);
      }
    }, { forgiven: /404/ });

    walk("the documents", async (payer, look) => {
      const { page } = payer;
      await payer.open("/documents/");
      await look("documents");
      const links = await page.locator("ul.documents a").evaluateAll((all) => all.map((link) => link.href));
      assert.ok(links.length >= 3);
      for (const [index, link] of links.entries()) {
        await page.goto(link);
        await look(`documents.${index + 1}`);
      }
    });

    walk("the keyboard alone", async (payer) => {
      const code = bill();
      const { page } = payer;
      await payer.open("/");
      await tabTo(page, "#code");
      await page.keyboard.type(code);
      await page.keyboard.press("Enter");
      await page.waitForURL(payer.at(`/bills/${code}`));
      await tabTo(page, "main a.main.button");
      await page.keyboard.press("Enter");
      await payer.formIsReady();
      for (const [field, text] of [["number", CARD.confirmed], ["expiry", "1235"], ["cvc", "737"], ["holder", "aibek asanov"], ["email", "payer@example.com"], ["phone", "+996555123456"]]) {
        await tabTo(page, `#${field}`);
        await page.keyboard.type(text);
      }
      await tabTo(page, "#pay");
      await page.keyboard.press("Enter");
      await payer.isAtTheBank();
      await tabTo(page, "#otp");
      await page.keyboard.type(ONE_TIME_CODE);
      await tabTo(page, "button.main");
      await page.keyboard.press("Enter");
      await payer.sees("paid");
    });

    walk("the whole way weighs little", async (payer) => {
      const code = bill();
      await payer.enter(code);
      await payer.toTheCard(code);
      await payer.fill(CARD.confirmed);
      await payer.press();
      await payer.confirm();
      await payer.sees("paid");
      console.log(`${lang}: the whole way, from the code to the receipt, is ${payer.visit.received} bytes`);
      assert.ok(payer.visit.received > 0 && payer.visit.received < 100_000, `${payer.visit.received} bytes`);
    });

    test(`${lang}: the first view comes soon on a slow network`, WALK, async () => {
      const payer = await Payer.arrive(lang, { network: SLOW });
      await payer.open("/");
      const { paint, before, bytes } = await payer.page.evaluate(firstPaint);
      await payer.leave();
      // Told, not asserted: what else the machine is busy with is part of it. What is waited for is not: the page, its
      // style and its script, within what a server may send before it hears anything (RFC 6928: ten segments), come in
      // four round trips of 150 ms.
      console.log(`${lang}: first view after ${Math.round(CONNECTING_MS + paint)} ms on Lighthouse's slow network`);
      assert.ok(before <= 3 && bytes <= 14_600, `${before} requests, ${bytes} bytes`);
    });
  }
});

/** Whether the card's brand leaves the number beside it alone. */
function numberIsFree() {
  const [number, brand] = ["number", "brand"].map((id) => document.getElementById(id));
  const style = getComputedStyle(number);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  const spaces = (number.value.length - 1) * (parseFloat(style.letterSpacing) || 0);
  const end = number.getBoundingClientRect().left + parseFloat(style.paddingLeft) + pen.measureText(number.value).width + spaces;
  const [box, field] = [brand.getBoundingClientRect(), number.getBoundingClientRect()];
  return box.top >= field.bottom || box.left >= end;
}

/** When the first view came, and what was asked for before it: how much, and how many bytes of it. */
function firstPaint() {
  return new Promise((done) => {
    new PerformanceObserver((list) => {
      const paint = list.getEntriesByName("first-contentful-paint")[0]?.startTime;
      if (paint === undefined) return;
      const loaded = ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind));
      const before = loaded.filter((entry) => entry.startTime < paint && !entry.name.endsWith(".svg"));
      done({ paint, before: before.length, bytes: before.reduce((sum, entry) => sum + entry.transferSize, 0) });
    }).observe({ type: "paint", buffered: true });
  });
}

// Back from the bank while nobody looks at its answer yet: the workers rest when the walk says so.

import { after, before, test } from "node:test";
import { close, open, WALK } from "../support/browser.mjs";
import { inspect } from "../support/inspect.mjs";
import { bill, CARD, Payer } from "../support/payer.mjs";
import { goOn } from "../support/stage.mjs";

before(open);
after(close);

test("confirmed, or too late, and what came of it while the page is open", { timeout: 2 * WALK.timeout }, async () => {
  const pairs = [];
  for (const lang of ["ky", "ru", "en"]) {
    const [confirmed, late] = [await Payer.arrive(lang), await Payer.arrive(lang)];
    await confirmed.pay(bill(), CARD.confirmed);
    await confirmed.isAtTheBank();
    await late.pay(bill(), CARD.short);
    // The page may lead to the bank at once.
    let payment;
    await late.page.waitForURL(({ href }) => (payment ??= /\/payments\/[0-9a-f-]+$/.test(href) ? href : undefined));
    await late.page.locator("#otp, form[action$='/return'] button, #live[data-public=confirm]").first().waitFor();
    pairs.push({ confirmed, late, payment, lang });
  }
  await goOn();
  for (const { confirmed, late, payment, lang } of pairs) {
    await confirmed.confirm();
    await confirmed.page.locator("#live[data-public=confirm]:not(:has(#bank)) h1").waitFor();
    await inspect(confirmed.visit, lang, "confirmed");
    await late.page.goto(payment);
    await late.page.locator("#live[data-public=confirm]:not(:has(#bank)) h1").waitFor();
    await inspect(late.visit, lang, "confirm.over");
  }
  await goOn();
  for (const { confirmed, late } of pairs) {
    await confirmed.sees("paid");
    await late.sees("declined");
    await confirmed.leave();
    await late.leave();
  }
});

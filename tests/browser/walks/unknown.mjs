// What is not known yet, and is resolved while its page is open. The workers are started when the walk says so.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { close, open, WALK } from "../support/browser.mjs";
import { inspect } from "../support/inspect.mjs";
import { bill, CARD, Payer } from "../support/payer.mjs";
import { goOn } from "../support/stage.mjs";

before(open);
after(close);

test("processing, then unknown, then what became of it, while the page is open", { timeout: 2 * WALK.timeout }, async () => {
  const payers = [];
  for (const lang of ["ky", "ru", "en"]) {
    for (const [card, end] of [[CARD.lostAnswer, "paid"], [CARD.neverBooked, "not_charged"]]) {
      const payer = await Payer.arrive(lang);
      const code = bill();
      await payer.pay(code, card);
      await payer.sees("processing");
      await inspect(payer.visit, lang, "processing");
      payers.push({ payer, end, lang, code });
    }
  }
  await goOn();
  for (const { payer, lang } of payers) {
    await payer.sees("unknown");
    await inspect(payer.visit, lang, "unknown");
    assert.equal(await payer.page.locator("#live a.main.button").count(), 0, "no way to pay again");
  }
  await goOn();
  for (const { payer, end, lang, code } of payers) {
    await payer.sees(end);
    await inspect(payer.visit, lang, end);
    // The page changed by itself: it was loaded once.
    const loads = payer.visit.loads(/\/payments\/[0-9a-f-]+$/);
    assert.equal(loads, 1, `${code}: loaded ${loads} times`);
    await payer.leave();
  }
});

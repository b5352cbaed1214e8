// The keyboard alone: Tab, Enter and typing.

import assert from "node:assert/strict";

/** Presses Tab until this has the focus; whatever has it on the way shows so, on the screen. */
export async function tabTo(page, selector) {
  for (let presses = 0; presses < 60; presses += 1) {
    if (await page.locator(selector).first().evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(seeFocus);
    assert.ok(focus.seen, `the focus cannot be seen on ${focus.what}`);
  }
  assert.fail(`${selector} is not reached by Tab`);
}

function seeFocus() {
  const element = document.activeElement;
  const what = element.outerHTML.slice(0, 120);
  // The browser's own controls come after the last element.
  if (element === document.body) return { seen: true, what };
  const style = getComputedStyle(element);
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  const box = element.getBoundingClientRect();
  const inView = box.bottom > 0 && box.top < innerHeight && box.width > 0;
  return { seen: element.matches(":focus-visible") && (outlined || style.boxShadow !== "none") && inView, what };
}

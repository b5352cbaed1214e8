// What holds for every page in every state: no violation of WCAG 2.2 AA that axe-core knows, in light and dark; nothing
// to scroll sideways on a narrow screen or when zoomed. And a picture of it.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { NARROW } from "./browser.mjs";
import { axe, stage } from "./stage.mjs";

const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"];

/** Screens on which a page may not be wider than they are; the last two are a window of 1280 points zoomed to 200 %. */
const SCREENS = [
  { name: "320 px", size: NARROW, text: "" },
  { name: "zoomed to 200 %", size: { width: 640, height: 400 }, text: "" },
  { name: "text at 200 %", size: { width: 640, height: 800 }, text: "200%" },
];

const done = new Set();

/** Looks at a page closely, once for each name and language. */
export async function inspect(visit, lang, name) {
  const key = `${lang}/${name}`;
  if (done.has(key)) return;
  done.add(key);
  const page = visit.javaScript ? visit.page : await twin(visit.page);
  const wrong = [];
  const before = page.viewportSize();
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    wrong.push(...(await violations(page)).map((violation) => `${scheme}: ${violation}`));
    await picture(page, lang, `${name}.${scheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  for (const { name: screen, size, text } of SCREENS) {
    await page.setViewportSize(size);
    const wide = await page.evaluate(wideness, text);
    if (wide) wrong.push(`${screen}: ${wide}`);
    if (size === NARROW) await picture(page, lang, `${name}.narrow`);
  }
  await page.evaluate(() => document.documentElement.style.removeProperty("font-size"));
  await page.setViewportSize(before);
  if (page !== visit.page) await page.context().close();
  if (wrong.length > 0) throw new Error(`${key} (${page.url()}):\n${wrong.join("\n")}`);
}

/** Does something; if it fails, there is a picture of where, and what stood on the page is told. */
export async function seen({ page }, name, act) {
  try {
    await act();
  } catch (error) {
    await picture(page, "failed", name).catch(() => {});
    const text = await page.locator("body").innerText({ timeout: 1_000 }).catch(() => "");
    error.stack += `\nat ${page.url()}\n${text.slice(0, 1_500)}`;
    throw error;
  }
}

/** A page as it stands where no script runs, in a browser where axe-core can. */
async function twin(page) {
  const html = (await page.content()).replace(/<script[^]*?<\/script>/g, "").replace(/<\/?noscript>/g, "");
  const context = await page.context().browser().newContext({ viewport: page.viewportSize() });
  const copy = await context.newPage();
  await copy.route(page.url(), (route) => route.fulfill({ contentType: "text/html; charset=utf-8", body: html }));
  await copy.goto(page.url());
  return copy;
}

async function violations(page) {
  // Put in by the debugger, whatever the page's policy allows.
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
  const found = await page.evaluate(async (values) => {
    const result = await window.axe.run(document, { runOnly: { type: "tag", values }, resultTypes: ["violations"] });
    return result.violations.map(({ id, help, nodes }) => ({ id, help, where: nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`) }));
  }, RULES);
  return found.map(({ id, help, where }) => `${id}: ${help}\n  ${where.slice(0, 3).join("\n  ")}`);
}

/** What sticks out, if the page can be scrolled sideways. */
function wideness(text) {
  const root = document.documentElement;
  root.style.fontSize = text;
  if (root.scrollWidth <= root.clientWidth) return "";
  const out = [...document.body.querySelectorAll("*")].filter((element) => element.getBoundingClientRect().right > root.clientWidth + 1);
  const names = out.slice(0, 5).map((element) => `<${element.tagName.toLowerCase()} id="${element.id}" class="${element.className}">`);
  return `${root.scrollWidth} px wide on ${root.clientWidth} px: ${names.join(" ")}`;
}

async function picture(page, lang, name) {
  const folder = join(stage.screenshots, lang);
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true, animations: "disabled", caret: "initial" });
}

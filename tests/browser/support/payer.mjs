// A payer: what a person does on the pages. Finds everything by what it is for, so that it is the same in any language.

import { Visit } from "./browser.mjs";
import { stage } from "./stage.mjs";

/** The simulator's cards (`src/simulator/cards.rs`). */
export const CARD = {
  approved: "4111111111111111",
  mastercard: "5555555555554444",
  insufficient: "4000000000009995",
  confirmed: "4000000000003220",
  legacy: "4000000000003063",
  short: "4000000000050007",
  lostAnswer: "4000000000050031",
  neverBooked: "4000000000050023",
};

export const ONE_TIME_CODE = "123456";
const CVC = "737";

/** Digits that must not leave a browser in clear. */
const SECRETS = [
  ...Object.entries(CARD).map(([name, digits]) => ({ name: `the card number (${name})`, digits })),
  { name: "the security code", digits: CVC },
];

/** An open bill that nobody else in this run has. */
export function bill() {
  const code = stage.bills.shift();
  if (!code) throw new Error("the stage has too few bills");
  return code;
}

export class Payer {
  static async arrive(lang, options) {
    const payer = new Payer();
    payer.lang = lang;
    payer.visit = await Visit.begin({ lang, ...options });
    payer.page = payer.visit.page;
    return payer;
  }

  /** Ends the visit, and checks all that it has sent. */
  async leave() {
    await this.visit.end(SECRETS);
  }

  at(path) {
    return `${stage.site}/${this.lang}${path}`;
  }

  async open(path) {
    await this.page.goto(this.at(path));
  }

  /** Enters a payment code as people copy it. */
  async enter(code) {
    await this.open("/");
    await this.page.locator("#code").fill(code.replace(/(.{4})(?=.)/g, "$1 "));
    await this.page.keyboard.press("Enter");
    await this.page.waitForURL(this.at(`/bills/${code}`));
  }

  /** Goes from a bill that can be paid to the card's form. */
  async toTheCard(code) {
    await this.page.locator("main a.main.button").click();
    await this.page.waitForURL(this.at(`/bills/${code}/pay`));
    await this.formIsReady();
  }

  async formIsReady() {
    await this.page.locator("#fields:enabled").waitFor();
  }

  async fill(number, more = {}) {
    const typed = { number, expiry: "12/35", cvc: CVC, holder: "Aibek Asanov", email: "payer@example.com", phone: "555 123 456", ...more };
    for (const [field, text] of Object.entries(typed)) await this.page.locator(`#${field}`).fill(text);
  }

  async press() {
    await this.page.locator("#pay").click();
  }

  /** From the bill to a payment with this card, submitted. */
  async pay(code, number) {
    await this.open(`/bills/${code}`);
    await this.toTheCard(code);
    await this.fill(number);
    await this.press();
  }

  /** Waits until the payment's page says so: `paid`, `declined`, `not_charged`, `unknown`, `processing`, `confirm`. */
  async sees(status) {
    await this.page.locator(`#live[data-public="${status}"] h1`).waitFor();
  }

  /** Waits for the bank's page. */
  async isAtTheBank() {
    await this.page.waitForURL(`${stage.bank}/acs/**`);
    await this.page.locator("#otp").waitFor();
  }

  /** Types a one-time code on the bank's page. */
  async confirm(code = ONE_TIME_CODE) {
    await this.isAtTheBank();
    await this.page.locator("#otp").fill(code);
    await this.page.keyboard.press("Enter");
  }
}

// One browser for a run, and visits of it: a visit is a person's own browser, recorded from its first request on.

import { chromium, stage } from "./stage.mjs";
import { leaks } from "./traffic.mjs";

/** Longest wait for anything on a page, in milliseconds. Nothing waits for a time to pass. */
const PATIENCE_MS = 20_000;

/** A phone of 2016 upright: the narrowest screen that the pages are made for. */
export const NARROW = { width: 320, height: 568 };
const DESK = { width: 1280, height: 800 };

/** Two walks side by side. */
export const WALKS = { concurrency: 2 };
/** None lasts longer than this. */
export const WALK = { timeout: 60_000 };

let browser;

/** Starts the browser. */
export async function open() {
  const args = ["--disable-component-update", "--no-first-run"];
  // Its sandbox refuses to work for root.
  const chromiumSandbox = process.getuid() !== 0;
  browser = await chromium.launch({ executablePath: stage.chromium, chromiumSandbox, args });
}

export async function close() {
  await browser?.close();
}

/** What one person's browser did. */
export class Visit {
  /** Every request that left: { method, url, headers, body }. */
  requests = [];
  /** What the console and the pages complained of. */
  complaints = [];
  /** Bytes received over the network, headers included. */
  received = 0;
  #recording = [];
  #forgiven;
  #known;
  #documents = [];

  /**
   * `forgiven` is a pattern of complaints that belong to the walk, such as of a page that is answered with 404;
   * `network` is what `Network.emulateNetworkConditions` takes; `site` is where everything is but the bank.
   */
  static async begin({ lang = "en", javaScript = true, viewport = DESK, forgiven, network, site = stage.site } = {}) {
    const visit = new Visit();
    visit.#forgiven = forgiven;
    visit.javaScript = javaScript;
    visit.#known = [site, stage.bank].map((url) => new URL(url).origin);
    visit.context = await browser.newContext({
      locale: { ky: "ky-KG", ru: "ru-RU", en: "en-GB" }[lang],
      javaScriptEnabled: javaScript,
      serviceWorkers: "allow",
      colorScheme: "light",
      reducedMotion: "reduce",
      viewport,
    });
    visit.context.setDefaultTimeout(PATIENCE_MS);
    visit.context.on("request", (request) => {
      if (request.isNavigationRequest()) visit.#documents.push(request.url());
      visit.#recording.push(visit.#record(request));
    });
    visit.context.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) visit.complaints.push(`${message.type()}: ${message.text()}`);
    });
    visit.context.on("weberror", (error) => visit.complaints.push(`exception: ${error.error()}`));
    visit.context.on("requestfailed", (request) => {
      const failure = request.failure()?.errorText;
      // Whoever leaves a page ends what it was loading.
      if (failure !== "net::ERR_ABORTED") visit.complaints.push(`failed: ${request.url()}: ${failure}`);
    });
    visit.page = await visit.context.newPage();
    visit.wire = await visit.context.newCDPSession(visit.page);
    await visit.wire.send("Network.enable");
    visit.wire.on("Network.loadingFinished", ({ encodedDataLength }) => (visit.received += encodedDataLength));
    if (network) await visit.wire.send("Network.emulateNetworkConditions", { offline: false, ...network });
    return visit;
  }

  async #record(request) {
    const [url, method] = [request.url(), request.method()];
    if (!/^https?:/.test(url)) return;
    let headers = await request.headersArray().catch(() => []);
    if (headers.length === 0) headers = Object.entries(request.headers()).map(([name, value]) => ({ name, value }));
    const body = request.postDataBuffer();
    const length = headers.find(({ name }) => name.toLowerCase() === "content-length")?.value;
    if (!body && Number(length) > 0) this.complaints.push(`the body of ${method} ${url} was not recorded`);
    this.requests.push({ method, url, headers, body });
  }

  /** How often a document at such an address was loaded. */
  loads(address) {
    return this.#documents.filter((url) => address.test(url)).length;
  }

  /** Ends the visit: what it sent, and whether anything about it was wrong. */
  async end(secrets) {
    await this.page.close();
    await Promise.all(this.#recording);
    await this.context.close();
    const wrong = this.complaints.filter((complaint) => !this.#forgiven?.test(complaint));
    for (const { url, method } of this.requests) {
      if (!this.#known.includes(new URL(url).origin)) wrong.push(`a foreign origin: ${method} ${url}`);
    }
    wrong.push(...leaks(this.requests, secrets));
    if (wrong.length > 0) throw new Error(wrong.join("\n"));
  }
}

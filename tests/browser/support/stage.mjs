// What the Rust side of these tests has set up for this run, and the two libraries that it has installed.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

/** Addresses, bills and folders, as `tests/it/browser/` writes them. */
export const stage = JSON.parse(process.env.TOLOM_BROWSER_STAGE);

const require = createRequire(join(stage.libraries, "package.json"));

export const { chromium } = require("playwright-core");

/** The source of axe-core, which runs inside the pages. */
export const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Lets the Rust side take its next step, and waits until it has: a connection is the sign, its end the answer. */
export const goOn = () =>
  new Promise((done, failed) => {
    connect(stage.signal, "127.0.0.1").on("error", failed).on("close", done).resume();
  });

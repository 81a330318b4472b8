// What the tests of the pages share: a browser, and axe-core, html-validate and the browser itself as judges of a page.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { HtmlValidate } from "html-validate";
import { chromium } from "playwright-core";

const { WEB_URL, OUT } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const validate = new HtmlValidate({ extends: ["html-validate:recommended"], rules: { "void-style": "off", "no-trailing-whitespace": "off", "long-title": "off", "no-implicit-button-type": "off", "prefer-native-element": "off" } });

export const check = (truth, what) => {
  if (!truth) throw new Error(what);
};

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** What the browser complained of. */
export const complaints = [];

/** Complaints that a test has provoked. */
export function forgive(part) {
  complaints.splice(0, complaints.length, ...complaints.filter((c) => !c.includes(part)));
}

// The page as it was sent: what the browser makes of it is not what is judged.
let sent = "";
export async function open(options) {
  // axe runs inside the page, which its policy forbids; what the policy does is checked by itself below.
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("console", (message) => message.type() === "error" && page.url().startsWith(WEB_URL) && complaints.push(`${page.url()}: ${message.text()}`));
  page.on("response", (response) => {
    const html = (response.headers()["content-type"] ?? "").startsWith("text/html");
    if (!html || !response.request().isNavigationRequest()) return;
    sent = response.text();
    // A page that is left before it is judged may have no text any more.
    sent.catch(() => {});
  });
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
  page.on("request", (request) => {
    const from = page.url();
    const ours = request.url().startsWith(WEB_URL) || request.url().startsWith("data:");
    if (!ours && !request.isNavigationRequest() && from.startsWith(WEB_URL)) complaints.push(`${from} asked ${request.url()}`);
  });
  return page;
}

let pages = 0;
/** How many pages were judged. */
export const judged = () => pages;

/** Judges a page in both themes, and takes pictures of it. */
export async function judge(page, name, widths = [360, 1440]) {
  const report = await validate.validateString(await sent, page.url());
  const wrong = report.results.flatMap((r) => r.messages).filter((m) => m.severity === 2);
  check(!wrong.length, `${name}: ${JSON.stringify(wrong.map((m) => `${m.line}: ${m.ruleId}: ${m.message}`))}`);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // The API's reference follows by a script.
    if (await page.locator("#reference").count()) await page.locator(colorScheme === "dark" ? "html.dark-mode" : "html:not(.dark-mode)").waitFor();
    // The colours fade into each other; what is judged is where they end.
    await page.evaluate(async () => {
      await new Promise((frame) => requestAnimationFrame(() => requestAnimationFrame(frame)));
      await Promise.allSettled(document.getAnimations().filter((a) => a instanceof CSSTransition).map((a) => a.finished));
    });
    // Through the debugger's channel: the page's own policy allows no script of others.
    const { violations } = await page.evaluate(`${axe}; axe.run()`);
    const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
    check(!serious.length, `${name} (${colorScheme}): ${JSON.stringify(serious.map((v) => [v.id, v.nodes.map((n) => n.html + n.failureSummary)]))}`);
    for (const width of widths) {
      await page.setViewportSize({ width, height: 900 });
      const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      check(over <= 0, `${name}: ${over} px too wide at ${width}`);
      await page.screenshot({ path: `${OUT}/${name}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  pages += 1;
}

// The API's document and its page. The document is valid OpenAPI, and each example fits its schema. The page shows an operation
// with its body and its example, asks its own host for everything, and its policy has nothing to forbid. The browser reaches web
// under a public name, and takes it for one with TLS: Swagger UI asks a validator about documents of such hosts, unless it is told not to.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Validator } from "@seriousme/openapi-schema-validator";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { chromium } from "playwright-core";

const { WEB_URL, OUT, CHROMIUM } = process.env;
const check = (truth, what) => {
  if (!truth) throw new Error(what);
};

const document = await (await fetch(`${WEB_URL}/openapi.json`)).json();
const valid = await new Validator().validate(structuredClone(document));
check(valid.valid, `not OpenAPI: ${JSON.stringify(valid.errors)}`);

const ajv = new Ajv2020({ strict: false, allErrors: true });
formats.default(ajv);
ajv.addSchema({ $id: "document", ...document });
let examples = 0;
/** Judges each example below a node: that of a schema by the schema itself, that of a body by the body's schema. */
function judge(node, path) {
  if (typeof node !== "object" || node === null) return;
  if ("example" in node) {
    const pointer = path.map((part) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))).join("/");
    const fits = ajv.compile({ $ref: `document#/${pointer}${"schema" in node ? "/schema" : ""}` });
    check(fits(node.example), `${path.join(" ")}: ${JSON.stringify(node.example)}: ${ajv.errorsText(fits.errors)}`);
    examples += 1;
  }
  for (const [name, inner] of Object.entries(node)) if (name !== "example") judge(inner, [...path, name]);
}
judge(document, []);
check(examples > 50, `${examples} examples`);

const web = new URL(WEB_URL);
const origin = `http://docs.example.com:${web.port}`;
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", `--host-resolver-rules=MAP docs.example.com ${web.hostname}`, `--unsafely-treat-insecure-origin-as-secure=${origin}`],
});
const page = await (await browser.newContext({ viewport: { width: 1440, height: 900 } })).newPage();
const complaints = [];
page.on("request", (request) => {
  if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith("data:")) complaints.push(`asked ${request.url()}`);
});
page.on("pageerror", (error) => complaints.push(`${error}`));
// The answer 401 below is the only error that is wanted.
page.on("console", (message) => message.type() === "error" && !message.text().includes("401") && complaints.push(message.text()));
await page.addInitScript(() => {
  globalThis.forbidden = [];
  addEventListener("securitypolicyviolation", (event) => globalThis.forbidden.push(`${event.violatedDirective} ${event.blockedURI}`));
});

const answer = await page.goto(`${origin}/docs`);
const policy = answer.headers()["content-security-policy"];
check(policy.includes("script-src 'self';") && policy.includes("style-src 'self';") && policy.includes("connect-src 'self';"), policy);
for (const tag of document.tags) await page.locator(".opblock-tag", { hasText: tag.description }).first().waitFor();
const operations = Object.values(document.paths).flatMap((item) => Object.values(item)).length;
check((await page.locator(".opblock").count()) === operations, `${operations} operations are not shown`);

const query = page.locator(".opblock", { hasText: "/v1/query" });
for (const operation of await page.locator(".opblock", { hasText: "/v1/" }).all()) await operation.locator(".opblock-summary-control").click();
for (const text of ["How many days of vacation are there?", "Every employee has thirty days of vacation a year.", "https://tenant-operator.dev/problems/suspended"]) {
  await query.getByText(text).first().waitFor();
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
// The colours fade into each other; what is judged is where they end.
const settled = () => page.evaluate(async () => {
  await new Promise((frame) => requestAnimationFrame(() => requestAnimationFrame(frame)));
  await Promise.allSettled(document.getAnimations().filter((a) => a instanceof CSSTransition).map((a) => a.finished));
});
for (const colorScheme of ["light", "dark"]) {
  await page.emulateMedia({ colorScheme });
  await page.locator(colorScheme === "dark" ? "html.dark-mode" : "html:not(.dark-mode)").waitFor();
  await settled();
  const { violations } = await page.evaluate(`${axe}; axe.run()`);
  const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  check(!serious.length, `${colorScheme}: ${JSON.stringify(serious.map((v) => [v.id, v.nodes.map((n) => n.html + n.failureSummary)]))}`);
  for (const width of [360, 1440]) {
    await page.setViewportSize({ width, height: 900 });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    check(over <= 0, `${over} px too wide at ${width}`);
    await page.screenshot({ path: `${OUT}/api-open-${colorScheme}-${width}.png`, fullPage: true });
  }
}

// A call from the page: the policy lets it reach web, and the answer is shown.
const usage = page.locator(".opblock-get", { hasText: "/v1/usage" });
await usage.getByRole("button", { name: "Try it out" }).click();
await usage.getByRole("button", { name: "Execute" }).click();
await usage.getByText("It is missing, wrong, or was replaced.").nth(1).waitFor();

complaints.push(...(await page.evaluate(() => globalThis.forbidden)));
check(!complaints.length, complaints.join("\n"));
await browser.close();
console.log(`${operations} operations and ${examples} examples shown`);

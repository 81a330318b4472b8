// The owners' pages: what needs attention, the list, one tenant, the funnel and the time to activate, for customers whose names are
// hostile. The numbers of the pages are those of the endpoints, and a keyboard is enough to come in.
import { browser, check, complaints, forgive, judge, judged, open } from "./judge.mjs";

const { WEB_URL, TOKEN, FAILED } = process.env;

/** What an endpoint answers. */
async function figures(path) {
  const answer = await fetch(`${WEB_URL}${path}`, { headers: { authorization: `Bearer ${TOKEN}` } });
  check(answer.ok, `${path}: ${answer.status}`);
  return answer.json();
}

const texts = (locator) => locator.allTextContents().then((all) => all.map((text) => text.replace(/\s+/g, " ").trim()));
const number = (text) => Number(text.replaceAll(",", ""));

try {
  const page = await open({});
  await page.goto(`${WEB_URL}/admin`);
  check(page.url() === `${WEB_URL}/admin/login`, `without a session: ${page.url()}`);
  await judge(page, "admin-login");
  await page.getByLabel("Admin token").fill("x".repeat(32));
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").waitFor();
  forgive("401");
  await page.getByLabel("Admin token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Needs attention" }).waitFor();
  await judge(page, "admin-needs");

  // The first key leads past the menu.
  await page.keyboard.press("Tab");
  check((await page.evaluate(() => document.activeElement.textContent)) === "Skip to the content", "the first stop is the content");

  // A tenant that failed is there, with its command, and its page says why.
  const failed = page.locator("#failed, section").filter({ has: page.getByRole("link", { name: FAILED, exact: true }) }).first();
  check((await failed.locator("code").allTextContents()).some((command) => command.startsWith("kubectl tenant retry")), "the command");
  await failed.getByRole("link", { name: FAILED, exact: true }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  check((await page.locator("h1").textContent()) === FAILED, "its page");
  for (const name of ["Needs attention", "Account", "Usage", "Milestones", "Conditions", "Changes of phase"]) {
    check(await page.getByRole("heading", { level: 2, name }).count(), `no ${name}`);
  }
  check((await texts(page.locator("#transitions tbody tr td:nth-child(4)"))).includes("Failed"), "its changes of phase");
  await judge(page, "admin-tenant");

  // The list: a search, a filter, and a parameter that it does not take.
  await page.getByRole("link", { name: "Tenants", exact: true }).click();
  const all = await page.locator("main table tbody tr").count();
  await judge(page, "admin-tenants");
  await page.getByLabel("Name, company, e-mail or tenant id").fill("<script>");
  await page.getByRole("button", { name: "Show" }).click();
  await page.getByRole("status").filter({ hasText: "1 of" }).waitFor();
  check((await page.locator("main table tbody tr").count()) === 1 && all > 1, `${all} rows, and not one of them`);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download as CSV" }).click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  const csv = Buffer.concat(chunks).toString().trim().split("\n");
  check(csv.length === 2 && !/(^|,)"?=/m.test(csv[1]), `a formula is text: ${csv[1]}`);
  await page.goto(`${WEB_URL}/admin/tenants?page=0`);
  check((await page.locator("main").textContent()).includes("page: must be a whole number"), "what is wrong, and what is allowed");
  forgive("400");
  await judge(page, "admin-refused");

  // The funnel: each number of the page is that of the endpoint.
  await page.getByRole("link", { name: "What needs attention" }).click();
  await page.getByRole("link", { name: "Funnel", exact: true }).click();
  await page.getByRole("heading", { level: 1, name: "Funnel" }).waitFor();
  const funnel = await figures("/analytics/activation-funnel?days=30");
  const customers = (await texts(page.locator("#steps tbody tr td:nth-child(2)"))).map(number);
  check(JSON.stringify(customers) === JSON.stringify(funnel.steps.map((step) => step.customers)), `${customers}`);
  check((await page.locator("#steps svg rect.bar").count()) === funnel.steps.length, "a bar for each milestone");
  check((await page.locator("main").textContent()).includes(`${funnel.total_signups} customer`), "the signups");
  await judge(page, "admin-funnel", [360, 1440]);

  await page.getByRole("link", { name: "Time to activate", exact: true }).click();
  await page.getByLabel("Signups in the last (days)").fill("7");
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL(/days=7/);
  const metrics = await figures("/activation/metrics?days=7");
  const said = (await page.locator("main p").first().textContent()).replace(/\s+/g, " ");
  check(said.includes(`Of ${metrics.total_signups} customer`) && said.includes(`${metrics.completed_activation} completed`), said);
  await judge(page, "admin-activation");

  // After the log-out, nothing is shown any more.
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(`${WEB_URL}/admin/login`);
  await page.getByLabel("Admin token").waitFor();
  await page.goto(`${WEB_URL}/admin/tenants`);
  check(page.url() === `${WEB_URL}/admin/login`, `after the log-out: ${page.url()}`);
  check(!complaints.length, complaints.join("\n"));
  console.log(`${judged()} pages judged`);
} finally {
  await browser.close();
}

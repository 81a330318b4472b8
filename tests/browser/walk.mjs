// Walks the pages as a customer does, in a real browser: pricing, signup, a declined card, a good one, progress, the first
// question, a document, a question about it, the API key, out and in again. Then without JavaScript. On the way, axe-core,
// html-validate and the browser itself judge every page (judge.mjs).
import { browser, check, complaints, forgive, judge, judged, open } from "./judge.mjs";

const { WEB_URL, SANDBOX_URL, PDF } = process.env;

async function pay(page, card) {
  await page.fill("[name=card]", card);
  await page.click("button");
}

async function ask(page, question, wanted) {
  await page.fill("#question", question);
  await page.click("#ask button");
  await page.locator("[data-text]", { hasText: wanted }).waitFor();
}

// The link in the last e-mail to this address whose subject begins with this text.
async function mailed(to, subject) {
  for (let tries = 0; tries < 300; tries += 1) {
    const mails = await (await fetch(`${SANDBOX_URL}/_sandbox/mails`)).json();
    const mail = mails.findLast((m) => m.to === to && m.subject.startsWith(subject));
    if (mail) return mail.links[0];
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`no e-mail ${subject} to ${to}`);
}

const customer = { email: `walk-${process.pid}@example.com`, company: "Analytical Engines Ltd", password: "correct horse battery" };

async function withScript() {
  const page = await open({});
  const first = await page.goto(`${WEB_URL}/`);
  check(page.url().endsWith("/pricing"), page.url());
  const headers = first.headers();
  check(!/unsafe-(inline|eval)/.test(headers["content-security-policy"]), headers["content-security-policy"]);
  for (const name of ["x-content-type-options", "referrer-policy", "permissions-policy"]) check(headers[name], `no ${name}`);
  await judge(page, "pricing");

  await page.goto(`${WEB_URL}/sales`);
  await judge(page, "sales");
  await page.goto(`${WEB_URL}/docs`);
  await page.locator(".opblock").first().waitFor();
  await judge(page, "api");
  await page.goto(`${WEB_URL}/pricing`);
  await page.getByRole("link", { name: "Start your trial of Starter" }).click();
  await judge(page, "signup");
  await page.evaluate(() => (document.querySelector("form.card").noValidate = true));
  await page.fill("#email", "nonsense");
  await page.fill("#company_name", "<b>Acme</b>");
  await page.getByRole("button", { name: "Create account" }).click();
  await page.locator("#email-error").waitFor();
  for (const id of ["password-error", "accept_terms-error"]) check(await page.locator(`#${id}`).isVisible(), id);
  check((await page.inputValue("#company_name")) === "<b>Acme</b>", "what was entered stays");
  forgive("400 (Bad Request)");
  await judge(page, "signup-errors");

  await page.fill("#email", customer.email);
  await page.fill("#company_name", customer.company);
  await page.fill("#password", customer.password);
  await page.check("[name=accept_terms]");
  await page.getByRole("button", { name: "Create account" }).click();
  await page.locator("#pay").waitFor();
  await judge(page, "payment");
  const cookies = await page.context().cookies();
  check(cookies.length === 2 && cookies.every((c) => c.httpOnly && c.sameSite !== "None"), JSON.stringify(cookies));

  await page.click("#pay");
  await pay(page, "4000000000000002");
  await page.getByText("Your card was declined.").waitFor();
  await pay(page, "4000002760003184");
  await page.getByRole("button", { name: "Complete" }).click();
  await page.waitForURL(`${WEB_URL}/account`);
  await page.getByRole("heading", { name: "Please confirm your e-mail address" }).waitFor();
  await page.getByRole("button", { name: "Send it again" }).click();
  await page.getByText("One was sent a moment ago").waitFor();
  await judge(page, "check-your-mail");
  const confirm = await mailed(customer.email, "Confirm your e-mail");
  // Another browser asks for a click, the customer's own does not.
  const phone = await open({});
  await phone.goto(confirm);
  await judge(phone, "confirm");
  await phone.getByRole("button", { name: "Confirm my address" }).click();
  await phone.getByText("Log in to continue").waitFor();
  await judge(phone, "confirmed");
  // The first proof of the address ends what was begun before it, such as the session of a stranger who signed up with it.
  await page.goto(`${WEB_URL}/account`);
  check(page.url().endsWith("/login"), "a session from before the proof is over");
  forgive("404 (Not Found)");
  await page.fill("#email", customer.email);
  await page.fill("#password", customer.password);
  await page.getByRole("main").getByRole("button", { name: "Log in" }).click();
  await page.locator("#ask").waitFor();
  await page.goto(confirm);
  check(page.url().endsWith("/account"), page.url());
  await judge(page, "account");

  await ask(page, "What is RAG?", "retrieval-augmented generation");
  await page.locator("[data-sources] summary").first().click();
  check(await page.locator("[data-sources] details p").first().isVisible(), "a source opens its passage");
  await page.setInputFiles("#file", PDF);
  await page.getByRole("button", { name: "Upload" }).click();
  await page.locator("#documents li", { hasText: "travel.pdf" }).waitFor();
  await ask(page, "How much may a hotel cost a night?", "140 euros");
  // Web notes the question a moment after its answer.
  for (let look = 0; look < 30 && !(await page.getByText("100 % done").isVisible()); look++) {
    await page.waitForTimeout(500);
    await page.reload();
  }
  await page.getByText("100 % done").waitFor();
  await page.getByRole("button", { name: "Finish the setup" }).click();
  await page.getByText("You are all set").waitFor();
  await judge(page, "account-done");
  await mailed(customer.email, "You are all set");
  await page.getByRole("link", { name: "Advanced settings" }).click();
  await judge(page, "settings");
  await page.goto(`${WEB_URL}/account`);
  await page.getByRole("button", { name: "Invoices and payment methods" }).click();
  await judge(page, "billing");
  await page.click("#portal");
  await page.getByRole("button", { name: "Cancel at the end of the period" }).waitFor();
  await page.getByRole("link", { name: "Back" }).click();
  await page.locator("#ask").waitFor();
  await page.getByRole("button", { name: "Show the API key" }).click();
  check((await page.locator(".key").textContent()).startsWith("sk_live_"), "the key");
  await judge(page, "api-key");
  const key = await page.locator(".key").textContent();
  await page.getByRole("button", { name: "Replace the API key" }).click();
  await page.getByText("Your previous key works until").waitFor();
  await page.getByRole("button", { name: "Show the API key" }).click();
  check((await page.locator(".key").textContent()) !== key, "it is another key");
  for (const bearer of [key, await page.locator(".key").textContent()]) {
    const answer = await page.request.get(`${WEB_URL}/v1/usage`, { headers: { authorization: `Bearer ${bearer}` } });
    check(answer.ok(), `both keys are good: ${answer.status()}`);
  }

  // Up to another plan, down again at the end of the period, and that taken back.
  await page.getByRole("link", { name: "Change your plan" }).click();
  await judge(page, "plans");
  await page.getByRole("button", { name: "Change to Pro" }).click();
  await page.locator("#plan", { hasText: "10,000" }).waitFor();
  await mailed(customer.email, "Your RAG Service account is now on Pro");
  // Each change may be charged, so the next one waits a little.
  await page.waitForTimeout(11_000);
  await page.getByRole("link", { name: "Change your plan" }).click();
  await page.getByRole("button", { name: "Change to Starter" }).click();
  await page.locator("#plan", { hasText: "then starter from" }).waitFor();
  await page.getByRole("link", { name: "Change your plan" }).click();
  await judge(page, "plan-scheduled");
  await page.getByRole("button", { name: "Keep Pro" }).click();
  await page.locator("#plan", { hasText: "Change your plan" }).waitFor();
  // Closed, and taken back.
  await page.getByRole("link", { name: "Close your account" }).click();
  await judge(page, "close");
  await page.getByLabel("I no longer need it").check();
  await page.fill("#comment", "Thank you all the same.");
  await page.getByRole("button", { name: "Close my account" }).click();
  await page.getByRole("button", { name: "Take my account back" }).waitFor();
  await judge(page, "closed");
  await mailed(customer.email, "Your RAG Service account will be deleted on");
  await page.getByRole("button", { name: "Take my account back" }).click();
  await page.getByText("100 % done").waitFor();
  await ask(page, "How much may a hotel cost a night?", "140 euros");

  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(`${WEB_URL}/login`);
  await page.goto(`${WEB_URL}/account`);
  check(page.url().endsWith("/login"), "the customer is logged out");
  await page.fill("#email", customer.email);
  await page.fill("#password", "wrong password");
  await page.getByRole("main").getByRole("button", { name: "Log in" }).click();
  await page.getByText("is wrong").waitFor();
  forgive("401 (Unauthorized)");
  await judge(page, "login");
  await page.getByRole("link", { name: "Log in by e-mail" }).click();
  await judge(page, "login-by-mail");
  await page.fill("#email", customer.email);
  await page.getByRole("button", { name: "Send me a link" }).click();
  await page.getByText("an e-mail is on its way").waitFor();
  await page.goto(await mailed(customer.email, "Log in to"));
  await page.getByRole("main").getByRole("button", { name: "Log in" }).click();
  await page.getByText("100 % done").waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("link", { name: "Forgot your password?" }).click();
  await page.fill("#email", customer.email);
  await page.getByRole("button", { name: "Send me a link" }).click();
  await page.getByText("an e-mail is on its way").waitFor();
  await page.goto(await mailed(customer.email, "Set a new password"));
  await judge(page, "new-password");
  customer.password = "an even better horse";
  await page.fill("#password", customer.password);
  await page.getByRole("button", { name: "Save the password" }).click();
  await page.getByText("100 % done").waitFor();
  check(!complaints.length, complaints.join("\n"));
}

async function withoutScript() {
  const page = await open({ javaScriptEnabled: false });
  await page.goto(`${WEB_URL}/login`);
  await page.fill("#email", customer.email);
  await page.fill("#password", customer.password);
  await page.getByRole("main").getByRole("button", { name: "Log in" }).click();
  await ask(page, "How much may a hotel cost a night?", "140 euros");
  await page.getByRole("button", { name: "Use our sample policy" }).click();
  await page.locator("#documents li", { hasText: "Travel and vacation policy" }).waitFor();
  await ask(page, "How many days of paid vacation does a full-time employee have?", "28 days");
  await page.getByRole("button", { name: "Delete travel.pdf" }).click();
  await page.locator("#documents li", { hasText: "travel.pdf" }).waitFor({ state: "detached" });
}

try {
  await withScript();
  await withoutScript();
  console.log(`walked; ${judged()} pages judged in both themes`);
} finally {
  await browser.close();
}

// The account page of a customer with a history: its plots have names and numbers for readers who see no picture, stay inside a
// screen of 320 px, and need no style and no script. Judged in both themes, with the tables closed and open.
import { browser, check, complaints, judge, open } from "./judge.mjs";

const { WEB_URL, EMAIL, PASSWORD, WANTED } = process.env;
const wanted = JSON.parse(WANTED);

try {
  const page = await open({});
  await page.goto(`${WEB_URL}/login`);
  await page.fill("#email", EMAIL);
  await page.fill("#password", PASSWORD);
  await page.getByRole("main").getByRole("button", { name: "Log in" }).click();
  await page.locator("#ask").waitFor();
  await page.goto(`${WEB_URL}/account`);
  const periods = page.getByRole("img", { name: /^Questions in each period: from/ });
  const days = page.getByRole("img", { name: /^Questions on each day: from/ });
  check((await periods.locator(".bar").count()) === wanted.length + 1, "a bar for each period, and one for the present");
  check((await days.locator(".bar").count()) === 30, "30 days");
  await judge(page, "account-history", [320, 1440]);

  for (const name of ["Numbers of the periods", "Numbers of the days"]) await page.getByText(name).click();
  const figure = page.locator("figure", { has: periods });
  const cells = await figure.locator("tbody tr td:last-child").allTextContents();
  check(JSON.stringify(cells.slice(1).map((cell) => Number(cell.replaceAll(",", "")))) === JSON.stringify(wanted), cells.join());
  await judge(page, "account-history-open", [320, 1440]);

  // No bar leaves its picture, no name overlaps another one, and all text can be read.
  for (const width of [320, 1440]) {
    await page.setViewportSize({ width, height: 900 });
    for (const svg of await page.locator("figure.plot svg").all()) {
      const wrong = await svg.evaluate((svg) => {
        const box = svg.getBoundingClientRect();
        const inside = (one) => one.left >= box.left - 1 && one.right <= box.right + 1 && one.top >= box.top - 1 && one.bottom <= box.bottom + 1;
        const shown = [...svg.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]).filter(([, one]) => one.width > 0);
        const found = [...svg.querySelectorAll("rect"), ...svg.querySelectorAll("text")].filter((one) => one.getBoundingClientRect().width > 0 && !inside(one.getBoundingClientRect())).map((one) => `outside: ${one.outerHTML}`);
        const names = shown.filter(([text]) => text.classList.contains("name"));
        names.slice(1).forEach(([text, one], i) => one.left < names[i][1].right && found.push(`overlaps: ${text.outerHTML}`));
        const scale = box.width / svg.viewBox.baseVal.width;
        for (const [text] of shown) if (parseFloat(getComputedStyle(text).fontSize) * scale < 9) found.push(`too small: ${text.outerHTML}`);
        return found;
      });
      check(!wrong.length, `at ${width} px: ${wrong.join("\n")}`);
    }
  }
  check(!complaints.length, complaints.join("\n"));
  console.log("the plots are judged");
} finally {
  await browser.close();
}

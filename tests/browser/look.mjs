// Looks at the dashboard as a person would, in headless Chromium: look.mjs URL [FOLDER-FOR-SCREENSHOTS]
// With TOKEN in the environment the server must ask for a password first, and this is it.
// Prints what it saw; exit code 1 when something is not as it should be.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { launch } from "./launch.mjs";

const [url, folder] = process.argv.slice(2);
const token = process.env.TOKEN;
// What a person types when the browser asks.
const httpCredentials = token && { username: "anybody", password: token };
const browser = await launch(chromium);
try {
  if (token) await isAskedForPassword();
  for (const colorScheme of ["light", "dark"]) await look(colorScheme);
} finally {
  await browser.close();
}
console.log("all is as it should be");

async function isAskedForPassword() {
  const nobody = await browser.newPage();
  await assert.rejects(nobody.goto(url), /ERR_INVALID_AUTH_CREDENTIALS/);
  await nobody.close();
  const wrong = await browser.newPage({ httpCredentials: { username: "anybody", password: `${token}?` } });
  const answer = await wrong.goto(url);
  assert.equal(answer.status(), 401);
  assert.match(answer.headers()["www-authenticate"], /^Basic realm="shadowtap"/);
  await wrong.close();
}

async function look(colorScheme) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme, httpCredentials });
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== new URL(url).origin && protocol !== "blob:") wrong.push(`asked ${request.url()}`);
  });
  const answer = await page.goto(url);
  assert.match(answer.headers()["content-security-policy"], /default-src 'self'/);

  // The seeded regression shows by itself, with the endpoint and the field.
  await page.locator("#decision", { hasText: "reject" }).waitFor();
  const reasons = await page.locator("#reasons").innerText();
  assert.match(reasons, /POST \/orders: body\.total_cents \(value\) differs/);
  assert.equal(await page.locator("#rows tr").first().locator("button").innerText(), "POST /orders");
  assert.equal(await page.locator("#rows tr").first().locator("td").nth(1).innerText(), "worse");
  await page.locator("#distribution canvas").waitFor();
  await page.locator("#rates canvas").waitFor();
  await page.locator("#numbers dd", { hasText: "800" }).first().waitFor();

  // By keyboard alone: from the endpoint to its field, to an example.
  await page.locator("#rows button").first().focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "detail");
  await page.locator("#fields button", { hasText: "body.total_cents" }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#example-v1 .differs").first().waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "example");
  const side = async (id) => (await page.locator(`${id} .differs`).allInnerTexts()).map((text) => text.trim());
  assert.deepEqual(await side("#example-v1"), ['"total_cents": 4260']);
  assert.deepEqual(await side("#example-v2"), ['"total_cents": 3980']);

  // What looks like markup in the traffic is text, and secrets are tokens.
  const text = await page.locator("#example").innerText();
  assert.ok(text.includes("<img src=x onerror=alert(1)>"), text);
  assert.equal(await page.locator("#example img").count(), 0);
  assert.ok(!text.includes("hunter2") && text.includes("redacted-"), text);

  await page.evaluate(() => {
    navigator.clipboard.writeText = async (copied) => { window.copied = copied; };
  });
  await page.locator("#copy-v2").click();
  await page.waitForFunction(() => window.copied);
  const curl = await page.evaluate(() => window.copied);
  assert.match(curl, /^curl .*--request 'POST' .*--data-raw '.*' 'http:\/\/127\.0\.0\.1:\d+\/orders'$/s);
  const download = page.waitForEvent("download");
  await page.locator("#har").click();
  const har = JSON.parse(await readFile(await (await download).path(), "utf8"));
  assert.equal(har.log.version, "1.2");
  assert.deepEqual(har.log.entries.map((entry) => entry.comment), ["version 1", "version 2"]);
  assert.equal(har.log.entries[0].request.method, "POST");

  // Each control and picture has a name.
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll("button, a, [role=img], [role=region], section")]
      .filter((it) => !(it.textContent.trim() || it.ariaLabel || it.getAttribute("aria-labelledby")))
      .map((it) => it.outerHTML));
  assert.deepEqual(nameless, []);
  assert.deepEqual(wrong, []);
  if (folder) {
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: `${folder}/dashboard-${colorScheme}.png`, fullPage: true });
  }
  console.log(`${colorScheme}: ${reasons.split("\n")[0]}`);
  await page.close();
}

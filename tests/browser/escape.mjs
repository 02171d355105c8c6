// Walks through every example in a dashboard of hostile traffic: escape.mjs URL
// Prints, as JSON, what could be copied from each; exit code 1 when anything of the traffic became more than text.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { launch } from "./launch.mjs";

const [url] = process.argv.slice(2);
const browser = await launch(chromium);
const copied = [];
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("dialog", (dialog) => wrong.push(`asked: ${dialog.message()}`) && dialog.dismiss());
  page.on("popup", (popup) => wrong.push(`opened ${popup.url()}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== new URL(url).origin && protocol !== "blob:") wrong.push(`asked ${request.url()}`);
  });
  await page.goto(url);
  await page.locator("#rows button").first().waitFor();
  await page.evaluate(() => {
    navigator.clipboard.writeText = async (text) => { window.copied = text; };
  });
  // What the page consists of, but for text.
  const parts = () => page.evaluate(() => [...new Set([...document.querySelectorAll("*")].map((it) => it.localName))]);
  const own = new Set([...await parts(), "button", "li", "ul", "span", "td", "tr"]);
  const title = await page.title();
  const endpoints = await page.locator("#rows button").allInnerTexts();
  for (const [index] of endpoints.entries()) {
    await page.locator("#rows button").nth(index).click();
    for (const [field] of (await page.locator("#fields button").all()).entries()) {
      const fetched = page.waitForResponse((answer) => answer.url().includes("/api/examples"));
      await page.locator("#fields button").nth(field).click();
      const examples = await (await fetched).json();
      if (examples.length === 0) continue;
      await page.waitForFunction((id) => shown?.id === id, examples[0].id);
      await page.evaluate(() => { window.copied = null; });
      await page.locator("#copy-v2").click();
      const curl = await (await page.waitForFunction(() => window.copied)).jsonValue();
      const download = page.waitForEvent("download");
      await page.locator("#har").click();
      const har = JSON.parse(await readFile(await (await download).path(), "utf8"));
      assert.equal(har.log.entries.length, 2);
      copied.push({ curl, request: examples[0].request });
      assert.deepEqual((await parts()).filter((it) => !own.has(it)), []);
    }
    // Nothing of the page is pushed out of sight by what is long.
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  }
  assert.equal(await page.title(), title);
  assert.equal(page.url(), url);
  assert.deepEqual(wrong, []);
} finally {
  await browser.close();
}
console.log(JSON.stringify(copied));

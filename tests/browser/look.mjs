// Drives a real browser over a site and says, as JSON, what it saw. Judging is the caller's.
//
// Usage: node look.mjs MODULES CHROMIUM < JOB
//   MODULES: the folder with node_modules; CHROMIUM: the browser's program.
//   JOB: {"do": "look" | "keys" | "plain" | "reflow" | "print", "base": URL, "pages": [path, …],
//        "once": {path: "SCREEN SCHEME", …}, "folder": path}

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [modules, program] = process.argv.slice(2);
const require = createRequire(join(modules, 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const job = JSON.parse(readFileSync(0, 'utf8'));

const SCREENS = { phone: { width: 360, height: 740 }, desktop: { width: 1280, height: 800 } };
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** Opens a page and notes all that goes wrong meanwhile. */
async function opened(context, path) {
  const page = await context.newPage();
  page.setDefaultTimeout(300_000);
  const seen = { path, console: [], failed: [], foreign: [], requests: 0 };
  page.on('console', (message) => seen.console.push(message.text()));
  page.on('pageerror', (error) => seen.console.push(String(error)));
  page.on('requestfailed', (request) => seen.failed.push(`${request.url()} ${request.failure()?.errorText}`));
  page.on('response', (response) => response.status() >= 400 && seen.failed.push(`${response.url()} ${response.status()}`));
  page.on('request', (request) => {
    seen.requests += 1;
    if (!request.url().startsWith(job.base)) seen.foreign.push(request.url());
  });
  page.on('dialog', (dialog) => { seen.console.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.goto(job.base + path, { waitUntil: 'load' });
  return { page, seen };
}

const tooWide = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;

const openAll = () => document.querySelectorAll('details').forEach((one) => { one.open = true; });

/** Every page on every screen, light and dark, and those to be seen once in the way that is given. A picture, what went
 * wrong, and what axe has to say of it with its folds open. Light and dark go side by side. */
async function look(browser) {
  const all = [];
  for (const [screen, viewport] of Object.entries(SCREENS)) {
    await Promise.all(['light', 'dark'].map(async (scheme) => {
      const context = await browser.newContext({ viewport, colorScheme: scheme, reducedMotion: 'reduce' });
      const once = Object.keys(job.once).filter((path) => job.once[path] === `${screen} ${scheme}`);
      for (const path of [...job.pages, ...once]) {
        const { page, seen } = await opened(context, path);
        const picture = join(job.folder, `${path.replace(/\W+/g, '-')}-${screen}-${scheme}.png`);
        await page.screenshot({ path: picture, fullPage: true });
        const wide = await page.evaluate(tooWide);
        await page.evaluate(openAll);
        await page.evaluate(axe);
        const said = await page.evaluate((tags) => window.axe.run(document, {
          runOnly: { type: 'tag', values: tags }, resultTypes: ['violations'],
        }), TAGS);
        const violations = said.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).slice(0, 3).join(' ¦ ')}`);
        const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        all.push({ ...seen, screen, scheme, picture, tooWide: wide, tooWideOpen: await page.evaluate(tooWide), violations,
          rules: said.passes.length, background });
        await page.close();
      }
      await context.close();
    }));
  }
  return all;
}

/** What has the focus: its name, its place in the document, and how it shows that it has it. */
function focused() {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const every = [...document.querySelectorAll('*')];
  return {
    tag: one.tagName.toLowerCase(), text: (one.getAttribute('aria-label') || one.textContent).trim().slice(0, 60),
    order: every.indexOf(one), outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    visible: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}

/** Tab through a page from its top to its end; then the skip link; then every fold by Enter. */
async function keys(browser) {
  const all = [];
  for (const path of job.pages) {
    const context = await browser.newContext({ viewport: SCREENS.desktop, reducedMotion: 'reduce' });
    const { page } = await opened(context, path);
    const expected = await page.evaluate(() => [...document.querySelectorAll('a[href], summary, [tabindex="0"], input:checked')]
      .filter((one) => one.checkVisibility() && one.getAttribute('tabindex') !== '-1').length);
    const walk = [];
    for (let step = 0; step < expected + 20; step += 1) {
      await page.keyboard.press('Tab');
      const stop = await page.evaluate(focused);
      if (stop === null || (walk.length && stop.order === walk[0].order)) break;
      walk.push(stop);
    }
    await page.goto(job.base + path);
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    const skipped = await page.evaluate(() => document.activeElement?.id ?? '');
    await page.keyboard.press('Tab');
    const inside = await page.evaluate(() => document.querySelector('main').contains(document.activeElement));
    const folds = [];
    for (const summary of await page.locator('summary').all()) {
      if (!(await summary.isVisible())) continue;
      await summary.focus();
      const before = await summary.evaluate((one) => one.parentElement.open);
      await page.keyboard.press('Enter');
      const after = await summary.evaluate((one) => one.parentElement.open);
      await page.keyboard.press('Enter');
      folds.push({ before, after, again: await summary.evaluate((one) => one.parentElement.open) });
    }
    all.push({ path, expected, walk, skipped, inside, folds });
    await context.close();
  }
  return all;
}

/** Without JavaScript: what is there to read, and a fold that opens by a click. */
async function plain(browser) {
  const all = [];
  const context = await browser.newContext({ viewport: SCREENS.desktop, javaScriptEnabled: false });
  for (const path of job.pages) {
    const { page, seen } = await opened(context, path);
    const text = await page.locator('main').innerText();
    const fold = page.locator('details:not([open]) > summary').first();
    let opens = null;
    if (await fold.count()) {
      const details = page.locator('details:not([open])').first();
      const handle = await details.elementHandle();
      await fold.click();
      opens = (await handle.getAttribute('open')) !== null;
    }
    // The filter of products, if there is one: which states are to be seen once "failed" is chosen.
    let shown = null;
    if (await page.locator('#show-failed').count()) {
      await page.locator('#show-failed').check();
      const rows = await page.locator('.cards tbody tr').all();
      const seen = await Promise.all(rows.map(async (row) => ((await row.isVisible()) ? row.getAttribute('class') : '')));
      shown = [...new Set(seen.filter(Boolean))];
    }
    all.push({ ...seen, heading: await page.locator('h1').innerText(), length: text.length, opens, shown });
    await page.close();
  }
  await context.close();
  return all;
}

/** Pages on narrow screens and with text twice as large: by how many pixels they are too wide. Each is loaded once. */
async function reflow(browser) {
  const all = [];
  const context = await browser.newContext({ viewport: { width: 320, height: 740 } });
  for (const path of job.pages) {
    const { page } = await opened(context, path);
    await page.evaluate(openAll);
    for (const [width, size] of [[320, '100%'], [360, '100%'], [360, '200%'], [768, '200%'], [1280, '200%']]) {
      await page.setViewportSize({ width, height: 740 });
      await page.evaluate((value) => { document.documentElement.style.fontSize = value; }, size);
      const seen = await page.evaluate(() => innerWidth);
      const over = await page.evaluate(tooWide);
      const cut = await page.evaluate(() => [...document.querySelectorAll('main *')].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && box.right > innerWidth + 1 && !one.closest('.scroll, svg');
      }).slice(0, 3).map((one) => one.outerHTML.slice(0, 160)));
      all.push({ path, width, seen, size, over, cut });
    }
    await page.close();
  }
  await context.close();
  return all;
}

/** On paper: whether the navigation is gone, and the bytes of the PDF. */
async function print(browser) {
  const all = [];
  const context = await browser.newContext({ viewport: SCREENS.desktop });
  for (const path of job.pages) {
    const { page } = await opened(context, path);
    await page.emulateMedia({ media: 'print' });
    const navigation = await page.locator('.mast nav').isVisible();
    const pdf = await page.pdf({ format: 'A4' });
    all.push({ path, navigation, begins: pdf.subarray(0, 5).toString(), size: pdf.length });
    await page.close();
  }
  await context.close();
  return all;
}

const browser = await chromium.launch({ executablePath: program, args: ['--no-sandbox'], timeout: 300_000 });
try {
  const done = await { look, keys, plain, reflow, print }[job.do](browser);
  process.stdout.write(JSON.stringify({ version: browser.version(), pages: done }));
} finally {
  await browser.close();
}

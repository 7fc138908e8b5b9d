/** The static page in a real browser: what it says without WebGPU, and with it the command line's clip of the same seed. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildPage } from '../../web/build.ts';
import { Browser } from '../cli/browser.ts';
import { vpae } from '../cli/run.ts';

const [FRAMES, SIZE, SCALE, GAP] = [9, 32, 6, 12];
/** Of 255: drivers round differently, and a level may fall to either side. */
const TOLERANCE = 1;
const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };

const folder = mkdtempSync(join(tmpdir(), 'vpae-web-'));
const server = createServer((request, response) => {
  const name = request.url === '/' ? '/index.html' : request.url!.replace(/\?.*/, '');
  try {
    const body = readFileSync(join(folder, name));
    response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream' }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
let url = '';
let bytes = 0;

const test = suite('page');
test.before(async () => {
  bytes = await buildPage(folder);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  url = `http://localhost:${(server.address() as AddressInfo).port}/`;
});
test.after(() => {
  server.close();
  server.closeAllConnections();
  rmSync(folder, { recursive: true });
});

test('its script knows no Node, and is of the size that the README states', () => {
  const script = readFileSync(join(folder, 'page.js'), 'utf8');
  assert.not.match(script, /(?:from|import|require\()\s*["']node:/);
  const readme = readFileSync(fileURLToPath(new URL('../../README.md', import.meta.url)), 'utf8');
  const stated = Number(/script of (\d+) KiB/.exec(readme)?.[1]);
  assert.ok(Math.abs(bytes / 1024 - stated) < 0.1 * stated, `${(bytes / 1024).toFixed(0)} KiB`);
});

test('without WebGPU one line says which browsers have it', async () => {
  const browser = await Browser.open(url);
  if (!browser) return;
  try {
    await browser.send('Page.addScriptToEvaluateOnNewDocument', { source: 'delete Navigator.prototype.gpu' });
    await browser.send('Page.navigate', { url });
    await browser.until("document.querySelector('#refusal:not([hidden])')");
    const said = await browser.evaluate<string>("document.getElementById('refusal').textContent");
    assert.match(said, /^This browser has no WebGPU here: use Chrome or Edge 113 and later, Safari 26 and later/);
    assert.equal(browser.errors, []);
  } finally {
    await browser.close();
  }
});

/** Grey levels of the frames that lie side by side in a picture of `vpae sample`. */
async function framesOf(path: string): Promise<number[][]> {
  const { data, info } = await sharp(path).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  assert.is(info.width, FRAMES * SIZE * SCALE + (FRAMES - 1) * GAP);
  return Array.from({ length: FRAMES }, (_, t) =>
    Array.from({ length: SIZE * SIZE }, (_, i) => {
      const x = t * (SIZE * SCALE + GAP) + (i % SIZE) * SCALE;
      const y = Math.floor(i / SIZE) * SCALE;
      return data[(y * info.width + x) * info.channels]!;
    }),
  );
}

test("a clip is the command line's of the same seed", async () => {
  const browser = await Browser.open(url, { webgpu: true });
  if (!browser) return;
  try {
    await browser.until("!document.getElementById('make').disabled");
    await browser.evaluate('document.querySelector(\'input[name=digit][value="7"]\').click()');
    await browser.evaluate("document.querySelector('input[name=direction][value=down]').click()");
    await browser.until('document.querySelector(\'input[name=handwriting][value="3"]\')');
    await browser.evaluate('document.querySelector(\'input[name=handwriting][value="3"]\').click()');
    await browser.evaluate("document.querySelector('input[name=seed]').value = '3'");
    await browser.evaluate("document.getElementById('make').click()");
    await browser.until("/^.a 7 moving down., seed 3$/.test(document.getElementById('status').textContent)", 300);
    const facts = await browser.evaluate<string[]>("[...document.querySelectorAll('dd')].map((d) => d.textContent)");
    assert.match(facts[0]!, /swiftshader/);
    assert.match(facts[1]!, /^[\d.]+ s, [\d.]+ s with all else$/);
    assert.match(facts[2]!, /^[\d.]+ MiB$/);
    const seen: number[][] = [];
    for (let t = 0; t < FRAMES; t++) {
      seen.push(
        await browser.evaluate<number[]>(`(() => {
          const slider = document.getElementById('frame');
          slider.value = ${t};
          slider.dispatchEvent(new Event('input'));
          const { data } = document.getElementById('clip').getContext('2d').getImageData(0, 0, ${SIZE}, ${SIZE});
          return Array.from(data).filter((_, i) => i % 4 === 0);
        })()`),
      );
    }
    const out = join(folder, 'clip.png');
    const { code, stderr } = await vpae(['sample', '--prompt', 'a 7 moving down', '--seed', '3', '--out', out]);
    assert.is(code, 0, stderr);
    const expected = await framesOf(out);
    const worst = Math.max(...seen.flatMap((frame, t) => frame.map((level, i) => Math.abs(level - expected[t]![i]!))));
    assert.ok(worst <= TOLERANCE, `differs by ${worst} of 255`);
    assert.ok(Math.max(...seen.flat()) > 150, 'there is a digit in it');
    assert.equal(browser.errors, []);
  } finally {
    await browser.close();
  }
});

test.run();

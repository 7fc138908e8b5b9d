/** `vpae watch`: a log read as it grows, curves of bounded size, who is answered, and the page in a real browser. */
import { appendFileSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { request, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Curves } from '../../cli/watch/curves.ts';
import { drawSamples } from '../../cli/media/animation.ts';
import { serve, type Snapshot } from '../../cli/watch/server.ts';
import { conditions } from '../../train/data/digits.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { Stream } from '../../train/loop/rng.ts';
import { tabRace } from '../campaign/races.ts';
import { Browser } from './browser.ts';

const random = new Stream(1, 0, 'watch');
const run = mkdtempSync(join(tmpdir(), 'vpae-'));
const line = (record: object) => `${JSON.stringify(record)}\n`;

/** A finished phase I, and a phase II under way. */
async function makeRun(): Promise<void> {
  const videos = conditions(1, 12).map((c) => c.video);
  for (const [job, steps] of [
    ['priming', 350],
    ['equilibrium', 300],
  ] as const) {
    const dir = join(run, job);
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'config.json'), '{}');
    writeFileSync(join(dir, 'environment.json'), JSON.stringify({ steps: job === 'priming' ? steps : 400 }));
    const wave = (mean: number, spread: number) => mean * (1 + spread * random.normal());
    writeFileSync(
      join(dir, 'metrics.jsonl'),
      Array.from({ length: steps }, (_, step) =>
        line(
          job === 'priming'
            ? {
                step,
                fakeLoss: wave(0.35 + 0.3 * Math.exp(-step / 60), 0.1),
                ...(step > 50 && {
                  gap: wave(0.2 + 0.06 * Math.exp(-step / 90), 0.15),
                  G: wave(0.9, 0.1),
                  cos: wave(0.65, 0.05),
                  floor: 0,
                  lag: wave(0.8, 0.05),
                  deviation: wave(1.05, 0.02),
                  motion: wave(0.97, 0.05),
                  first: wave(0.02, 0.1),
                }),
                seconds: 1.5,
              }
            : {
                step,
                D: wave(1.6, 0.1),
                real: wave(0.4, 0.3),
                fake: wave(-0.4, 0.3),
                active: wave(0.9, 0.03),
                str1: wave(0.02, 0.2),
                csds: wave(0.08, 0.1),
                csdsFirst: wave(0.02, 0.1),
                gD: wave(0.9, 0.1),
                gS: wave(0.3, 0.1),
                cos: wave(0.1, 0.3),
                deviation: wave(1 + 0.0007 * step, 0.02),
                motion: wave(0.9, 0.05),
                first: wave(0.02, 0.1),
                seconds: 1.1,
              },
        ),
      ).join(''),
    );
    for (let step = 75; step <= steps; step += 25)
      appendFileSync(
        join(dir, 'metrics.jsonl'),
        line({
          step: step - 1,
          score: 0.7 + step / 2000,
          digitAccuracy: 0.8 + step / 3000,
          directionAccuracy: 1,
          frechet: 30 - step / 20,
          firstFramePsnr: 29,
          motionRatio: 0.97,
        }),
      );
    for (let step = 0; step <= steps; step += 50)
      writeWhole(
        join(dir, 'samples', `${String(step).padStart(8, '0')}.webp`),
        await drawSamples([videos.slice(0, 6), videos.slice(6, 12), videos.slice(3, 9)], [1, 9, 32, 32]),
      );
  }
  appendFileSync(
    join(run, 'equilibrium', 'metrics.jsonl'),
    line({
      step: 263,
      alarm: 'saturation',
      value: 1.182,
      of: 'deviation',
      cause: "the samples' latents spread over 1.15 times as wide as the data's: too much contrast and colour",
      remedy: "lower priming.guidance or the generator's learning rate",
    }),
  );
  writeFileSync(join(run, 'equilibrium', 'run.lock'), JSON.stringify({ pid: process.pid, host: hostname() }));
}
await makeRun();

const get = (
  url: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string; etag?: string | undefined; headers: IncomingHttpHeaders }> =>
  new Promise((done, failed) => {
    request(url, { headers }, (r) => {
      let text = '';
      r.setEncoding('utf8')
        .on('data', (t: string) => {
          text += t;
        })
        .on('end', () => done({ status: r.statusCode!, text, etag: r.headers.etag, headers: r.headers }));
    })
      .on('error', failed)
      .end();
  });

test('a run of any length stays a few hundred bins that keep mean and extremes', () => {
  const curves = new Curves();
  for (let step = 0; step < 100_000; step++) curves.add(step, { x: step % 7, ...(step % 1000 === 0 && { rare: 1 }) });
  const { at, metrics } = curves.data();
  assert.ok(at.length > 300 && at.length <= 800, String(at.length));
  assert.ok(
    metrics['x']!.low.every((v) => v === 0) &&
      metrics['x']!.high.every((v) => v === 6) &&
      metrics['x']!.mean.slice(0, -1).every((v) => Math.abs(v! - 3) < 0.05),
  );
  assert.ok(at.every((v, i) => i === 0 || v > at[i - 1]!));
  assert.ok(metrics['rare']!.mean.includes(null) && metrics['rare']!.mean.includes(1));
});

test('a log is read where it was left, and anew when it was rewritten; nothing new is a 304', async () => {
  const { url, close } = await serve(run, 0);
  const ask = async (job: string, etag = '') => {
    const r = await get(`${url}snapshot?job=${job}`, etag ? { 'if-none-match': etag } : {});
    return { ...r, body: r.text ? (JSON.parse(r.text) as Snapshot) : undefined };
  };
  const first = await ask('');
  assert.equal(
    first.body!.jobs.map((j) => [j.name, j.step, j.steps, j.running, j.alarms]),
    [
      ['priming', 350, 350, false, 0],
      ['equilibrium', 300, 400, true, 1],
    ],
  );
  assert.is(first.body!.shown, 'equilibrium');
  assert.equal(first.body!.detail!.samples, [0, 50, 100, 150, 200, 250, 300]);
  assert.is((await ask('', first.etag)).status, 304);
  const log = join(run, 'priming', 'metrics.jsonl');
  appendFileSync(log, '{"step":350,"gap":0.1,"sec');
  assert.is((await ask('priming')).body!.jobs[0]!.step, 350, 'half a line is not a step');
  appendFileSync(log, 'onds":1}\n');
  assert.is((await ask('priming')).body!.jobs[0]!.step, 351);
  writeWhole(log, line({ step: 0, gap: 1 }));
  assert.equal((await ask('priming')).body!.detail!.curves.at, [0]);
  await close();
  await makeRun();
});

test('only this machine is answered, and only what the page needs', async () => {
  const { url, close } = await serve(run, 0);
  assert.is(new URL(url).hostname, '127.0.0.1');
  assert.is((await get(url, { host: 'elsewhere.example' })).status, 403);
  for (const path of [
    'picture?job=priming&step=1',
    'picture?job=..&step=0',
    'picture?job=priming&step=../../x',
    'x',
    '../package.json',
  ])
    assert.is((await get(url + path)).status, 404, path);
  const port = Number(new URL(url).port);
  assert.match(
    await serve(run, port).then(
      () => '',
      (e: Error) => e.message,
    ),
    /^\[watch\] port \d+ .*something else listens there.*--port$/,
  );
  assert.match(
    await serve(join(run, 'none'), 0).then(
      () => '',
      (e: Error) => e.message,
    ),
    /^\[watch\] there is no folder/,
  );
  await close();
});

test('however many tabs ask at once, while the log grows and is rewritten, each sees every step once', async () => {
  assert.equal(await tabRace(mkdtempSync(join(tmpdir(), 'vpae-')), 25, 16), []);
});

test('lines that are none of ours do not matter, and links lead nowhere', async () => {
  const odd = mkdtempSync(join(tmpdir(), 'vpae-'));
  const job = join(odd, 'job');
  mkdirSync(join(job, 'samples'), { recursive: true });
  writeFileSync(join(job, 'config.json'), '{}');
  const names = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`m${i}`, i]));
  const lines = [
    'null', '[]', '1', '"step"', '{"step":null}', '{"step":-1,"x":1}', '{"step":0.5,"x":1}', '{"x":1}', '{"step":"1"}',
    '{"step":0,"x":1,"seconds":"long"}', '{"step":1,"x":2,"__proto__":3,"constructor":4}', '{"step":1,"alarm":"bare"}',
    '{"step":1,"alarm":{"a":1}}', '{"step":1,"alarm":"odd","cause":7,"remedy":null,"value":"x"}', '{"step":2,"x":1e999}',
    `{"step":3,"text":"${'x'.repeat(200_000)}"}`, '{"step":1,"x":5}', JSON.stringify({ step: 4, x: 3, ...names }), '',
  ]; // prettier-ignore
  writeFileSync(join(job, 'metrics.jsonl'), `${lines.join('\n')}\n${'y'.repeat(3_000_000)}`);
  symlinkSync('/etc/passwd', join(job, 'samples', '00000002.webp'));
  writeFileSync(join(odd, 'secret'), 'within the run');
  symlinkSync(join(odd, 'secret'), join(job, 'samples', '00000003.webp'));
  mkdirSync(join(odd, 'elsewhere'));
  writeFileSync(join(odd, 'elsewhere', 'config.json'), '{}');
  symlinkSync('/etc/passwd', join(odd, 'elsewhere', 'metrics.jsonl'));
  symlinkSync('/etc', join(odd, 'elsewhere', 'samples'));
  const { url, close } = await serve(odd, 0);
  await get(`${url}snapshot?job=job`);
  appendFileSync(join(job, 'metrics.jsonl'), 'z\n{"step":5,"x":1}\n');
  const { status, text } = await get(`${url}snapshot?job=job`);
  assert.is(status, 200, text);
  const { jobs, detail } = JSON.parse(text) as Snapshot;
  assert.equal(
    jobs.map((j) => [j.name, j.step] as const).sort(([a], [b]) => (a < b ? -1 : 1)),
    [
      ['elsewhere', 0],
      ['job', 6],
    ],
  );
  assert.equal(detail!.curves.at, [0, 1, 2, 4, 5]);
  assert.is(Object.keys(detail!.curves.metrics).length, 200);
  assert.equal(
    detail!.alarms.map(({ alarm, cause, remedy, value }) => [alarm, cause, remedy, value]),
    [
      ['bare', '', '', null],
      ['odd', '', '', null],
    ],
  );
  assert.is((await get(`${url}picture?job=job&step=2`)).status, 404);
  assert.is((await get(`${url}picture?job=job&step=3`)).text, 'within the run');
  assert.is((await get(`${url}picture?job=elsewhere&step=2`)).status, 404);
  const { headers } = await get(url);
  for (const directive of ['frame-ancestors', 'base-uri', 'form-action', 'object-src'])
    assert.match(headers['content-security-policy'] as string, `${directive} 'none'`);
  assert.not.match(headers['content-security-policy'] as string, 'unsafe');
  assert.is(headers['cross-origin-resource-policy'], 'same-origin');
  assert.is(headers['x-content-type-options'], 'nosniff');
  await close();
});

test('clients that ask and never read are cut off, others are answered meanwhile', async () => {
  const { url, close } = await serve(run, 0);
  const port = Number(new URL(url).port);
  const asking = `GET /snapshot HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`;
  const before = process.memoryUsage().rss;
  const clients = Array.from({ length: 200 }, () => {
    const socket = connect(port, '127.0.0.1', () => socket.write(asking.repeat(100)));
    return socket.pause().on('error', () => {});
  });
  await new Promise((done) => setTimeout(done, 300));
  const start = performance.now();
  for (let i = 0; i < 5; i++) assert.is((await get(`${url}snapshot`)).status, 200);
  assert.ok(performance.now() - start < 4000, `${performance.now() - start} ms`);
  const took = process.memoryUsage().rss - before;
  assert.ok(took < 300 * 2 ** 20, `${Math.round(took / 2 ** 20)} MiB`);
  for (const socket of clients) socket.destroy();
  await close();
});

test('the page in a browser: tabs, curves, alarms, pictures, and it follows the run', async () => {
  const { url, close } = await serve(run, 0);
  const page = await Browser.open(url);
  if (!page) return close(); // the optional package is not installed
  try {
    await page.until(
      `document.querySelectorAll('#curves canvas').length > 10 && document.getElementById('picture').complete`,
    );
    assert.equal(await page.evaluate(`[...document.querySelectorAll('#jobs button')].map((b) => b.textContent)`), [
      'Stability priming',
      'Adversarial equilibrium1',
    ]);
    assert.match(
      await page.evaluate<string>(`document.getElementById('alarms').innerText`),
      /^saturation\nstep 263, deviation 1.18/,
    );
    assert.is(await page.evaluate(`document.getElementById('picture').naturalWidth`), 6 * 68 - 4);
    assert.match(
      await page.evaluate<string>(`document.getElementById('facts').innerText`),
      /^step 300 of 400 · 1\.1 s\/step · 1m50s left$/,
    );
    const out = process.env['WATCH_SHOT'];
    if (out) writeFileSync(out, await page.screenshot());
    const hostile = '<img src=x onerror="document.title=1">';
    appendFileSync(
      join(run, 'equilibrium', 'metrics.jsonl'),
      line({ step: 299, alarm: hostile }) + line({ step: 300, D: 1.5, seconds: 1.1, [hostile]: 1 }),
    );
    await page.until(`document.getElementById('facts').innerText.startsWith('step 301 ')`);
    assert.equal(
      await page.evaluate(
        `[document.querySelectorAll('img').length, [...document.querySelectorAll('#curves h3 span')].some((s) => s.textContent.startsWith('<img'))]`,
      ),
      [1, true],
      'a name is text',
    );
    await page.evaluate(`document.querySelector('#jobs button').click()`);
    await page.until(
      `document.getElementById('alarms').innerText.startsWith('None') && document.getElementById('state').innerText === 'done'`,
    );
    assert.is(
      await page.evaluate(
        `document.querySelectorAll('#curves section h3')[5].innerText.startsWith('Gap to the teacher')`,
      ),
      true,
    );
    assert.equal(page.errors, []);
  } finally {
    await page.close();
    await close();
  }
});

test.run();

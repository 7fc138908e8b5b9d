/**
 * Checkpoints, run folders and the loop, without a device: round trips, failures that leave the old file, locks, refusals, stop and resume.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Device } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { numel } from '../../kernels/kernel.ts';
import { latestCheckpoint, openSaved, saveCheckpoint } from '../../train/loop/checkpoint.ts';
import { drive, readBest, type Job, type LoopOptions } from '../../train/loop/loop.ts';
import { RunFolder } from '../../train/loop/run.ts';

const fresh = (): string => mkdtempSync(join(tmpdir(), 'vpae-'));
const meta = (step: number) => ({ job: 'test', step, config: 'abc' });
const stateOf = (x: number) => ({
  net: { params: { 'a.weight': host([x, 1.5], [2]) }, v: { 'a.weight': host([0, 1], [2]) } },
});

async function message(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('nothing was thrown');
}

test('a checkpoint comes back bit by bit; the last two are kept', async () => {
  const dir = fresh();
  for (const step of [1, 2, 3]) await saveCheckpoint(dir, stateOf(0.1 * step), meta(step));
  assert.equal(readdirSync(dir), ['checkpoint-00000002.safetensors', 'checkpoint-00000003.safetensors']);
  const { state, meta: read, close } = await openSaved((await latestCheckpoint(dir))!);
  assert.equal(read, meta(3));
  assert.equal(Array.from((await state['net']!.params['a.weight']!.read()).data), [Math.fround(0.1 * 3), 1.5]);
  assert.equal(Array.from((await state['net']!.v['a.weight']!.read()).data), [0, 1]);
  await close();
});

test('a write that fails half-way says why and leaves the checkpoint before it', async () => {
  const dir = fresh();
  await saveCheckpoint(dir, stateOf(1), meta(1));
  const url = (path: string) => JSON.stringify(pathToFileURL(new URL(path, import.meta.url).pathname).href);
  const script = `const { saveCheckpoint } = await import(${url('../../train/loop/checkpoint.ts')});
    const big = { data: new Float32Array(100000), shape: [100000], dtype: 'f32' };
    await saveCheckpoint(${JSON.stringify(dir)}, { net: { params: { big }, v: {} } }, ${JSON.stringify(meta(2))}).catch((e) => console.log(e.message));`;
  // A limit on the size of files stands in for a full disk: the write ends in the middle.
  const said = execFileSync(
    'bash',
    ['-c', `ulimit -f 100; exec "$0" --import tsx --input-type=module -e "$1"`, process.execPath, script],
    { encoding: 'utf8', cwd: new URL('../..', import.meta.url) },
  );
  assert.match(
    said,
    /^\[checkpoint\] could not write .*checkpoint-00000002\.safetensors: .*; checkpoint-00000001\.safetensors is intact, the run resumes from it\n$/,
  );
  assert.equal(readdirSync(dir), ['checkpoint-00000001.safetensors']);
  await (await openSaved((await latestCheckpoint(dir))!)).close();
});

test('a damaged checkpoint is one clear line', async () => {
  const dir = fresh();
  const path = await saveCheckpoint(dir, stateOf(1), meta(1));
  truncateSync(path, 100);
  assert.match(
    await message(() => openSaved(path)),
    /^\[checkpoint\] checkpoint-00000001\.safetensors is damaged .* remove it/,
  );
});

test('a folder is refused to a second run, to other settings and where nothing can be written', async () => {
  const dir = join(fresh(), 'run');
  const first = await RunFolder.open(dir, { lr: 1, net: { dim: 8 } }, {});
  assert.match(await message(() => RunFolder.open(dir, { lr: 1, net: { dim: 8 } }, {})), 'in use');
  first.close();
  assert.match(
    await message(() => RunFolder.open(dir, { lr: 1, net: { dim: 16 } }, {})),
    /^\[resume\] .* net\.dim was 8, now 16/,
  );
  writeFileSync(join(dir, 'run.lock'), JSON.stringify({ pid: process.ppid, host: hostname() }));
  assert.match(
    await message(() => RunFolder.open(dir, { lr: 1, net: { dim: 8 } }, {})),
    `in use by process ${process.ppid}`,
  );
  writeFileSync(join(dir, 'run.lock'), JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() })); // past the largest pid: nobody
  (await RunFolder.open(dir, { lr: 1, net: { dim: 8 } }, {})).close();
  writeFileSync(join(dir, 'file'), '');
  assert.match(
    await message(() => RunFolder.open(join(dir, 'file', 'below'), {}, {})),
    /^\[run\] could not write .*: a part of the path is a file$/,
  );
});

/** Keeps tensors in host memory. */
const memory = {
  tensor: (data: Float32Array, shape: readonly number[]) => ({
    data,
    shape,
    dtype: 'f32',
    buffer: data,
    offset: 0,
    read: async () => data,
    free() {},
  }),
  empty: (shape: readonly number[]) => memory.tensor(new Float32Array(numel(shape)), shape),
  write: (buffer: unknown, offset: number, data: Float32Array) => (buffer as Float32Array).set(data, offset / 4),
  idle: async () => {},
} as unknown as Device;
const one = () => memory.tensor(Float32Array.of(1), []);

/** A state of one number, doubled and moved by the step: every step shows in the result. */
function counter(steps: number, bad: (step: number) => boolean = () => false): Job {
  return {
    name: 'counter',
    steps,
    initial: async () => ({ net: { params: { x: one() }, v: {}, ema: { x: one() } } }),
    async advance(state, step) {
      const x = Math.fround((await state['net']!.params['x']!.read())[0]! * 0.9 + step);
      const made = memory.tensor(Float32Array.of(x), []);
      return {
        state: { net: { params: { x: made }, v: {}, ema: { x: made } } },
        metrics: Promise.resolve({ x, skipped: bad(step) ? 1 : 0 }),
      };
    },
  };
}
const options = (folder: string, more: Partial<LoopOptions> = {}): LoopOptions => ({
  device: memory,
  folder,
  config: { seed: 1 },
  environment: {},
  saveEvery: 3,
  maxSkipped: 3,
  ...more,
});
const lines = (folder: string): { step: number; x: number }[] =>
  readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((l) => JSON.parse(l) as { step: number; x: number })
    .map(({ step, x }) => ({ step, x }));

test('a run whose folder is removed under it stops at the next step, and makes no new one', async () => {
  const folder = join(fresh(), 'run');
  const job = counter(20);
  const removing: Job = {
    ...job,
    async advance(state, step) {
      if (step === 5) rmSync(folder, { recursive: true });
      return job.advance(state, step);
    },
  };
  assert.match(
    await message(() => drive(removing, options(folder))),
    /^\[run\] .*run was removed or taken by another process/,
  );
  assert.not(existsSync(folder));
});

test('stopped at any step and resumed, a run logs and ends as an uninterrupted one', async () => {
  const whole = join(fresh(), 'run');
  await drive(counter(8), options(whole));
  for (const at of [1, 4, 6]) {
    const folder = join(fresh(), 'run');
    const stop = new AbortController();
    const stopped = await drive(
      counter(8),
      options(folder, {
        signal: stop.signal,
        onProgress: ({ step }) => {
          if (step === at) stop.abort();
        },
      }),
    );
    assert.equal(
      [stopped.step, stopped.done],
      [at % 3 ? at + 1 : at, false],
      'a step that is under way is finished; none is where a checkpoint is due',
    );
    assert.is((await drive(counter(8), options(folder))).done, true);
    assert.equal(lines(folder), lines(whole));
  }
  assert.is((await drive(counter(8), options(whole))).step, 8, 'a finished run stays finished');
});

test('lines of steps that a kill lost are written once', async () => {
  const folder = join(fresh(), 'run');
  mkdirSync(folder, { recursive: true });
  await drive(counter(4), options(folder, { config: { steps: 8 } }));
  const before = lines(folder);
  writeFileSync(
    join(folder, 'metrics.jsonl'),
    `${before.map((l) => JSON.stringify(l)).join('\n')}\n{"step":4,"x":1}\n{"step":5,"x`,
  );
  await drive(counter(8), options(folder, { config: { steps: 8 } }));
  assert.equal(
    lines(folder).map((l) => l.step),
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
});

test('updates that are turned away stop the run only when they follow each other', async () => {
  await drive(
    counter(12, (step) => step % 3 !== 0),
    options(join(fresh(), 'run')),
  );
  const said = await message(() =>
    drive(
      counter(12, (step) => step > 4),
      options(join(fresh(), 'run')),
    ),
  );
  assert.match(said, /^\[counter\] 3 steps in a row had a gradient that is not finite, up to step 8/);
});

test('the best average is kept with its score, and a resumed run does not lose it', async () => {
  const folder = join(fresh(), 'run');
  const scores = [5, 1, 9, 2];
  const judged = (): Job => ({
    ...counter(4),
    best: { every: 1, from: 0, net: 'net', score: async () => ({ score: scores.shift()! }) },
  });
  const stop = new AbortController();
  await drive(
    judged(),
    options(folder, {
      signal: stop.signal,
      onProgress: ({ step }) => {
        if (step === 3) stop.abort();
      },
    }),
  );
  await drive(judged(), options(folder));
  const best = await readBest(folder);
  assert.equal([best.step, best.score], [3, 9]);
});

test.run();

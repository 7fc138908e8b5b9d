/** What is absurd, hostile or unread: refused before work in one line with the limit, kept from terminals, ended quietly. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { printable } from '../../cli/common/errors.ts';
import { readVideo } from '../../cli/media/read.ts';
import { crc32Of } from '../../model/files/crc32.ts';
import { memoryBytes } from '../../cli/common/options.ts';
import { readPrompts } from '../../cli/sample/jobs.ts';
import { ditConfig } from '../../model/config.ts';
import { umt5Config } from '../../model/umt5/config.ts';
import { checkClip } from '../../model/pipeline/size.ts';
import { cleanPrompt } from '../../model/tokenizer.ts';
import { RELEASED } from '../../model/families/index.ts';
import { WAN_VAE } from '../../model/config.ts';
import { subjectOf } from '../../train/planning/subject.ts';
import { loadPreset } from '../../train/presets/index.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-refused-'));

test('absurd settings are refused with their limit, each alone and all together', () => {
  for (const set of [
    'dit.num_layers=1e9',
    'dit.dim=1e9',
    'teacher.batch=1e9',
    'priming.fake.rank=1e9',
    'student.rank=1e9',
    'text.text_len=1e9',
    'data.frames=1000000001',
    'data.trainClips=1e12',
    'trainVae.steps=1e300',
    'vae.num_res_blocks=1e6',
    'teacher.sampler.steps=1e9',
    'equilibrium.taps=[1e300]',
    'dit.patch_size=[1,1000,1000]',
    'baselines.consistency.grid=1e8',
    'run.saveEvery=1e8',
    'seed=1e300',
    'teacher.adam.lr=1e999',
  ])
    assert.throws(
      () => loadPreset('digits-test', [set]),
      (e: Error) =>
        e.message.startsWith(`[preset] ${set.split('=')[0]}`) &&
        /\d|Infinity/.test(e.message) &&
        e.message.length < 200,
      set,
    );
  assert.throws(
    () => loadPreset('digits', ['dit.dim=65536', 'dit.ffn_dim=262144', 'dit.num_layers=1000']),
    /make 6\.9e\+13 parameters, at most 1000000000000 are meant/,
  );
  assert.throws(
    () => loadPreset('digits', ['teacher.batch=16384', 'data.size=4096']),
    /16384 clips of 9 frames, 4096x4096, at a time are 2\.5e\+12 pixels, at most 2147483648 are meant: a smaller batch/,
  );
  for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty'])
    assert.throws(
      () => loadPreset(name),
      new RegExp(`^Error: .*there is no preset "${name}"`.replace('Error: .', '.')),
    );
  for (const text of ['24constructor', '1__proto__', `${'9'.repeat(400)}GB`, '0GB'])
    assert.throws(() => memoryBytes(text), /reads as 24GB/);
});

test('so are the numbers of released models and of checkpoints', () => {
  const size = { width: 832, height: 480, frames: 81 };
  for (const [wrong, limit] of [
    [{ frames: 100_001 }, /frames are at most 16385/],
    [{ width: 100_000, height: 100_000 }, /width and height are at most 16384/],
    [{ width: 8192, height: 8192 }, /are 5505024 tokens, at most 262144 are meant/],
  ] as const) {
    assert.throws(() => subjectOf('wan2.1-t2v-1.3b', [], wrong), limit);
    const all = { ...size, ...wrong };
    assert.throws(() => checkClip(RELEASED['wan2.1-t2v-1.3b']!.dit, WAN_VAE, all, all.frames), limit);
  }
  assert.throws(() => subjectOf('constructor', []), /there is no preset "constructor"/);
  const { dit } = RELEASED['wan2.1-t2v-1.3b']!;
  assert.throws(() => ditConfig({ ...dit, num_layers: 1e9 }), /num_layers: Too big.*1000/);
  assert.throws(
    () => umt5Config({ vocab: 256_384, dim: 4096, dim_attn: 4096, dim_ffn: 10_240, num_heads: 64, num_layers: 1e9 }),
    /num_layers: Too big.*1000/,
  );
});

test('a file of prompts stays in its folder, and its fields are its own', () => {
  const file = join(dir, 'prompts.jsonl');
  const asked = { seed: 1, count: 1, out: 'clips/c.webp' };
  const read = (line: object | string) => {
    writeFileSync(file, typeof line === 'string' ? line : JSON.stringify(line));
    return readPrompts(file, asked)[0]!;
  };
  assert.is(read({ prompt: 'a', out: 'sub/../a.webp' }).out, join(dir, 'a.webp'));
  mkdirSync(join(dir, 'real'));
  symlinkSync(tmpdir(), join(dir, 'away'));
  symlinkSync(join(dir, 'real'), join(dir, 'near'));
  assert.is(read({ prompt: 'a', out: 'near/new/a.webp' }).out, join(dir, 'near/new/a.webp'));
  for (const out of ['../a.webp', '/tmp/a.webp', 'a/../../b.webp', 'away/a.webp', 'away/new/a.webp', '..'])
    assert.throws(
      () => read({ prompt: 'a', out }),
      /prompts\.jsonl:1: out must be a path within .*, the folder of the file, got "/,
      out,
    );
  for (const seed of [1e300, -1.5, -1, 0.5, 2 ** 53])
    assert.throws(() => read({ prompt: 'a', seed }), /:1: seed must be a whole number from 0 to 9007199254730991, got/);
  for (const name of ['__proto__', 'constructor', 'toString'])
    assert.throws(
      () => read(`{"prompt":"a","${name}":"x"}`),
      new RegExp(`:1: unknown field "${name}"; known are prompt`),
    );
});

test('terminals get the words of others without their controls', () => {
  assert.is(printable('a\x1b[31m red\x07\x9b2J\u202e\u200b b\rc\n\ud800'), 'a[31m red2J bc\n');
  assert.is(cleanPrompt('&constructor; &toString; &amp;'), '&constructor; &toString; &');
});

test('pictures and animations that are far larger than their files are refused with the limit', async () => {
  const png = await sharp({ create: { width: 1, height: 1, channels: 3, background: '#123456' } })
    .png()
    .toBuffer();
  png.writeUInt32BE(16_000, 16);
  png.writeUInt32BE(16_000, 20);
  png.writeUInt32BE(crc32Of(png.subarray(12, 29)), 29);
  mkdirSync(join(dir, 'frames'));
  writeFileSync(join(dir, 'frames', '0.png'), png);
  const gif = (frames: number, width: number) => {
    const size = Buffer.from([width & 255, width >> 8, width & 255, width >> 8]);
    const frame = Buffer.concat([Buffer.from([0x2c, 0, 0, 0, 0]), size, Buffer.from([0, 2, 2, 0x44, 1, 0])]);
    const head = [Buffer.from('GIF89a'), size, Buffer.from([0x80, 0, 0, 0, 0, 0, 255, 255, 255])];
    return Buffer.concat([...head, ...Array<Buffer>(frames).fill(frame), Buffer.from(';')]);
  };
  writeFileSync(join(dir, 'long.gif'), gif(20_000, 1));
  writeFileSync(join(dir, 'large.gif'), gif(200, 2000));
  for (const [name, pattern] of [
    ['frames', /0\.png: it is 16000x16000 pixels: at most 64 million pixels are read, make it smaller$/],
    ['long.gif', /long\.gif: it is 1x1 pixels, 20000 frames: at most 10000 frames are read, cut it into parts$/],
    ['large.gif', /large\.gif: it is 2000x2000 pixels, 200 frames: at most 256 million pixels are read/],
  ] as const) {
    const message = await readVideo(join(dir, name)).then(
      () => 'read',
      (e: Error) => e.message,
    );
    assert.match(message, pattern, message);
  }
});

/** Ends with its exit code and what it said. */
function cli(
  args: readonly string[],
  stdout: 'pipe' | number,
  signal?: NodeJS.Signals,
): Promise<{ code: number | null; stderr: string; ms: number }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, ['--import', 'tsx', 'cli/main.ts', ...args], {
      stdio: ['ignore', stdout, 'pipe'],
    });
    let [stderr, sent] = ['', 0];
    child.stderr!.on('data', (d: Buffer) => {
      stderr += d.toString();
      if (signal && !sent && /planned for a GPU/.test(stderr)) {
        sent = performance.now();
        setTimeout(() => child.kill(signal), 300);
      }
    });
    child.stdout?.destroy();
    child.on('close', (code) => done({ code, stderr, ms: sent && performance.now() - sent }));
  });
}

test('a reader that has left, a full disk, a signal while planning', async () => {
  if (process.platform !== 'linux') return;
  const plan = ['plan', '--preset', 'wan2.1-t2v-1.3b', '--layers', '1'];
  const rates = ['--tflops', '1', '--gbps', '1'];
  const [unread, full, stopped] = await Promise.all([
    cli([...plan, ...rates], 'pipe'),
    cli([...plan, ...rates], openSync('/dev/full', 'w')),
    cli(['plan', '--preset', 'wan2.1-i2v-14b-480p', '--job', 'equilibrium'], 'pipe', 'SIGTERM'),
  ]);
  assert.equal([unread.code, unread.stderr], [141, '']);
  assert.equal([full.code, full.stderr], [1, 'vpae: the output could not be written: the disk is full\n']);
  assert.is.not(stopped.code, 0);
  assert.ok(stopped.ms > 0 && stopped.ms < 3000, `${stopped.ms} ms after the signal`);
});

test.run();

/** Movies: what reaches ffmpeg, what is left when it fails, and what is said where there is no encoder. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readVideo } from '../../cli/media/read.ts';
import { checkRate, sinkFor } from '../../cli/media/sink.ts';
import { toI420 } from '../../cli/media/yuv.ts';
import { run } from '../../engine/host/runtime.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-movie-'));
const path = process.env['PATH'];

/** An ffmpeg that keeps its arguments and its input; it fails as asked. */
function fakeFfmpeg(body: string): void {
  mkdirSync(join(dir, 'bin'), { recursive: true });
  const file = join(dir, 'bin/ffmpeg');
  writeFileSync(
    file,
    `#!${process.execPath}\nconst fs = require('node:fs'); const args = process.argv.slice(2);\nif (args[0] === '-version') process.exit(0);\n${body}\n`,
  );
  chmodSync(file, 0o755);
  process.env['PATH'] = join(dir, 'bin');
}
const KEEP =
  "fs.writeFileSync(args.at(-1).replace(/^file:/, ''), JSON.stringify({ args, bytes: [...fs.readFileSync(0)] }));";

/** Red, then green frames: [3, count, 2, 4]. */
const colour = (channel: number, count: number): HostTensor =>
  host(
    Float32Array.from({ length: 3 * count * 8 }, (_, i) => (Math.floor(i / (8 * count)) === channel ? 1 : -1)),
    [3, count, 2, 4],
  );
const SIZE = { width: 4, height: 2, fps: 16, frames: 3, scale: 1 };

test('every frame reaches ffmpeg in order, and the file stands when it is whole', async () => {
  fakeFfmpeg(KEEP);
  for (const [name, codec] of [
    ['a.mp4', 'libx264'],
    ['a.webm', 'libvpx-vp9'],
  ] as const) {
    const sink = await (await sinkFor(join(dir, name)))(SIZE);
    await sink.add(colour(0, 1));
    await sink.add(colour(1, 2));
    assert.not(existsSync(join(dir, name)));
    await sink.end();
    const { args, bytes } = JSON.parse(readFileSync(join(dir, name), 'utf8')) as { args: string[]; bytes: number[] };
    assert.is(bytes.length, 3 * 4 * 8);
    assert.match(args.at(-1)!, /^file:/, 'whatever the name, it is one');
    assert.equal(
      [bytes.slice(0, 4), bytes.slice(32, 36), bytes.slice(-4)],
      [
        [255, 0, 0, 255],
        [0, 255, 0, 255],
        [0, 255, 0, 255],
      ],
    );
    assert.match(args.join(' '), new RegExp(`-pix_fmt rgba -s 4x2 -r 16 -i pipe:0 .*bt709.*format=yuv420p.*${codec}`));
  }
});

test('colours are those of BT.709, whoever makes the file', () => {
  const one = (r: number, g: number, b: number) => [
    ...toI420(
      Uint8Array.from({ length: 16 }, (_, i) => [r, g, b, 255][i % 4]!),
      2,
      2,
    ),
  ];
  assert.equal(one(255, 255, 255), [235, 235, 235, 235, 128, 128]);
  assert.equal(one(0, 0, 0), [16, 16, 16, 16, 128, 128]);
  assert.equal(one(255, 0, 0), [63, 63, 63, 63, 102, 240], 'ITU-R BT.709: 63, 102, 240');
  assert.equal(one(0, 0, 255), [32, 32, 32, 32, 240, 118]);
  assert.is(toI420(new Uint8Array(3 * 5 * 4), 3, 5).length, 15 + 2 * 2 * 3);
});

if ((await run('ffmpeg', ['-version'])).code === 0 && (await run('ffprobe', ['-version'])).code === 0)
  test('a film says whose its colours are, and they are', async () => {
    process.env['PATH'] = path;
    for (const name of ['red.mp4', 'red.webm']) {
      const sink = await (await sinkFor(join(dir, name)))({ ...SIZE, width: 32, height: 16, frames: 2 });
      await sink.add(
        host(
          Float32Array.from({ length: 3 * 2 * 512 }, (_, i) => (i < 1024 ? 1 : -1)),
          [3, 2, 16, 32],
        ),
      );
      await sink.end();
      const entries = 'stream=color_range,color_space,color_transfer,color_primaries';
      const { stdout } = await run('ffprobe', [
        '-v',
        'error',
        '-show_entries',
        entries,
        '-of',
        'csv=p=0',
        join(dir, name),
      ]);
      assert.is(stdout.trim(), 'tv,bt709,bt709,bt709');
      const { frames } = await readVideo(join(dir, name));
      const [r, g, b] = frames[0]!;
      assert.ok(r! > 250 && g! < 6 && b! < 6, `${name}: ${r},${g},${b}`);
    }
  });

test('an ffmpeg that fails is one line, and nothing is left', async () => {
  fakeFfmpeg('console.error("Unknown encoder \'libx264\'"); process.exit(1);');
  const sink = await (await sinkFor(join(dir, 'b.mp4')))(SIZE);
  try {
    for (let i = 0; i < 3; i++) await sink.add(colour(0, 1));
    await sink.end();
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /^\[ffmpeg\] .*b\.mp4: Unknown encoder 'libx264'$/);
  }
  fakeFfmpeg(KEEP);
  const stopped = await (await sinkFor(join(dir, 'c.mp4')))(SIZE);
  await stopped.add(colour(0, 1));
  await stopped.abort();
  assert.equal(
    readdirSync(dir).filter((f) => /^[bc]/.test(f) && f !== 'bin'),
    [],
  );
});

test('without an encoder one line names both and a way around', async () => {
  process.env['PATH'] = join(dir, 'nothing');
  await sinkFor(join(dir, 'd.mp4')).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /ffmpeg on the PATH, or mediabunny \(npm install .*\.webp needs neither/),
  );
  await sinkFor(join(dir, 'd.avi')).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /must end in \.mp4, \.webm, \.webp, \.gif or \.png/),
  );
});

test('pictures take the frames at their rate', async () => {
  for (const [name, pages, width] of [
    ['x.webp', 3, 8],
    ['x.gif', 3, 8],
    ['x.png', undefined, 3 * 8 + 2 * 4],
  ] as const) {
    const sink = await (await sinkFor(join(dir, name)))({ ...SIZE, scale: 2 });
    await sink.add(colour(0, 1));
    await sink.add(colour(1, 1));
    await sink.add(colour(2, 1));
    await sink.end();
    const meta = await sharp(join(dir, name), { animated: true }).metadata();
    assert.equal(
      [meta.pages, meta.width, meta.delay?.[0]],
      [pages, width, pages && (name === 'x.gif' ? 60 : 63)],
      name,
    );
  }
  const last = await sharp(join(dir, 'x.webp'), { page: 2 }).removeAlpha().raw().toBuffer();
  assert.equal([...last.subarray(0, 3)], [0, 0, 255]);
});

test('pictures last as long as they should: rounding is spread, and a rate that is not shown is refused', async () => {
  for (const name of ['long.gif', 'long.webp'] as const) {
    const sink = await (await sinkFor(join(dir, name)))({ ...SIZE, frames: 81 });
    for (let i = 0; i < 27; i++) for (const c of [0, 1, 2]) await sink.add(colour(c, 1));
    await sink.end();
    const { delay } = await sharp(join(dir, name), { animated: true }).metadata();
    assert.ok(Math.abs(delay!.reduce((a, b) => a + b) - 5062.5) <= 5, `${name}: ${delay!.reduce((a, b) => a + b)}`);
    assert.ok(Math.max(...delay!) - Math.min(...delay!) <= (name === 'long.gif' ? 10 : 1));
  }
  for (const [name, fps, said] of [
    ['a.gif', 60, /a \.gif is shown at 0\.0\d+ to 50 frames a second, not at 60: lower --fps, or name an \.mp4/],
    ['a.webp', 120, /a \.webp is shown at .* to 90 frames a second, not at 120/],
    ['a.gif', 0.001, /not at 0\.001/],
  ] as const)
    assert.throws(() => checkRate(name, fps), said);
  checkRate('a.gif', 50);
  checkRate('a.webp', 60);
  checkRate('a.mp4', 240);
});

test.after(() => {
  process.env['PATH'] = path;
  rmSync(dir, { recursive: true });
});
test.run();

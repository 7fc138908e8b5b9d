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
import { sinkFor } from '../../cli/media/sink.ts';
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
    assert.match(args.join(' '), new RegExp(`-pix_fmt rgba -s 4x2 -r 16 -i pipe:0 .*${codec}.* yuv420p`));
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

test.after(() => {
  process.env['PATH'] = path;
  rmSync(dir, { recursive: true });
});
test.run();

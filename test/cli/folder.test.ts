/** `vpae eval FOLDER`: videos of several makes, the layout of VBench, and what is said of what cannot be read. */
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { writeSuite } from '../../cli/eval/suite.ts';
import { readPrompts } from '../../cli/sample/jobs.ts';
import { animate } from '../../cli/media/animation.ts';
import { findVideos } from '../../cli/media/find.ts';
import { readTakes, readVideo } from '../../cli/media/read.ts';
import { Picture } from '../../cli/media/picture.ts';
import { conditions } from '../../train/data/digits.ts';
import { footageOf } from '../../train/vbench/footage.ts';
import { vpae } from './run.ts';

const SHAPE = [1, 9, 32, 32] as const;
const clips = conditions(5, 3);
const folder = mkdtempSync(join(tmpdir(), 'vpae-'));
for (const sub of ['videos', 'images']) mkdirSync(join(folder, sub));
for (const [i, { video }] of clips.entries()) {
  writeFileSync(
    join(folder, 'videos', `clip ${i}-0.webp`),
    await animate([[{ data: video, shape: [...SHAPE] }]], 'webp', { scale: 1 }),
  );
  const still = new Picture(32, 32);
  still.frame({ data: video, shape: [...SHAPE] }, 0, { left: 0, top: 0, scale: 1 });
  writeFileSync(join(folder, 'images', `clip ${i}.png`), await still.encode('png'));
}

test('what was written is read back: webp to the byte, with its picture, gif nearly, a folder of pictures', async () => {
  const files = findVideos(folder).videos;
  assert.equal(
    files.map((f) => [f.name, f.image!.split('/').at(-1)]),
    [0, 1, 2].map((i) => [`clip ${i}-0`, `clip ${i}.png`]),
  );
  for await (const take of readTakes(files)) {
    const want = footageOf(clips[Number(take.name[5])]!.video, [...SHAPE], 1);
    assert.equal(
      take.footage.frames.map((f) => Buffer.from(f).toString('hex')),
      want.frames.map((f) => Buffer.from(f).toString('hex')),
    );
    assert.equal(Buffer.from(take.image!.data), Buffer.from(want.frames[0]!));
    assert.ok(Math.abs(take.footage.fps - 1000 / 120) < 1e-9);
  }
  const other = mkdtempSync(join(tmpdir(), 'vpae-'));
  writeFileSync(
    join(other, 'b.gif'),
    await animate([[{ data: clips[0]!.video, shape: [...SHAPE] }]], 'gif', { scale: 1 }),
  );
  mkdirSync(join(other, 'a'));
  for (const t of [0, 1, 2]) {
    const picture = new Picture(32, 32);
    picture.frame({ data: clips[0]!.video, shape: [...SHAPE] }, t, { left: 0, top: 0, scale: 1 });
    writeFileSync(join(other, 'a', `${t}.png`), await picture.encode('png'));
  }
  const [frames, gif] = await Promise.all(findVideos(other).videos.map((f) => readVideo(f.path)));
  assert.equal([frames!.frames.length, gif!.frames.length, gif!.width, gif!.height], [3, 9, 32, 32]);
});

test('other formats go through ffmpeg: its frames are read, and without it one clear line says what to do', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vpae-'));
  const before = process.env['PATH'];
  writeFileSync(join(dir, 'x.mp4'), '');
  try {
    process.env['PATH'] = dir;
    assert.match(
      await readVideo(join(dir, 'x.mp4')).then(
        () => '',
        (e: Error) => e.message,
      ),
      /^\[read\] .*x\.mp4: ffmpeg is needed .* not on PATH/,
    );
    writeFileSync(
      join(dir, 'ffmpeg'),
      `#!/bin/sh\nfor t in 0 1; do echo "[Parsed_showinfo_0 @ 0x5] n:   $t pts:  $t pts_time:$t.25 pos: 1" >&2; done\nprintf 'P6\\n2 1\\n255\\nabcdefP6\\n2 1\\n255\\nghijkl'\n`,
    );
    chmodSync(join(dir, 'ffmpeg'), 0o755);
    process.env['PATH'] = [dir, before].join(delimiter);
    const { width, height, fps, frames } = await readVideo(join(dir, 'x.mp4'));
    assert.equal([width, height, fps, ...frames.map((f) => Buffer.from(f).toString())], [2, 1, 1, 'abcdef', 'ghijkl']);
  } finally {
    process.env['PATH'] = before;
  }
});

test('the command: a table whose proxies are named, JSON, and refusals', async () => {
  const { code, stdout } = await vpae(['eval', folder, '--reference', folder]);
  assert.is(code, 0);
  for (const row of [
    'i2v_subject-proxy',
    'motion_smoothness-proxy',
    'Total-proxy',
    'precision, recall',
    'PSNR to the picture, by frame',
    'never with published numbers',
    'camera_motion, aesthetic_quality',
  ])
    assert.ok(stdout.includes(row), row);
  const json = JSON.parse((await vpae(['eval', folder, '--json'])).stdout) as {
    videos: number;
    scores: { proxy: boolean };
    psnrByFrame: number[];
  };
  assert.equal([json.videos, json.scores.proxy, json.psnrByFrame[0], json.psnrByFrame.length], [3, true, 100, 9]);
  for (const [args, said] of [
    [['eval', '/nowhere'], /there is no folder \/nowhere/],
    [['eval', mkdtempSync(join(tmpdir(), 'vpae-'))], /holds no video/],
    [['eval', '--dino', 'x'], /--dino goes with a folder/],
    [['eval', folder, '--laion', 'x'], /give both or neither/],
  ] as const) {
    const refused = await vpae(args);
    assert.is(refused.code, 1);
    assert.match(refused.stderr, said);
  }
});

test('the suite becomes a file of prompts, five clips a pair, which sample reads', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vpae-'));
  const info = join(dir, 'info.json');
  writeFileSync(
    info,
    JSON.stringify([
      { prompt_en: 'a beach, camera pans left', image_name: 'clip 0.png', dimension: ['camera_motion'] },
      { prompt_en: 'a beach', image_name: 'clip 1.png', dimension: [] },
    ]),
  );
  const out = join(dir, 'made', 'prompts.jsonl');
  writeSuite(info, join(folder, 'images'), out);
  const jobs = readPrompts(out, { seed: 0, count: 1, out: 'x.mp4' });
  assert.is(jobs.length, 10);
  assert.equal(
    { ...jobs[3], image: realpathSync(jobs[3]!.image!) },
    {
      prompt: 'a beach, camera pans left',
      negative: undefined,
      lastImage: undefined,
      seed: 3,
      image: realpathSync(join(folder, 'images', 'clip 0.png')),
      out: join(dir, 'made', 'videos', 'a beach, camera pans left-3.mp4'),
    },
  );
  assert.throws(() => writeSuite(info, dir, out), /^\[suite\] 2 of 2 pictures are not in/);
  writeFileSync(info, '{}');
  assert.throws(() => writeSuite(info, dir, out), /no list of prompt_en and image_name/);
  assert.throws(() => writeSuite(info, undefined, out), /--images/);
});

test("models' clips are kept in the layout that is read", async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vpae-'));
  const { code, stdout, stderr } = await vpae(['eval', '--student', '--count', '3', '--save', dir, '--vbench']);
  assert.is(code, 0, stderr);
  assert.ok(stdout.includes('right digit in frame') && stdout.includes('subject_consistency-proxy'));
  for (const name of ['real-clips', 'student']) {
    const files = findVideos(join(dir, name)).videos;
    assert.equal(
      files.map((f) => [f.name.slice(-5), f.image !== undefined]),
      [0, 1, 2].map((i) => [`00${i}-0`, true]),
    );
  }
});

test.run();

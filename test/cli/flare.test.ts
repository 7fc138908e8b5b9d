/** The data set flare from a made-up package: fetched, and composed as the game would draw it. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const { open } = await import('../../engine/runtime/device.ts');
const device = await open(); // its driver lies in the cache of the user
process.env['XDG_CACHE_HOME'] = mkdtempSync(join(tmpdir(), 'vpae-'));
const { run } = await import('../../engine/host/runtime.ts');
const { unpackDeb } = await import('../../engine/host/debian.ts');
const { fetchFlare } = await import('../../cli/data/fetchflare.ts');
const { flare } = await import('../../train/data/flare/clips.ts');
const { ACTIONS, FACINGS, FLARE_WORDS, isHeldOut, sceneOf } = await import('../../train/data/flare/outfits.ts');
const { parseAnimation, parseLayers } = await import('../../train/data/flare/parse.ts');
const { flareFiles, flareFolder } = await import('../../train/data/flare/sprites.ts');
const { crop } = await import('../../train/data/crops.ts');
const { Stream } = await import('../../train/loop/rng.ts');
const { loadPreset } = await import('../../train/presets/index.ts');
const { embedderOf, wordsIn } = await import('../../model/text.ts');
const { loadVAE } = await import('../../train/loop/models.ts');
const { vaeConfigOf } = await import('../../train/methods/conditions.ts');
const { vaeShapes } = await import('../../model/wan/vae.ts');
const { distill, trainTeacher, trainVae } = await import('../../train/pipeline.ts');
const { FLARE_READER_TRAINING, trainFlareReader } = await import('../../train/methods/flarereader.ts');
const { evaluate } = await import('../../train/judge/infer.ts');
const { FlareJudge } = await import('../../train/judge/flarejudge.ts');
const { TINY } = await import('../train/tinypreset.ts');
const { CORNER, LAYERS, MOD, redOf, writePackage } = await import('./flarepackage.ts');

const refused = async (work: () => unknown): Promise<string> => {
  try {
    await work();
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
};
const signal = new AbortController().signal;
const FRAMES = 9;
const SIZE = 64; // the game's own: nothing is resized
const settings = { size: SIZE, frames: FRAMES };
const missing = await refused(() => flare('train', 1, settings));

const root = mkdtempSync(join(tmpdir(), 'vpae-'));
await writePackage(root);
const deb = join(root, 'flare-game.deb');

test('a package in place of the archive: refused when it is something else, unpacked where it is one', async () => {
  assert.match(missing, /^\[flare\] the sprites are not here .*: run vpae data fetch flare$/);
  const nothing = mkdtempSync(join(tmpdir(), 'vpae-'));
  assert.match(await refused(() => fetchFlare(nothing, signal)), /holds no Flare: .*hero_layers\.txt is not below it$/);
  assert.match(await refused(() => fetchFlare(join(nothing, 'x.deb'), signal)), /there is no such file or folder$/);
  const other = join(nothing, 'other.deb');
  writeFileSync(other, 'no package');
  assert.match(await refused(() => fetchFlare(other, signal)), /^\[fetch\] .*other\.deb: /);

  const tar = join(nothing, 'data.tar');
  assert.is((await run('tar', ['-cf', tar, '-C', root, 'usr'])).code, 0);
  const empty = Buffer.alloc(1024);
  const member = (name: string, data: Buffer) =>
    Buffer.concat([
      Buffer.from(
        `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(data.length).padEnd(10)}\x60\n`,
      ),
      data,
      Buffer.alloc(data.length % 2),
    ]);
  writeFileSync(
    deb,
    Buffer.concat([
      Buffer.from('!<arch>\n'),
      member('debian-binary', Buffer.from('2.0\n')),
      member('control.tar', empty),
      member('data.tar', readFileSync(tar)),
    ]),
  );
  // Where there is no dpkg-deb, tar does it.
  const path = process.env['PATH'];
  const tools = join(nothing, 'tools');
  mkdirSync(tools);
  const { stdout } = await run('which', ['tar']);
  writeFileSync(join(tools, 'tar'), `#!/bin/sh\nexec ${stdout.trim()} "$@"\n`, { mode: 0o755 });
  process.env['PATH'] = tools;
  try {
    await unpackDeb(deb, join(nothing, 'byhand'));
  } finally {
    process.env['PATH'] = path;
  }
  assert.is(readFileSync(join(nothing, 'byhand', MOD, 'engine/hero_layers.txt'), 'utf8').split('\n').length, 10);

  assert.is(await fetchFlare(deb, signal), flareFolder());
  assert.is(await fetchFlare(deb, signal), undefined);
  assert.match(readFileSync(join(flareFolder(), 'ATTRIBUTION'), 'utf8'), /Clint Bellanger.*ShareAlike 3\.0/s);
  assert.ok(readFileSync(flareFiles().index).length > 0);
});

test("the game's files are refused in one line where they are damaged", async () => {
  assert.match(await refused(() => parseAnimation('[run]\n', 'x.txt')), /^\[flare\] x\.txt names no image/);
  assert.match(
    await refused(() => parseAnimation('image=a.png\n[run]\nframes=8\nduration=5ms\ntype=odd\n', 'x.txt')),
    /\[run\] has the type "odd", expected looped, back_forth or play_once$/,
  );
  assert.match(await refused(() => parseLayers('layer=0,chest,tail\n', 'x.txt')), /unknown part "tail" of a figure$/);
  assert.match(await refused(() => parseLayers('layer=0,chest\n', 'x.txt')), /orders 1 directions, expected 8$/);
});

const byte = (v: number): number => Math.round((v + 1) * 127.5);
/** RGB of a pixel. */
const at = (video: Float32Array, t: number, x: number, y: number): number[] =>
  [0, 1, 2].map((c) => byte(video[((c * FRAMES + t) * SIZE + y) * SIZE + x]!));
/** Where the figure's square is in frame t: red tells it from the ground. */
function square(video: Float32Array, t: number): { x: number; y: number; colour: number[] } {
  for (let y = 0; y < SIZE; y++)
    for (let x = 0; x < SIZE; x++) if (at(video, t, x, y)[0]! > 0) return { x, y, colour: at(video, t, x, y) };
  throw new Error(`no figure in frame ${t}`);
}

test('parts are drawn in the order of the direction, frames are held evenly, deeds end in standing', () => {
  const { clip } = flare('train', 1, settings);
  const seen = new Set<string>();
  for (let i = 0; i < 80; i++) {
    const { video, action, facing, caption } = clip(i);
    const scene = sceneOf(i, new Stream(1, i, 'flare.train.clip'), 'train');
    const worn = LAYERS[FACINGS.indexOf(facing)]!.filter((slot) => scene.wears[slot]);
    const found = Array.from({ length: FRAMES }, (_, t) => square(video, t));
    for (const { colour, x, y } of found) {
      assert.is(colour[0], redOf(worn.at(-1)!), caption);
      assert.ok(
        Math.abs(x - CORNER[0] - 32) <= 3 && Math.abs(y - CORNER[1] - 51) <= 3,
        'the figure stays where it stands',
      );
    }
    const frames = found.map(({ colour }) => colour[1]! / 8);
    const changes = frames.flatMap((f, t) => (t && f !== frames[t - 1] ? [t] : []));
    const hold = { run: 1, swing: 2, shoot: 2, cast: 2, die: 3, stance: 4 }[action];
    for (let k = 1; k < changes.length; k++)
      assert.ok(
        (changes[k]! - changes[k - 1]!) % hold === 0 || frames[changes[k]!] === 0 || frames[changes[k - 1]!] === 0,
        `${action}: ${frames.join(' ')}`,
      );
    if (action === 'run') assert.ok(frames.every((f, t) => t === 0 || f === (frames[t - 1]! + 1) % 8));
    if (action === 'die') assert.ok(frames.every((f, t) => t === 0 || f >= frames[t - 1]!));
    seen.add(`${action} ${i % 8}`);
  }
  assert.is(new Set(Array.from(seen, (s) => s.split(' ')[0])).size, ACTIONS.length);
});

test('the camera follows runners over ground without gaps, and stands still otherwise', () => {
  const { clip } = flare('train', 1, settings);
  const moves: Record<string, [number, number]> = { west: [-8, 0], east: [8, 0], north: [0, -4], south: [0, 4] };
  let runners = 0;
  for (let i = 0; i < 80; i++) {
    const { video, action, facing } = clip(i);
    for (let p = 0; p < SIZE * SIZE; p++) {
      const colour = at(video, 0, p % SIZE, Math.floor(p / SIZE));
      assert.ok(colour[0]! > 0 || (colour[1]! % 8 === 0 && colour[2]! % 60 === 0), 'a tile of the ground');
    }
    const [dx, dy] = action === 'run' ? (moves[facing] ?? []) : [0, 0];
    if (dx === undefined || dy === undefined) continue;
    runners += Number(action === 'run');
    for (const t of [1, 5])
      for (let y = 40; y < 60; y++)
        for (let x = 0; x < 8; x++) {
          const [fromX, fromY] = [x + 30 * Number(dx <= 0) + t * dx, y + t * dy];
          if (fromX < 0 || fromX >= SIZE || fromY < 0 || fromY >= SIZE) continue;
          const [then, now] = [at(video, 0, fromX, fromY), at(video, t, x + 30 * Number(dx <= 0), y)];
          if (then[0] === 0 && now[0] === 0) assert.equal(now, then, `${facing} at ${t}`);
        }
  }
  assert.ok(runners > 8);
});

test('captions say what is seen, in words that are known; an eighth of the outfits is held out', () => {
  const p = loadPreset('flare');
  const { clip } = flare('heldout', 1, settings);
  const captions = Array.from({ length: 40 }, (_, i) => clip(i).caption);
  assert.ok(
    captions.every((c) =>
      /^a (wo)?man in a [a-z ]+ with an? \w+( and a shield)?, \w+ (north|south|east|west)(-east|-west)?, on \w+$/.test(
        c,
      ),
    ),
    captions[0],
  );
  const { lengths } = embedderOf(FLARE_WORDS, p.text.text_dim, p.text.text_len)(captions);
  assert.ok(Math.max(...lengths) <= 17);
  assert.throws(
    () => wordsIn('a woman in a ball gown', FLARE_WORDS),
    /^\[text\] unknown word "ball" in .*; the words are: a, man, woman,/,
  );
  const key = (i: number, split: 'train' | 'heldout') => {
    const { sex, wears } = sceneOf(i, new Stream(1, i, `flare.${split}.clip`), split);
    assert.is(isHeldOut({ sex, wears }), split === 'heldout');
    return JSON.stringify([sex, wears]);
  };
  const trained = new Set(Array.from({ length: 500 }, (_, i) => key(i, 'train')));
  assert.ok(Array.from({ length: 500 }, (_, i) => key(i, 'heldout')).every((k) => !trained.has(k)));
});

test('a clip is a pure function of split, seed and number, and is shrunk to the size asked for', async () => {
  const [a, b] = [flare('train', 1, { size: 48, frames: FRAMES }), flare('train', 1, { size: 48, frames: FRAMES })];
  b.clip(3);
  assert.equal(a.clip(5), b.clip(5));
  assert.is(a.clip(5).video.length, 3 * FRAMES * 48 * 48);
  assert.ok(flare('train', 2, settings).clip(5).caption !== flare('train', 1, settings).clip(5).caption);
  assert.match(
    await refused(() => flare('train', 1, { ...settings, size: 65 })),
    /^\[flare\] data\.size must be at most 64, got 65$/,
  );
});

test('a still is a square of one frame, a cut clip the same square of all', () => {
  const shape = [2, 3, 4, 5] as const;
  const video = Float32Array.from({ length: 120 }, (_, i) => i);
  const seen = new Set<number>();
  for (let n = 0; n < 200; n++) {
    const cut = crop(video, shape, { size: 2, still: true }, new Stream(1, n, 'still'));
    const [first] = cut as unknown as [number];
    seen.add(first);
    assert.ok(first < 60 && first % 20 < 15 && first % 5 < 4);
    assert.equal(
      [...cut],
      [0, 1, 5, 6, 60, 61, 65, 66].map((i) => first + i),
    );
  }
  assert.is(seen.size, 3 * 3 * 4, 'every frame and place comes up');
  const [corner] = crop(video, shape, { size: 2 }, new Stream(1, 0, 'clip')) as unknown as [number];
  assert.equal(
    [...crop(video, shape, { size: 2 }, new Stream(1, 0, 'clip'))],
    [0, 20, 40, 60, 80, 100].flatMap((plane) => [0, 1, 5, 6].map((i) => plane + corner + i)),
    'the same square of every frame',
  );
});

test('VAE, teacher, classifier, both phases and the judge', async () => {
  const out = mkdtempSync(join(tmpdir(), 'vpae-'));
  const sets = [
    ...TINY.filter((set) => !set.startsWith('text.')),
    'text.text_dim=16',
    'trainVae.crops.stills.steps=1', // one update on single frames, one on clips
    'trainVae.crops.size=8',
    'trainVae.critic.from=1',
  ];
  const p = loadPreset('flare', sets);
  const work = { device, preset: p, out };
  const classifier = join(out, 'classifier.safetensors');
  assert.ok((await trainVae(work)).done);
  const longer = await trainVae({ ...work, preset: loadPreset('flare', [...sets, 'trainVae.steps=3']) });
  assert.is(longer.step, 3, 'a VAE is trained on');
  assert.equal(Object.keys((await loadVAE(longer.path)).params), Object.keys(vaeShapes(vaeConfigOf(p))));
  assert.ok((await trainTeacher(work)).done);
  assert.match(
    await refused(() => distill({ ...work, classifier })),
    /^\[classifier\] .* is missing, which judges these clips: vpae train classifier --preset flare --run /,
  );
  const { data } = p;
  await trainFlareReader(device, classifier, data, { ...FLARE_READER_TRAINING, steps: 2, clips: 2 });
  const made = await distill({ ...work, classifier });
  assert.ok(made.done && made.phases.every((phase) => Number.isFinite(phase.score)));
  const { evaluation, real, samples } = await evaluate({
    device,
    vae: join(out, 'vae.safetensors'),
    model: join(out, 'student.safetensors'),
    judge: (preset) => FlareJudge.heldOut(preset, classifier),
  });
  assert.is(samples.evaluations, 1);
  assert.ok(Object.values(evaluation).every(Number.isFinite) && evaluation.spread! > 0);
  assert.equal([real.sharpness, real.motionRatio, real.recall, real.firstFramePsnr], [1, 1, 1, 100]);
});

test.run();

/** The emoji data set on made-up animations: split, stretches, colours; and its preset, shrunk, through every job. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const { open } = await import('../../engine/runtime/device.ts');
const device = await open(); // its driver lies in the cache of the user
process.env['XDG_CACHE_HOME'] = mkdtempSync(join(tmpdir(), 'vpae-'));
const { emoji, emojiFiles, emojiFolder, isHeldOut, STORED } = await import('../../train/data/emoji.ts');
const { loadPreset } = await import('../../train/presets/index.ts');
const { ditShapes } = await import('../../model/wan/dit.ts');
const { ditConfigOf, latentShape } = await import('../../train/methods/conditions.ts');
const { distill, trainTeacher, trainVae } = await import('../../train/pipeline.ts');
const { embedderOf } = await import('../../model/text.ts');
const { TINY } = await import('./tinypreset.ts');

const refused = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
};
const settings = { size: 16, frames: 5, packs: 1 };
const missing = refused(() => emoji('train', 1, settings));

/** Frame t of emoji e is all of one colour: red is e, green is t, and the left half is blue. */
const COUNT = 40;
const frame = 3 * STORED.size ** 2;
const hexOf = (e: number) => (0x1f400 + Math.floor(e / 2)).toString(16) + (e % 2 ? '-1f3fd' : '');
mkdirSync(emojiFolder(1), { recursive: true });
const entries = Array.from({ length: COUNT }, (_, e) => ({
  hex: hexOf(e),
  caption: `thing ${Math.floor(e / 2)}: tone ${e % 2}`,
  frames: 8,
  offset: e * 8 * frame,
}));
writeFileSync(
  emojiFiles(1).frames,
  Buffer.concat(
    entries.flatMap((_, e) =>
      Array.from({ length: 8 }, (__, t) =>
        Buffer.from(
          Uint8Array.from(
            { length: frame },
            (___, i) => [e, t, Math.floor(i / 3) % STORED.size < 32 ? 255 : 0][i % 3]!,
          ),
        ),
      ),
    ),
  ),
);
writeFileSync(emojiFiles(1).index, JSON.stringify(entries));

test('nothing fetched, or too little asked for, is one clear line', () => {
  assert.match(missing, /^\[emoji\] package 1 of the animations is not here .*: run vpae data fetch emoji --packs 1$/);
  assert.match(
    refused(() => emoji('train', 1, { ...settings, size: 24 })),
    /must divide 64, got 24/,
  );
  assert.match(
    refused(() => emoji('train', 1, { ...settings, frames: 9 })),
    /no animation is 9 frames long/,
  );
});

test('clips are stretches of one animation; a base code point lies in one split with all its tones', () => {
  const [train, held] = [emoji('train', 1, settings), emoji('heldout', 1, settings)];
  assert.is(train.count + held.count, COUNT);
  assert.ok(held.count > 0 && held.count < COUNT / 2);
  for (let e = 0; e < COUNT; e += 2) assert.is(isHeldOut(hexOf(e)), isHeldOut(hexOf(e + 1)));
  const level = (v: number) => Math.round((v + 1) * 127.5);
  const starts = new Set<number>();
  const captions = new Set<string>();
  for (let i = 0; i < 3 * train.count; i++) {
    const { video, caption } = train.clip(i);
    assert.is(video.length, 3 * 5 * 256);
    const at = (c: number, t: number, x: number) => level(video[((c * 5 + t) * 16 + 3) * 16 + x]!);
    assert.is(caption, entries[at(0, 0, 0)]!.caption);
    assert.equal(
      [0, 1, 2, 3, 4].map((t) => at(1, t, 5) - at(1, 0, 5)),
      [0, 1, 2, 3, 4],
    );
    assert.equal([at(2, 0, 7), at(2, 0, 8)], [255, 0]);
    starts.add(at(1, 0, 0));
    if (i < train.count) captions.add(caption);
  }
  assert.equal(
    [...starts].sort((a, b) => a - b),
    [0, 1, 2, 3],
  );
  assert.is(captions.size, train.count, 'each comes once before one repeats');
  assert.equal(train.clip(7), emoji('train', 1, settings).clip(7));
});

test('any words are taken, each with a vector of its own, cut to the length', () => {
  const embed = embedderOf('any', 8, 3);
  const { context, lengths } = embed(['Waving hand: dark skin', 'hand', '']);
  assert.equal(lengths, [3, 1, 0]);
  const row = (b: number, i: number) => Array.from(context.data.slice((b * 3 + i) * 8, (b * 3 + i + 1) * 8));
  assert.equal(row(0, 1), row(1, 0));
  assert.ok(row(0, 0).some((x, k) => x !== row(0, 1)[k]) && row(2, 0).every((x) => x === 0));
});

test('the preset is of the size it says', () => {
  const p = loadPreset('emoji');
  assert.equal(latentShape(p), [16, 5, 16, 16]);
  const parameters = Object.values(ditShapes(ditConfigOf(p))).reduce(
    (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
    0,
  );
  assert.ok(parameters > 15e6 && parameters < 20e6, `${parameters}: a student in f16 stays under 40 MB`);
});

test('VAE, teacher and both phases', async () => {
  const out = mkdtempSync(join(tmpdir(), 'vpae-'));
  const work = { device, preset: loadPreset('emoji', TINY), out };
  assert.ok((await trainVae(work)).done && (await trainTeacher(work)).done);
  const made = await distill({ ...work, classifier: join(out, 'none') });
  assert.ok(made.done && made.phases.every((p) => Number.isFinite(p.score)));
  assert.is(loadPreset('emoji-t2v').dit.model_type, 't2v');
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { digits } from '../../train/data/digits.ts';
import { openShards, precompute, type Recipe } from '../../train/data/shards.ts';
import { fromF16, toF16 } from '../../model/halves.ts';

const VIDEO = [1, 9, 32, 32] as const;
const LATENT = [2, 3, 8, 8] as const;
const clips = digits('train', 0);
const root = mkdtempSync(join(tmpdir(), 'shards-'));
test.after(() => rmSync(root, { recursive: true }));

/** Stands in for the VAE: every 24th pixel, so a latent tells its clip; counts its calls, and can be made to die. */
function recipe(dir: string, changes: Partial<Recipe> = {}, dieAfter = Infinity): Recipe & { calls: number } {
  const made = {
    dir: join(root, dir),
    count: 10,
    shardSize: 4,
    batchSize: 3,
    clip: clips.clip,
    video: VIDEO,
    latent: LATENT,
    settings: { vae: 'abc', seed: 0 },
    calls: 0,
    async encode(videos: Float32Array) {
      if (made.calls++ >= dieAfter) throw new Error('killed');
      assert.is(videos.length, 3 * 9216);
      return videos.filter((_, i) => i % 24 === 0);
    },
    ...changes,
  };
  return made;
}
const half = (x: Float32Array): number[] => [...fromF16(toF16(x))];

test('records come back as they were made, with the image condition of Wan', async () => {
  const shards = await precompute(recipe('whole'));
  assert.is(shards.count, 10);
  const { latent, imageLatent, firstFrame, captions, meta } = shards.records([9, 0, 5]);
  assert.equal(
    [latent.shape, imageLatent!.shape, firstFrame!.shape],
    [
      [3, ...LATENT],
      [3, ...LATENT],
      [3, 1, 32, 32],
    ],
  );
  [9, 0, 5].forEach((i, b) => {
    const clip = clips.clip(i);
    assert.equal(
      Array.from(latent.data.slice(b * 384, (b + 1) * 384)),
      half(clip.video.filter((_, k) => k % 24 === 0)),
    );
    const still = clip.video.map((v, k) => (k < 1024 ? v : 0)); // the first frame, then zero pixels
    assert.equal(
      Array.from(imageLatent!.data.slice(b * 384, (b + 1) * 384)),
      half(still.filter((_, k) => k % 24 === 0)),
    );
    assert.equal(Array.from(firstFrame!.data.slice(b * 1024, (b + 1) * 1024)), half(clip.video.subarray(0, 1024)));
    assert.is(captions[b], clip.caption);
    assert.equal(meta[b], { digit: clip.digit, direction: clip.direction, velocity: clip.velocity });
  });
});

test('a killed run goes on where it stopped, and ends with the same bytes', async () => {
  const killed = recipe('killed', {}, 6); // shard 0 takes four calls, so it dies inside shard 1
  await precompute(killed).then(
    () => assert.unreachable(),
    (e: Error) => assert.is(e.message, 'killed'),
  );
  assert.ok(existsSync(join(killed.dir, 'shard-00000.msgpack')));
  assert.not.ok(existsSync(join(killed.dir, 'shard-00001.msgpack')));
  const resumed = recipe('killed');
  await precompute(resumed);
  assert.is(resumed.calls, 6, 'shard 0 was kept');
  for (const file of ['index.json', 'shard-00000.msgpack', 'shard-00001.msgpack', 'shard-00002.msgpack']) {
    assert.equal(readFileSync(join(resumed.dir, file)), readFileSync(join(root, 'whole', file)), file);
  }
  const again = recipe('killed');
  await precompute(again);
  assert.is(again.calls, 0);
});

test('batches are a function of seed, step and size, and an epoch shows every record once', async () => {
  const shards = await precompute(recipe('whole'));
  assert.equal(shards.batch(1, 3, 4), openShards(join(root, 'whole')).batch(1, 3, 4));
  const epoch = Array.from({ length: 5 }, (_, step) => shards.batch(1, step, 2).captions).flat();
  assert.equal(epoch.sort(), shards.records(Array.from({ length: 10 }, (_, i) => i)).captions.sort());
  assert.not.equal(shards.batch(1, 0, 8).captions, shards.batch(2, 0, 8).captions);
  assert.not.equal(shards.batch(1, 0, 8).captions, shards.batch(1, 0, 8, 'fake').captions);
  assert.is(shards.batch(1, 7, 32).captions.length, 32); // larger than the data
});

test('what is cut short, changed, missing or foreign is refused by name with the remedy', async () => {
  const { dir } = recipe('bad');
  const remade = () => precompute(recipe('bad'));
  await remade();
  const file = join(dir, 'shard-00001.msgpack');
  const good = readFileSync(file);
  const refused = async (pattern: RegExp) => {
    assert.throws(() => openShards(dir).records([0, 4]), pattern);
    openShards(dir).records([0, 9]); // the others still serve
    await remade().then(
      () => assert.unreachable(),
      (e: Error) => assert.match(e.message, pattern),
    );
  };
  truncateSync(file, statSync(file).size - 100);
  await refused(/shard-00001\.msgpack is cut short \(\d+ of \d+ bytes\): remove this file/);
  writeFileSync(
    file,
    good.map((b, i) => (i === 500 ? b ^ 1 : b)),
  );
  await refused(/shard-00001\.msgpack is not the file that the index describes/);
  rmSync(file);
  assert.throws(() => openShards(dir).records([4]), /shard-00001\.msgpack is missing/);
  await remade(); // makes just the missing one
  assert.equal(readFileSync(file), good);

  await precompute(recipe('bad', { settings: { vae: 'other', seed: 0 } })).then(
    () => assert.unreachable(),
    (e: Error) =>
      assert.match(e.message, /made by another VAE or other data settings .* choose another folder or remove/),
  );
  assert.throws(() => openShards(dir, 'feedfeedfeedfeed'), /made by another VAE/);
  assert.throws(() => openShards(join(root, 'nowhere')), /index\.json is missing: make the data first/);
  writeFileSync(join(dir, 'index.json'), '{"made":');
  assert.throws(() => openShards(dir), /is not an index of shards/);
});

test('an encoder that gives nonsense is stopped', async () => {
  const nan = recipe('nan', { encode: async (v) => new Float32Array(v.length / 24).fill(NaN, 400, 401) });
  await precompute(nan).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /gave NaN for clip 1:/),
  );
  const short = recipe('short', { encode: async () => new Float32Array(5) });
  await precompute(short).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /gave 5 numbers for 3 clips, expected 1152/),
  );
});

test.run();

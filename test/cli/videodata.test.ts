/**
 * `vpae data make FOLDER`: two processes share real videos, bad ones are left out, and the records are what the checkpoint's parts give.
 */
import { cpSync, mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { host } from '../../engine/frontend/tree.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import { wanModel } from '../../model/pipeline/wan.ts';
import { encode, latentStats, normalise } from '../../model/wan/vae.ts';
import { openVideoShards } from '../../train/data/videos.ts';
import { writeFolder } from '../model/folders.ts';
import { largest } from '../model/tiny.ts';
import { ADAPTERS, SIDE, writeClip } from './clips.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-videos-'));
const at = (name: string): string => join(dir, name);
mkdirSync(at('clips'));
await writeFolder(at('i2v'), 'diffusers', 'i2v');
for (const name of ['a', 'b', 'wide'])
  await writeClip(join(at('clips'), `${name}.webp`), 6, name === 'wide' ? 2 * SIDE : SIDE);
await writeClip(join(at('clips'), 'short.webp'), 3);
await writeClip(join(at('clips'), 'silent.webp'), 6);
await sharp({ create: { width: SIDE, height: SIDE, channels: 3, background: '#a04020' } })
  .png()
  .toFile(at('first.png'));
writeFileSync(join(at('clips'), 'damaged.gif'), 'GIF89a and then nothing');
for (const name of ['b', 'short', 'damaged']) writeFileSync(join(at('clips'), `${name}.txt`), `a cat ${name}\n`);
writeFileSync(
  join(at('clips'), 'captions.jsonl'),
  '{"file": "a.webp", "caption": "a dog runs"}\n{"file": "wide.webp", "caption": "snow"}\n',
);
const command = [
  'data',
  'make',
  at('clips'),
  '--model',
  at('i2v'),
  '--records',
  at('records'),
  '--size',
  `${SIDE}x${SIDE}`,
  '--frames',
  '5',
  '--shard',
  '1',
];

test('two processes make every shard once; a bad video is told and left out', async () => {
  const runs = await Promise.all([vpae(command), vpae(command)]);
  for (const { code, stderr } of runs) assert.is(code, 0, stderr);
  const said = runs.map((r) => r.stderr).join('\n');
  assert.is(said.match(/^latents: 1\/1 videos/gm)?.length, 5, said);
  assert.match(said, /silent\.webp is left out: it has no caption, neither silent\.txt nor a line of captions\.jsonl/);
  assert.match(said, /damaged\.gif is left out: \[read\] .*damaged\.gif: /);
  assert.match(said, /short\.webp is left out: is too short: 0\.19 s, 5 frames at 16 a second are 0\.31 s/);
  const shards = openVideoShards(at('records'));
  assert.is(shards.count + shards.others, 3);
  assert.equal(
    shards.refused.map((r) => r.file),
    ['damaged.gif', 'short.webp'],
  );
  assert.equal(readdirSync(join(at('records'), 'claims')), []);
});

test("records hold the encoders' numbers, a batch is of one form", async () => {
  const shards = openVideoShards(at('records'));
  assert.equal([shards.latent, shards.count, shards.others], [[16, 2, 4, 4], 2, 1]);
  assert.equal(openVideoShards(at('records'), [16, 2, 2, 4]).batch(1, 0, 1).captions, ['snow']);
  assert.throws(() => openVideoShards(at('records'), [16, 2, 8, 8]), /holds no record of latents 16x2x8x8/);
  const both = shards.batch(1, 0, 2);
  assert.equal(both.captions.sort(), ['a cat b', 'a dog runs'], 'every record once in an epoch');
  const batch = shards.records([0]);
  const { text: stored, imageTokens, lengths } = batch.embedded!;
  assert.equal(
    [batch.captions, stored.shape, imageTokens!.shape, batch.imageLatent!.shape],
    [['a dog runs'], [1, 16, 32], [1, 257, 80], [1, 16, 2, 4, 4]],
  );
  assert.ok(lengths[0]! > 3 && lengths[0]! < 16);

  const device = await open();
  const checkpoint = await openCheckpoint(at('i2v'));
  const model = wanModel(checkpoint);
  const none = () => {};
  const [text] = await model.encodeText(device, ['a dog runs'], none);
  assert.ok(largest(stored, text!) < 1e-2, 'f16');
  const { data } = await sharp(join(at('clips'), 'a.webp'), { animated: true })
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const plane = SIDE * SIDE;
  const video = host(
    Float32Array.from(
      { length: 3 * 5 * plane },
      (_, i) =>
        data[3 * (Math.floor(i / plane) % 5) * plane + 3 * (i % plane) + Math.floor(i / (5 * plane))]! / 127.5 - 1,
    ),
    [1, 3, 5, SIDE, SIDE],
  );
  const weights = await model.loadVAE(device, 'encoder', none);
  const whole = device.compile(
    (p: Parameters<typeof encode>[0], x: Parameters<typeof encode>[2], s: Parameters<typeof normalise>[1]) =>
      normalise(encode(p, model.vae, x).mean, s),
  );
  const latent = await whole(weights as never, video, latentStats(model.vae));
  assert.ok(largest(batch.latent, host(await latent.read(), latent.shape)) < 1e-2);
  device.close();
});

test('a flipped bit anywhere in records or indexes is seen; records of before there were checksums are read', async () => {
  const copy = at('flipped');
  cpSync(at('records'), copy, { recursive: true });
  const take = () => {
    const shards = openVideoShards(copy);
    shards.records(Array.from({ length: shards.count }, (_, i) => i));
    return shards;
  };
  assert.is(take().unchecked, 0);
  const latent = take().latent;
  for (const name of readdirSync(copy).filter((n) => /\.(json|msgpack)$/.test(n))) {
    const good = readFileSync(join(copy, name));
    if (!good.length) continue; // a shard whose videos were all left out
    for (let i = 0; i < 12; i++) {
      const at = Math.floor((good.length * (i + 0.5)) / 12);
      writeFileSync(
        join(copy, name),
        good.map((b, k) => (k === at ? b ^ (1 << (i % 8)) : b)),
      );
      assert.throws(
        () => {
          for (const form of [latent, [16, 2, 2, 4]]) {
            const shards = openVideoShards(copy, form);
            shards.records(Array.from({ length: shards.count }, (_, k) => k));
          }
        },
        /^\[videos\] .*(is damaged at|is no index of)/,
        `${name}, bit ${i % 8} of byte ${at}`,
      );
    }
    writeFileSync(join(copy, name), good);
  }
  for (const name of readdirSync(copy).filter((n) => /^shard.*\.json$/.test(n))) {
    const { seal, ...shard } = JSON.parse(readFileSync(join(copy, name), 'utf8')) as {
      seal: string;
      records: object[];
    };
    assert.type(seal, 'string');
    writeFileSync(
      join(copy, name),
      JSON.stringify({ ...shard, records: shard.records.map((r) => ({ ...r, sha256: undefined })) }),
    );
  }
  assert.is(take().unchecked, 2);
});

test('a model of a first and a last frame is told both, and refuses records that tell one', async () => {
  await writeFolder(at('flf2v'), 'original', 'flf2v');
  const between = command.map((word) =>
    word === at('i2v') ? at('flf2v') : word === at('records') ? at('between') : word,
  );
  const { code, stderr } = await vpae(between);
  assert.is(code, 0, stderr);
  assert.equal(openVideoShards(at('between')).records([0]).embedded!.imageTokens!.shape, [1, 2 * 257, 80]);
  const distill = (records: string) =>
    vpae(['distill', '--model', at('flf2v'), '--records', records, '--run', `${records}-run`, ...ADAPTERS]);
  const { code: done, stderr: said } = await distill(at('between'));
  assert.is(done, 0, said);
  assert.match(
    (await distill(at('records'))).said.at(-1)!,
    /the records tell 1 of a clip's frames, .*flf2v is told 2: make records with it/,
  );
});

test('it goes on where it stopped, and refuses other settings', async () => {
  const kept = statSync(join(at('records'), 'shard-00000.msgpack')).mtimeMs;
  rmSync(join(at('records'), 'shard-00002.json'));
  writeFileSync(
    join(at('records'), 'claims/2.lock'),
    JSON.stringify({ pid: 2 ** 22 + 1, host: (await import('node:os')).hostname() }),
  ); // past the largest pid: nobody
  const again = await vpae(command);
  assert.is(again.code, 0, again.stderr);
  assert.is(again.stderr.match(/^latents: /gm)?.length, 1);
  assert.is(statSync(join(at('records'), 'shard-00000.msgpack')).mtimeMs, kept);
  const other = await vpae([...command, '--fps', '8']);
  assert.match(other.said.at(-1)!, /holds records of other settings: fps was 16, now 8\./);
  assert.match(readFileSync(join(at('records'), 'index.json'), 'utf8'), /"fps": 16/);
});

test('one clip more makes its own record and no other; one that goes is left aside; a set without a record is no set', async () => {
  const kept = statSync(join(at('records'), 'shard-00000.msgpack')).mtimeMs;
  const { made, count } = openVideoShards(at('records'));
  await writeClip(join(at('clips'), 'new.webp'), 6);
  writeFileSync(
    join(at('clips'), 'new.txt'),
    Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('A new cat', 'utf16le')]),
  );
  const { code, stderr, stdout } = await vpae(command);
  assert.is(code, 0, stderr);
  assert.is(stderr.match(/^latents: /gm)?.length, 1, stderr);
  assert.match(stdout, /all shards are there, 4 records; 2 videos left out: damaged\.gif, short\.webp/);
  assert.is(statSync(join(at('records'), 'shard-00000.msgpack')).mtimeMs, kept);
  const more = openVideoShards(at('records'));
  assert.equal([more.count, more.records([2]).captions], [count + 1, ['A new cat']]);
  assert.is.not(more.made, made);
  rmSync(join(at('clips'), 'new.webp'));
  assert.match((await vpae(command)).stdout, /3 records; .*; 1 of videos that are gone are left aside/);
  assert.equal([openVideoShards(at('records')).count, openVideoShards(at('records')).made], [count, made]);
  for (const name of ['a.webp', 'b.webp', 'wide.webp']) rmSync(join(at('clips'), name));
  const none = await vpae(command.map((word) => (word === at('records') ? at('empty') : word)));
  assert.is(none.code, 1);
  assert.match(none.said.at(-1)!, /none of 2 videos became a record; damaged\.gif: /);
});

test('distill runs on the records, and sample takes what it wrote', async () => {
  const made = await vpae([
    'distill',
    '--model',
    at('i2v'),
    '--records',
    at('records'),
    '--run',
    at('run'),
    ...ADAPTERS,
  ]);
  assert.is(made.code, 0, made.stderr);
  assert.match(made.stderr, /2 clips of latents 16x2x4x4; 1 of other forms are left aside/);
  assert.match(made.stdout, /priming kept step 2, score -?[\d.]+; equilibrium kept step 2, score/);
  for (const phase of ['priming', 'equilibrium']) {
    const job = join(at('run'), phase);
    const { heldOut } = JSON.parse(readFileSync(join(job, 'config.json'), 'utf8')) as { heldOut: number[] };
    assert.is(heldOut.length, 1);
    const { pages, width, height } = await sharp(join(job, 'samples/00000002.webp'), { animated: true }).metadata();
    assert.equal(
      [pages, width, height],
      [5, 2 * SIDE, 5 * (3 * (2 * SIDE + 4) - 4)],
      'one clip, real, by the teacher and by the student',
    );
    assert.match(readFileSync(join(job, 'metrics.jsonl'), 'utf8'), /"score":.*"frechet":/);
  }
  const lora = join(at('run'), 'student.lora.safetensors');
  const { code, stdout, stderr } = await vpae([
    'sample',
    '--model',
    at('i2v'),
    '--lora',
    lora,
    '--prompt',
    'a cat',
    '--image',
    at('first.png'),
    '--size',
    '32x32',
    '--frames',
    '5',
    '--out',
    at('clip.webp'),
  ]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /Wan2\.1 i2v student, 1 evaluation a clip/);
});

test.after(() => rmSync(dir, { recursive: true }));
test.run();

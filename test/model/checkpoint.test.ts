/** Checkpoint folders as downloaded: both layouts give the same weights under Wan's names, and what is wrong with one is said in a line. */
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openCheckpoint, type Part } from '../../model/files/checkpoint.ts';
import { vaeConfigOf } from '../../model/files/configs.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { fromBF16, fromF16, toBF16, toF16 } from '../../model/halves.ts';
import { readsImages, WAN22_VAE, WAN_VAE } from '../../model/config.ts';
import { wan22a14b, wan22ti2v } from '../../model/families/wan22.ts';
import { wanSampling } from '../../model/pipeline/wan.ts';
import type { HostParams } from '../../model/params.ts';
import { vaeShapes } from '../../model/wan/vae.ts';
import { writeFolder } from './folders.ts';

const test = suite('checkpoint folders');
let root = '';
test.before(async () => {
  root = await mkdtemp(join(tmpdir(), 'folders-'));
});
test.after(() => rm(root, { recursive: true }));

const ROUND = {
  F32: (x: Float32Array) => x,
  F16: (x: Float32Array) => fromF16(toF16(x)),
  BF16: (x: Float32Array) => fromBF16(toBF16(x)),
};

async function holds<C>(
  part: Part<C>,
  { config, params }: { config: C; params: HostParams },
  dtype: keyof typeof ROUND,
): Promise<void> {
  assert.equal(part.config, config);
  const weights = await part.open();
  assert.equal([...weights.entries.keys()].sort(), Object.keys(part.shapes).sort());
  for (const name of weights.entries.keys()) {
    const { data, shape } = await weights.tensor(name);
    assert.equal([...shape], [...params[name]!.shape], name);
    assert.equal(data, ROUND[dtype](Float32Array.from(params[name]!.data)), name);
  }
  await weights.close();
}

for (const kind of ['t2v', 'i2v', 'flf2v'] as const) {
  for (const [layout, dtypes] of Object.entries({
    original: ['F32', 'F32', 'BF16', 'F16'],
    diffusers: ['BF16', 'F32', 'BF16', 'F32'],
  } as const)) {
    test(`${kind} in the ${layout} layout`, async () => {
      const path = join(root, `${layout}-${kind}`);
      const made = await writeFolder(path, layout as 'original' | 'diffusers', kind);
      const found = await openCheckpoint(path);
      assert.is(found.layout, layout);
      // What no file of the original layout tells is the model's default.
      const dit = kind === 't2v' ? { ...made.dit, config: { ...made.dit.config, clip_dim: 1280 } } : made.dit;
      await holds(found.dit, dit, dtypes[0]);
      await holds(found.vae, made.vae, dtypes[1]);
      await holds(found.text, made.text, dtypes[2]);
      if (found.image) await holds(found.image, made.image, dtypes[3]);
      assert.is(found.image === undefined, kind === 't2v');
      assert.is((JSON.parse(await readFile(found.tokenizer, 'utf8')) as { version: string }).version, '1.0');
      assert.is(found.flowShift, layout === 'diffusers' ? 3 : undefined);
    });
  }
}

test('the released VAEs are known by their shapes', () => {
  for (const vae of [WAN_VAE, WAN22_VAE]) {
    const entries = new Map(
      Object.entries(vaeShapes(vae)).map(([name, shape]) => [name, { dtype: 'F32' as const, shape }]),
    );
    assert.equal(vaeConfigOf(entries), vae);
  }
});

test('folders of Wan2.2 in both layouts are known as what they are, with both experts', async () => {
  for (const layout of ['original', 'diffusers'] as const)
    for (const kind of ['ti2v', 't2v-a14b', 'i2v-a14b'] as const) {
      const at = join(root, `${layout}-${kind}`);
      const made = await writeFolder(at, layout, kind);
      const found = await openCheckpoint(at);
      const dtype = layout === 'original' ? 'F32' : 'BF16';
      assert.is(found.family, kind === 'ti2v' ? wan22ti2v : wan22a14b);
      assert.is(found.dit.config.model_type, kind.replace('-a14b', ''));
      assert.is(found.image, undefined);
      const config = { ...made.dit.config, clip_dim: found.dit.config.clip_dim };
      assert.is(readsImages(found.dit.config), false);
      await holds(found.dit, { config, params: made.dit.params }, dtype);
      await holds(found.vae, made.vae, 'F32');
      assert.is(found.low === undefined, kind === 'ti2v');
      if (found.low) await holds(found.low, { config, params: made.low! }, dtype);
      const sampling = wanSampling(found, found.family.size);
      const boundary = { ti2v: undefined, 't2v-a14b': 875, 'i2v-a14b': 900 }[kind];
      assert.is(sampling.low?.below, boundary);
    }
});

const CHANGES: [
  what: string,
  layout: 'original' | 'diffusers',
  change: (folder: string) => Promise<unknown>,
  reason: RegExp,
][] = [
  ['no folder', 'original', (f) => rm(f, { recursive: true }), /there is no such folder$/],
  [
    'no config',
    'original',
    (f) => rm(join(f, 'config.json')),
    /neither config\.json \(Wan's own layout, of two experts one in each folder\) nor model_index\.json/,
  ],
  [
    'files missing',
    'original',
    async (f) => {
      await rm(join(f, 'Wan2.1_VAE.pth'));
      await rm(join(f, 'google'), { recursive: true });
    },
    /lacks Wan2\.1_VAE\*\.safetensors, \.gguf or \.pth, google\/umt5-xxl\/tokenizer\.json of Wan's own layout; of weights it holds diffusion_pytorch_model-00001/,
  ],
  [
    'a folder missing',
    'diffusers',
    (f) => rm(join(f, 'image_encoder'), { recursive: true }),
    /lacks image_encoder\/config\.json of Diffusers' layout$/,
  ],
  [
    'a shard missing',
    'diffusers',
    (f) => rm(join(f, 'transformer/diffusion_pytorch_model-00002-of-00002.safetensors')),
    /00002-of-00002\.safetensors: there is no such file$/,
  ],
  [
    'half a download',
    'original',
    async (f) => {
      const p = join(f, 'Wan2.1_VAE.pth');
      await writeFile(p, (await readFile(p)).subarray(0, 5000));
    },
    /Wan2\.1_VAE\.pth: is no whole zip archive/,
  ],
  [
    'another model',
    'original',
    (f) => edit(join(f, 'config.json'), { num_layers: 3 }),
    /does not fit the model of \d+ tensors:\n {2}\d+ missing: blocks\.2\./,
  ],
  [
    'a bad number',
    'original',
    (f) => edit(join(f, 'config.json'), { dim: 50 }),
    /config\.json: \[dit config\] .*dim: must be num_heads 2 times/,
  ],
  [
    'half of two experts',
    'diffusers',
    (f) => edit(join(f, 'model_index.json'), { transformer_2: ['diffusers', 'WanTransformer3DModel'] }),
    /lacks transformer_2\/config\.json of Diffusers' layout/,
  ],
  [
    'half of two experts in their own layout',
    'original',
    async (f) => {
      await mkdir(join(f, 'high_noise_model'));
      for (const name of await readdir(f))
        if (/^(config|diffusion)/.test(name)) await rename(join(f, name), join(f, 'high_noise_model', name));
    },
    /lacks low_noise_model of Wan's own layout/,
  ],
  [
    'a kind that is not read',
    'original',
    (f) => edit(join(f, 'config.json'), { model_type: 's2v' }),
    /model_type: is "s2v", which is not read; those of Wan that are: t2v, i2v, flf2v, ti2v/,
  ],
  [
    'a pointer for a tokenizer or a config',
    'original',
    (f) => writeFile(join(f, 'config.json'), 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'),
    /config\.json: is a pointer of Git LFS, not the file itself: git lfs pull fetches it/,
  ],
];

test('a second transformer that is left out is none; the VAE of ComfyUI is the same file', async () => {
  const folder = join(root, 'saved');
  await cp(join(root, 'diffusers-t2v'), folder, { recursive: true });
  await edit(join(folder, 'model_index.json'), { transformer_2: [null, null], image_encoder: [null, null] });
  assert.is((await openCheckpoint(folder)).layout, 'diffusers');
  const own = join(root, 'comfy');
  await cp(join(root, 'original-t2v'), own, { recursive: true });
  await rename(join(own, 'Wan2.1_VAE.pth'), join(own, 'wan_2.1_vae.pth'));
  assert.is((await openCheckpoint(own)).layout, 'original');
});

test('where a part has several checkpoints, one is named', async () => {
  for (const [layout, at, part, second] of [
    ['diffusers', 'vae', 'vae', 'model.safetensors'],
    ['diffusers', 'transformer', 'dit', 'model.safetensors'],
    ['original', '.', 'vae', 'Wan2.1_VAE.fp32.pth'],
    ['original', '.', 'dit', 'diffusion_pytorch_model.safetensors'],
  ] as const) {
    const folder = join(root, `several-${layout}-${part}`);
    await cp(join(root, `${layout}-t2v`), folder, { recursive: true });
    const weights = await (await openCheckpoint(folder))[part].open();
    const tensors: HostParams = {};
    for (const name of weights.entries.keys()) tensors[name] = await weights.tensor(name);
    await weights.close();
    if (second.endsWith('.pth')) await cp(join(folder, 'Wan2.1_VAE.pth'), join(folder, second));
    else await saveTensors(join(folder, at, second), tensors);
    const refused = (names?: string[]) =>
      openCheckpoint(folder, names).then(
        () => 'opened',
        (e: Error) => e.message,
      );
    assert.match(await refused(), /holds several checkpoints, name one of .* as its weights \(--weights\)/);
    const opened = await (await openCheckpoint(folder, [join(at, second)]))[part].open();
    assert.is(opened.path, join(folder, at, second));
    await opened.close();
    assert.match(
      await refused([join(at, second), 'tokenizer/x.safetensors']),
      /tokenizer\/x\.safetensors \(--weights\): no part has its weights there/,
    );
  }
});

test('a name of the hub is no folder, and what to do is said', async () => {
  const error = await openCheckpoint('Wan-AI/Wan2.1-T2V-1.3B').catch((e: Error) => e);
  assert.match(
    (error as Error).message,
    /no such folder; .* hf download Wan-AI\/Wan2\.1-T2V-1\.3B --local-dir Wan2\.1-T2V/,
  );
});
async function edit(path: string, changes: object): Promise<void> {
  await writeFile(path, JSON.stringify({ ...(JSON.parse(await readFile(path, 'utf8')) as object), ...changes }));
}
for (const [what, layout, change, reason] of CHANGES) {
  test(`says: ${what}`, async () => {
    const folder = join(root, 'changed');
    await rm(folder, { recursive: true, force: true });
    await cp(join(root, `${layout}-i2v`), folder, { recursive: true });
    await change(folder);
    const error = await openCheckpoint(folder).then(
      () => undefined,
      (e: Error) => e,
    );
    assert.match(error!.message, reason);
  });
}

test.run();

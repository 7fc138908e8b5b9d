/** What openWeights takes: files told by their content, indexes, folders; and what it says of others. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { host } from '../../engine/frontend/tree.ts';
import { checkFit } from '../../model/files/load.ts';
import { diffusersDiT, inOwnNames, OWN, transformersUMT5, transformersUMT5Tied } from '../../model/files/names.ts';
import { openWeights } from '../../model/files/open.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { WeightsError } from '../../model/files/stored.ts';
import { pth } from './pthfile.ts';

const test = suite('open');
let root = '';
test.before(async () => {
  root = await mkdtemp(join(tmpdir(), 'open-'));
});
test.after(() => rm(root, { recursive: true }));

/** Each name holds a tensor `name` under its own extension's format; .json files are indexes of these tensors. */
async function folder(name: string, files: Record<string, string[]>): Promise<string> {
  const path = join(root, name);
  await mkdir(path);
  for (const [file, tensors] of Object.entries(files)) {
    const to = join(path, file);
    if (file.endsWith('.json'))
      await writeFile(to, JSON.stringify({ weight_map: Object.fromEntries(tensors.map((t) => t.split('@'))) }));
    else if (file.endsWith('.safetensors'))
      await saveTensors(to, Object.fromEntries(tensors.map((t) => [t, host([1], [1])])));
    else if (/\.(bin|pth|pt)$/.test(file))
      await writeFile(
        to,
        pth(Object.fromEntries(tensors.map((t) => [t, { dtype: 'F32', shape: [1], storage: Float32Array.of(1) }]))),
      );
    else await writeFile(to, tensors.join());
  }
  return path;
}

async function names(path: string, stem?: string): Promise<string> {
  const weights = await openWeights(path, stem);
  await weights.close();
  return [...weights.entries.keys()].sort().join();
}

const part = (i: number, n: number, extension = 'safetensors'): string => `model-0000${i}-of-0000${n}.${extension}`;
const GOOD: [what: string, files: Record<string, string[]>, open: string, stem: string, found: string][] = [
  ['the one file of a folder', { 'x.safetensors': ['a'], 'readme.md': [] }, '', '', 'a'],
  ["safetensors before PyTorch's", { 'model.safetensors': ['a'], 'pytorch_model.bin': ['b'] }, '', '', 'a'],
  ['a PyTorch file in a folder', { 'pytorch_model.bin': ['b'] }, '', '', 'b'],
  [
    'an index of PyTorch shards',
    {
      [part(1, 2, 'bin')]: ['a'],
      [part(2, 2, 'bin')]: ['b'],
      'pytorch_model.bin.index.json': [`a@${part(1, 2, 'bin')}`, `b@${part(2, 2, 'bin')}`],
    },
    '',
    '',
    'a,b',
  ],
  [
    'the half of a variant, as Diffusers names its index and shards',
    {
      'm.safetensors.index.fp16.json': ['a@m-00001-of-00001.fp16.safetensors'],
      'm-00001-of-00001.fp16.safetensors': ['a'],
    },
    '',
    '',
    'a',
  ],
  ['shards without an index', { [part(1, 2)]: ['a'], [part(2, 2)]: ['b'] }, '', '', 'a,b'],
  [
    'files of one stem',
    { 'diffusion_pytorch_model.safetensors': ['a'], 'lora.safetensors': ['b'], 'vae.pth': ['c'] },
    '',
    'diff',
    'a',
  ],
  [
    'the usual name beside a variant',
    { 'diffusion_pytorch_model.safetensors': ['a'], 'diffusion_pytorch_model.fp16.safetensors': ['b'] },
    '',
    '',
    'a',
  ],
  ["the usual name beside ComfyUI's", { 'model.safetensors': ['a'], 'wan_2.1_vae.safetensors': ['b'] }, '', '', 'a'],
  ['a PyTorch file of another extension', { 'weights.pt': ['p'] }, 'weights.pt', '', 'p'],
];
for (const [i, [what, files, open, stem, found]] of GOOD.entries()) {
  test(`opens: ${what}`, async () => assert.is(await names(join(await folder(`good${i}`, files), open), stem), found));
}

const BAD: [what: string, files: Record<string, string[]>, open: string, reason: RegExp][] = [
  ['an empty folder', {}, '', /bad\d+: has no file \*\.safetensors, \.gguf, \.bin, \.pth or \.pt$/],
  [
    'several files',
    { 'a.safetensors': ['a'], 'b.safetensors': ['b'] },
    '',
    /holds several checkpoints, name one of a\.safetensors, b\.safetensors as its weights \(--weights\), or move the others elsewhere$/,
  ],
  ['a shard too few', { [part(1, 2)]: ['a'] }, '', /holds 1 of 2 shards$/],
  [
    'a tensor in two shards',
    { [part(1, 2)]: ['a'], [part(2, 2)]: ['a'] },
    '',
    /1 that stand twice: a in model-00001-of-00002\.safetensors and model-00002-of-00002\.safetensors$/,
  ],
  [
    'an index of an absent shard',
    { 'm.safetensors.index.json': ['a@gone.safetensors'] },
    '',
    /gone\.safetensors: there is no such file$/,
  ],
  [
    'a pointer of Git LFS',
    { 'x.safetensors': [], 'y.pth.txt': ['version https://git-lfs.github.com/spec/v1'] },
    'y.pth.txt',
    /is a pointer of Git LFS/,
  ],
  [
    'GGUF by another name',
    { 'x.txt': ['GGUF\x03\0\0\0'] },
    'x.txt',
    /\[gguf\] .*x\.txt: ends at byte 8, inside its counts/,
  ],
  ['a web page', { 'x.txt': ['<!DOCTYPE html>'] }, 'x.txt', /is a web page, not the file itself/],
  ['no file', {}, 'x.safetensors', /x\.safetensors: there is no such file$/],
  ['an index that is none', { 'x.index.txt': ['{'] }, 'x.index.txt', /has 1 bytes, a header's length alone takes 8$/],
];
for (const [i, [what, files, open, reason]] of BAD.entries()) {
  test(`refuses: ${what}`, async () => {
    const error = await names(join(await folder(`bad${i}`, files), open)).then(
      () => undefined,
      (e: Error) => e,
    );
    assert.instance(error, WeightsError);
    assert.match(error!.message, reason);
  });
}

test('the naming that knows most is taken; what it does not know is told', async () => {
  const shapes = { 'head.head.weight': [1], 'blocks.0.self_attn.q.weight': [1], 'blocks.0.ffn.0.bias': [1] };
  const path = await folder('naming', {
    'x.safetensors': ['proj_out.weight', 'blocks.0.attn1.to_q.weight', 'blocks.0.ffn.bias'],
  });
  const weights = inOwnNames(await openWeights(path), shapes, [OWN, diffusersDiT]);
  assert.throws(
    () => checkFit(weights, shapes),
    /does not fit the model of 3 tensors:\n {2}1 missing: blocks\.0\.ffn\.0\.bias \[1\]\n {2}1 unexpected: blocks\.0\.ffn\.bias \[1\]/,
  );
  await weights.close();
});

test('a tied embedding stands under either name', async () => {
  for (const given of [
    ['shared.weight'],
    ['encoder.embed_tokens.weight'],
    ['shared.weight', 'encoder.embed_tokens.weight'],
  ]) {
    const path = await folder(`tied${given.join()}`, { 'x.safetensors': given });
    const weights = inOwnNames(await openWeights(path), { 'token_embedding.weight': [1] }, [
      transformersUMT5,
      transformersUMT5Tied,
    ]);
    checkFit(weights, { 'token_embedding.weight': [1] });
    await weights.close();
  }
});

test.run();

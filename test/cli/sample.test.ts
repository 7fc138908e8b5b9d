/** `vpae sample` on small Wan2.1 folders in both layouts, from the command line to the file. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { saveLora } from '../../model/files/lora.ts';
import { loraSpecs } from '../../model/lora.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { writeFolder } from '../model/folders.ts';
import { scrambled } from '../model/tiny.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-sample-'));
const at = (name: string): string => join(dir, name);
await writeFolder(at('t2v'), 'original', 't2v');
const {
  dit: { config },
} = await writeFolder(at('i2v'), 'diffusers', 'i2v');
await writeFolder(at('flf2v'), 'diffusers', 'flf2v');
await saveLora(at('student.safetensors'), scrambled(loraSpecs(ditShapes(config), 2)), {
  naming: 'comfyui',
  metadata: { kind: 'student' },
});
await sharp({ create: { width: 30, height: 60, channels: 3, background: '#a04020' } })
  .png()
  .toFile(at('first.png'));
const SMALL = ['--size', '32x32', '--frames', '5', '--steps', '2'];

test('a file of prompts: every line is a clip, and what is there is skipped', async () => {
  writeFileSync(
    at('prompts.jsonl'),
    'a cat runs\n{"prompt": "a cat runs", "seed": 7, "out": "seven.gif"}\n\n{"prompt": "a dog", "negative_prompt": "red"}\n',
  );
  const command = [
    'sample',
    '--model',
    at('t2v'),
    '--prompts',
    at('prompts.jsonl'),
    ...SMALL,
    '--seed',
    '7',
    '--out',
    at('clip.webp'),
  ];
  const { code, stdout, stderr } = await vpae(command);
  assert.is(code, 0, stderr);
  for (const stage of ['text', 'loading', 'diffusion', 'decoding'])
    assert.match(stderr, new RegExp(`^${stage}: `, 'm'));
  assert.match(stdout, /Wan2\.1 t2v, 4 evaluations a clip/);
  for (const name of ['clip-1.webp', 'seven.gif', 'clip-3.webp']) {
    const { width, pages } = await sharp(at(name), { animated: true }).metadata();
    assert.equal([width, pages], [32, 5], name);
  }
  const before = statSync(at('clip-3.webp')).mtimeMs;
  const same = readFileSync(at('clip-1.webp'));
  rmSync(at('clip-1.webp'));
  const again = await vpae(command);
  assert.match(again.stderr, /2 of 3 clips are there already/);
  assert.equal(readFileSync(at('clip-1.webp')), same, 'the same seed is the same video, whatever is made beside it');
  assert.is(statSync(at('clip-3.webp')).mtimeMs, before);
});

test("a picture gives the video its form; a LoRA that says it is a student needs one evaluation, block by block; Wan's own names of options hold", async () => {
  const { code, stdout, stderr } = await vpae([
    'sample',
    '--ckpt_dir',
    at('i2v'),
    '--lora',
    `${at('student.safetensors')}:0.5`,
    '--offload',
    '--prompt',
    'Two dogs',
    '--image',
    at('first.png'),
    '--size',
    '32*32',
    '--frame_num',
    '5',
    '--base_seed',
    '2',
    '--save_file',
    at('clip.png'),
  ]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /Wan2\.1 i2v student, 1 evaluation a clip/);
  const { width, height } = await sharp(at('clip.png')).metadata();
  assert.equal([width, height], [5 * 16 + 4 * 2, 32], '32 x 32 at 1 : 2 is 16 x 32');
});

test('two pictures: the first gives the form, the last is cut to it', async () => {
  await sharp({ create: { width: 90, height: 20, channels: 3, background: '#2040a0' } })
    .png()
    .toFile(at('last.png'));
  writeFileSync(
    at('pairs.jsonl'),
    `{"prompt": "night falls", "image": "first.png", "last_image": "last.png", "out": "night.png"}\n`,
  );
  const { code, stdout, stderr } = await vpae([
    'sample',
    '--model',
    at('flf2v'),
    '--prompts',
    at('pairs.jsonl'),
    ...SMALL,
  ]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /Wan2\.1 flf2v, 4 evaluations a clip/);
  const { width, height } = await sharp(at('night.png')).metadata();
  assert.equal([width, height], [5 * 16 + 4 * 2, 32]);
});

test('a run that was trained with the bundled VAE holds none of its own', async () => {
  mkdirSync(at('run'));
  copyFileSync('bundle/digits/student.safetensors', at('run/student.safetensors'));
  const { code, stderr } = await vpae([
    'sample',
    '--model',
    at('run'),
    '--prompt',
    'a 3 moving up',
    '--out',
    at('three.webp'),
  ]);
  assert.is(code, 0, stderr);
  assert.ok(existsSync(at('three.webp')));
});

test('what a model does not take is one line before anything is loaded', async () => {
  const clip = ['--prompt', 'a cat', '--out', at('no.webp'), ...SMALL];
  for (const [args, line] of [
    [['--model', at('t2v'), '--image', at('first.png')], /--image: .* makes video from text alone/],
    [['--model', at('i2v')], /"a cat" needs a first frame: --image FILE/],
    [
      ['--model', at('i2v'), '--image', at('first.png'), '--last-image', at('first.png')],
      /--last-image: .* makes video from a first frame alone/,
    ],
    [['--model', at('flf2v'), '--image', at('first.png')], /"a cat" needs a last frame: --last-image FILE/],
    [['--model', at('t2v'), '--size', '40x32'], /40x32: width must be a multiple of 16/],
    [['--model', at('t2v'), '--prompts', at('prompts.jsonl')], /say what to make/],
    [['--model', at('t2v'), '--student', '--guidance-scale', '4'], /a student is never guided/],
  ] as const) {
    const size = args.includes('--size') ? clip.filter((a) => a !== '--size' && a !== '32x32') : clip;
    const { code, said } = await vpae(['sample', ...size, ...args]);
    assert.is(said.length, 1, said.join('\n'));
    assert.match(said[0]!, line);
    assert.is.not(code, 0);
  }
  writeFileSync(at('bad.jsonl'), 'fine\n{"prompt": "x", "sede": 1}\n');
  const { said } = await vpae(['sample', '--model', at('t2v'), '--prompts', at('bad.jsonl')]);
  assert.match(said[0]!, /bad\.jsonl:2: unknown field "sede"; known are prompt, /);
  assert.not(existsSync(at('no.webp')));
});

test.after(() => rmSync(dir, { recursive: true }));
test.run();

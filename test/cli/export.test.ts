/**
 * `vpae export`: what is written loads back under the public names, as full weights
 * and as a LoRA, from our own files and from a Wan2.1 folder.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../model/files/open.ts';
import { diffusersDiT } from '../../model/files/names.ts';
import { mergeLora, loraSpecs } from '../../model/lora.ts';
import { ditSpecs, ditShapes } from '../../model/wan/dit.ts';
import { initVAE } from '../../model/wan/vae.ts';
import { ditConfigOf, vaeConfigOf } from '../../train/methods/conditions.ts';
import { loadDiT, loadVAE, saveModel } from '../../train/loop/models.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { writeFolder } from '../model/folders.ts';
import { largest, scrambled } from '../model/tiny.ts';
import { vpae } from './run.ts';

const test = suite('export');
let folder = '';
const at = (name: string): string => join(folder, name);

const preset = loadPreset('digits-test');
const config = ditConfigOf(preset);
const teacher = scrambled(ditSpecs(config));
const lora = scrambled(loraSpecs(ditShapes(config), 3));
const student = mergeLora(teacher, lora, 0.5);
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'export-'));
  const about = { preset, steps: 7 };
  await saveModel(at('teacher.safetensors'), { kind: 'teacher', config, params: teacher, about });
  await saveModel(at('student.safetensors'), { kind: 'student', config, params: student, about });
  const vae = vaeConfigOf(preset);
  await saveModel(at('vae.safetensors'), { kind: 'vae', config: vae, params: initVAE(vae, 1), about });
});
test.after(() => rm(folder, { recursive: true }));

async function writes(args: readonly string[], said: RegExp): Promise<void> {
  const { code, stdout, stderr } = await vpae(['export', ...args]);
  assert.is(code, 0, stderr);
  assert.match(stdout, said);
}

test('a teacher as GGUF and as scaled fp8 is a teacher still, and its errors are told by layer', async () => {
  for (const [dtype, most] of [
    ['q8_0', 0.01],
    ['fp8_scaled', 0.04],
  ] as const) {
    await writes(
      [at('teacher.safetensors'), '--dtype', dtype, '--out', at(dtype)],
      /self_attn\.q .*%[^]*all .*%[^]*: \d+ tensors in (q8_0|fp8_scaled), \d+ KiB/,
    );
    const back = await loadDiT(at(dtype));
    assert.is(back.kind, 'teacher');
    assert.equal(back.config, config);
    const name = 'blocks.0.self_attn.q.weight';
    assert.ok(largest(teacher[name]!, back.params[name]!) < 3 * most);
  }
  const { code, stderr } = await vpae(['export', at('vae.safetensors'), '--dtype', 'q8_0', '--out', at('v')]);
  assert.is(code, 2);
  assert.match(stderr, /--dtype q8_0 is for transformers, this is a VAE/);
});

test("a student under Diffusers' names is the same student, with its settings", async () => {
  await writes(
    [at('student.safetensors'), '--names', 'diffusers', '--dtype', 'f32', '--out', at('d.safetensors')],
    /d\.safetensors: \d+ tensors in f32, \d+ KiB/,
  );
  const weights = await openWeights(at('d.safetensors'));
  assert.equal(
    [...weights.entries.keys()].sort(),
    Object.keys(student)
      .map((n) => diffusersDiT.theirs(n)[0]!)
      .sort(),
  );
  assert.is(weights.metadata['format'], 'pt');
  assert.is(weights.metadata['exportedFrom'], 'student.safetensors');
  await weights.close();
  const back = await loadDiT(at('d.safetensors'));
  assert.is(back.kind, 'student');
  assert.is(back.about.steps, 7);
  assert.equal(back.params, student);
});

test('a VAE goes there and back', async () => {
  await writes(
    [at('vae.safetensors'), '--names', 'diffusers', '--dtype', 'f32', '--out', at('v.safetensors')],
    /tensors in f32/,
  );
  assert.equal((await loadVAE(at('v.safetensors'))).params, (await loadVAE(at('vae.safetensors'))).params);
});

test('the change from the teacher as a LoRA, merged into the teacher, is the student', async () => {
  await writes(
    [
      at('student.safetensors'),
      '--base',
      at('teacher.safetensors'),
      '--rank',
      '3',
      '--names',
      'kohya',
      '--dtype',
      'f32',
      '--out',
      at('l.safetensors'),
    ],
    /rank 3 keeps 100\.0 % of their squared change, /,
  );
  await writes(
    [
      at('teacher.safetensors'),
      '--lora',
      `${at('l.safetensors')}:0.5`,
      '--lora',
      `${at('l.safetensors')}:0.5`,
      '--names',
      'comfyui',
      '--dtype',
      'f32',
      '--out',
      at('m.safetensors'),
    ],
    /tensors in f32/,
  );
  const weights = await openWeights(at('m.safetensors'));
  assert.ok([...weights.entries.keys()].every((n) => n.startsWith('model.diffusion_model.')));
  await weights.close();
  const { params } = await loadDiT(at('m.safetensors'));
  for (const name of Object.keys(student)) assert.ok(largest(params[name]!, student[name]!) < 1e-4, name);
});

test('the transformer of a Wan2.1 folder in one file', async () => {
  const made = await writeFolder(at('wan'), 'diffusers', 'i2v');
  await writes([at('wan'), '--dtype', 'bf16', '--out', at('w.safetensors')], /tensors in bf16/);
  const [one, shards] = [await openWeights(at('w.safetensors')), await openWeights(at('wan/transformer'))];
  for (const name of Object.keys(made.dit.params))
    assert.equal(await one.read(name), await shards.read(diffusersDiT.theirs(name)[0]!), name);
  await one.close();
  await shards.close();
});

test('says in a line what does not go together', async () => {
  const wrong: [string[], RegExp][] = [
    [[at('student.safetensors'), '--names', 'kohya'], /kohya is for LoRAs: add --base$/],
    [[at('student.safetensors'), '--base', at('vae.safetensors')], /one of these is a VAE$/],
    [[at('d.safetensors'), '--lora', at('nothing')], /nothing: there is no such file$/],
  ];
  for (const [args, line] of wrong) {
    const { code, said } = await vpae(['export', ...args, '--out', at('x.safetensors')]);
    assert.ok(code);
    assert.is(said.length, 1, said.join('\n'));
    assert.match(said[0]!, line);
  }
});

test.run();

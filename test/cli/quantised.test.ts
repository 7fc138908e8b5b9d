/** Wan folders with a GGUF or scaled fp8 in the places of DiT and text encoder: sampled, with a LoRA, made records with and distilled. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { open } from '../../engine/runtime/device.ts';
import { openCheckpoint } from '../../model/files/checkpoint.ts';
import { saveLora } from '../../model/files/lora.ts';
import { openWeights } from '../../model/files/open.ts';
import { loraSpecs } from '../../model/lora.ts';
import { loadNetwork } from '../../model/pipeline/network.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { writeFolder } from '../model/folders.ts';
import { scrambled } from '../model/tiny.ts';
import { ADAPTERS, BRIEF, SIDE, writeClip } from './clips.ts';
import { vpae } from './run.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-quantised-'));
const at = (name: string): string => join(dir, name);
const SMALL = ['--size', '32x32', '--frames', '5', '--guidance-scale', '2'];

const most = (a: Buffer, b: Buffer): number => a.reduce((m, x, i) => Math.max(m, Math.abs(x - b[i]!)), 0);

async function pixels(args: readonly string[], steps = ['--steps', '2']): Promise<Buffer> {
  const { code, stderr } = await vpae(['sample', ...args, ...SMALL, ...steps]);
  assert.is(code, 0, stderr);
  return sharp(args.at(-1)).raw().toBuffer();
}

for (const layout of ['gguf', 'fp8'] as const)
  test(`${layout}: packed on the device, and the same video as its values give, with a LoRA and block by block`, async () => {
    const made = await writeFolder(at(layout), layout, 't2v');
    await saveLora(at(`${layout}.safetensors`), scrambled(loraSpecs(ditShapes(made.dit.config), 2)), {
      naming: 'comfyui',
      metadata: {},
    });
    const device = await open();
    const { dit, text } = await openCheckpoint(at(layout));
    const network = await loadNetwork(device, dit, {}, () => {});
    const types = new Set(Object.values(network.weights).map((t) => t.dtype));
    assert.ok(types.has(layout === 'gguf' ? 'q8_0' : 'f8_e4m3/64'), [...types].join());
    await network.free();
    await (await text.open()).close();
    const command = ['--model', at(layout), '--lora', `${at(`${layout}.safetensors`)}:0.5`, '--prompt', 'a cat'];
    const packed = await pixels([...command, '--out', at(`${layout}-packed.png`)]);
    const streamed = await pixels([...command, '--offload', '--out', at(`${layout}-streamed.png`)]);
    const values = await pixels([...command, '--dtype', 'f32', '--out', at(`${layout}-f32.png`)]);
    assert.is(packed.length, values.length);
    assert.ok(most(packed, values) <= 2, `${most(packed, values)} of 255`);
    assert.ok(most(packed, streamed) <= 2, `${most(packed, streamed)} of 255`);
  });

for (const [layout, kind] of [
  ['gguf', 't2v-a14b'],
  ['fp8', 'i2v-a14b'],
] as const)
  test(`${layout}, ${kind}: a LoRA for each expert rides on it, and gives the clip of the merged weights`, async () => {
    const from = at(kind);
    const made = await writeFolder(from, layout, kind);
    const ranks = { high: 2, low: 3 } as const;
    for (const [expert, rank] of Object.entries(ranks))
      await saveLora(at(`${kind}-${expert}.safetensors`), scrambled(loraSpecs(ditShapes(made.dit.config), rank)), {
        naming: 'comfyui',
        metadata: {},
      });
    const merged = at(`${kind}-merged`);
    cpSync(from, merged, { recursive: true });
    for (const expert of ['high', 'low'] as const) {
      const folder = join(merged, `${expert}_noise_model`);
      for (const file of readdirSync(folder)) if (file !== 'config.json') rmSync(join(folder, file));
      const lora = ['--lora', at(`${kind}-${expert}.safetensors`), '--dtype', 'f32'];
      const out = join(folder, 'diffusion_pytorch_model.safetensors');
      const { code, stderr } = await vpae(['export', from, '--expert', expert, ...lora, '--out', out]);
      assert.is(code, 0, stderr);
    }
    await sharp({ create: { width: 32, height: 32, channels: 3, background: '#a04020' } })
      .png()
      .toFile(at('first.png'));
    const told = ['--prompt', 'a cat', ...(kind === 'i2v-a14b' ? ['--image', at('first.png')] : [])];
    const loras = (['high', 'low'] as const).flatMap((e) => ['--lora', `${e}:${at(`${kind}-${e}.safetensors`)}`]);
    const four = ['--steps', '4']; // the last at least is the low-noise expert's
    const riding = await pixels(['--model', from, ...loras, ...told, '--out', at(`${kind}.png`)], four);
    const whole = await pixels(['--model', merged, '--dtype', 'f32', ...told, '--out', at(`${kind}-m.png`)], four);
    const bare = await pixels(['--model', from, loras[0]!, loras[1]!, ...told, '--out', at(`${kind}-b.png`)], four);
    assert.ok(most(riding, whole) <= 2, `${most(riding, whole)} of 255`);
    assert.ok(most(riding, bare) > 2, 'without its LoRA the low-noise expert makes another clip');
  });

mkdirSync(at('clips'));
await writeClip(at('clips/a.webp'), 6);
writeFileSync(at('clips/a.txt'), 'a cat');

for (const layout of ['gguf', 'fp8'] as const)
  test(`${layout}: records are made with it, and it teaches, block by block too`, async () => {
    const done = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await vpae(args);
      assert.is(code, 0, stderr);
    };
    const given = ['--model', at(layout), '--records', at(`${layout}-records`)];
    await done('data', 'make', at('clips'), ...given, '--size', `${SIDE}x${SIDE}`, '--frames', '5');
    const run = (name: string): string[] => ['distill', ...given, '--run', at(`${layout}-${name}`)];
    await done(...run('streamed'), ...ADAPTERS, '--offload');
    const lora = (name: string): string => at(`${layout}-${name}/student.lora.safetensors`);
    const sampled = ['--prompt', 'a cat', '--size', '32x32', '--frames', '5', '--out', at(`${layout}.png`)];
    await done('sample', '--model', at(layout), '--lora', lora('streamed'), ...sampled);
    if (layout === 'fp8') return;
    await done(...run('resident'), ...ADAPTERS);
    const tensors = (file: Buffer): Buffer => file.subarray(8 + Number(file.readBigUInt64LE()));
    const [streamed, resident] = ['streamed', 'resident'].map((name) => tensors(readFileSync(lora(name))));
    assert.ok(streamed!.equals(resident!));
    await done(...run('whole'), ...BRIEF);
    const whole = await openWeights(at(`${layout}-whole/student.safetensors`));
    assert.ok([...whole.entries.values()].every((t) => t.dtype === 'BF16'));
    await whole.close();
  });

test.run();

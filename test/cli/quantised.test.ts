/** Wan folders with a GGUF or scaled fp8 in the places of DiT and text encoder: sampled, with a LoRA, made records with and distilled. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
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
const SMALL = ['--size', '32x32', '--frames', '5', '--steps', '2', '--guidance-scale', '2'];

async function pixels(args: readonly string[]): Promise<Buffer> {
  const { code, stderr } = await vpae(['sample', ...args, ...SMALL]);
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
    const most = (a: Buffer, b: Buffer): number => a.reduce((m, x, i) => Math.max(m, Math.abs(x - b[i]!)), 0);
    assert.is(packed.length, values.length);
    assert.ok(most(packed, values) <= 2, `${most(packed, values)} of 255`);
    assert.ok(most(packed, streamed) <= 2, `${most(packed, streamed)} of 255`);
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

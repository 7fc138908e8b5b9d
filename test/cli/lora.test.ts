/** `--lora FILE:STRENGTH`: a strength is any number as numbers are written. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readLora, readLoras } from '../../cli/common/lora.ts';
import { saveLora } from '../../model/files/lora.ts';
import { loraSpecs } from '../../model/lora.ts';
import { ditShapes } from '../../model/wan/dit.ts';
import { scrambled, tinyDiT } from '../model/tiny.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-lora-'));
const shapes = ditShapes(tinyDiT());
const file = join(dir, 'style.safetensors');
await saveLora(file, scrambled(loraSpecs(shapes, 2)), { naming: 'comfyui' });
await saveLora(join(dir, 'odd:2'), scrambled(loraSpecs(shapes, 2)), { naming: 'comfyui' });
test.after(() => rmSync(dir, { recursive: true }));

test('strengths', async () => {
  for (const [end, scale] of [
    ['', 1],
    [':0.8', 0.8],
    [':1e-1', 0.1],
    [':5.', 5],
    ['=0.5', 0.5],
    [':-.5', -0.5],
    [':+2E0', 2],
  ] as const)
    assert.is((await readLora(file + end, shapes)).scale, scale, end);
  assert.is((await readLora(join(dir, 'odd:2'), shapes)).scale, 1, 'a file of that name');
  for (const [asked, said] of [
    [`${file}:strong`, /"strong" is no strength; it reads as .*style\.safetensors:0\.8/],
    [`${file}:`, /"" is no strength/],
    [`${file}:1e999`, /its strength must be a finite number/],
    [`${dir}/none.safetensors:1`, /none\.safetensors: there is no such file/],
  ] as const) {
    const error = await readLora(asked, shapes).catch((e: Error) => e);
    assert.match((error as Error).message, said);
  }
});

test('of two experts each file says which it is for, of one network none does', async () => {
  const dit = { config: tinyDiT(), shapes, open: () => Promise.reject(new Error('not asked for')) };
  const loras = await readLoras([`high:${file}:0.5`, `low:${file}`, `both:${file}`], { dit, low: dit });
  assert.equal(
    loras.map(({ expert, scale }) => [expert, scale]),
    [
      ['high', 0.5],
      ['low', 1],
      [undefined, 1],
    ],
  );
  for (const [asked, low, said] of [
    [file, dit, /which of the two experts is it for\? high:.*low:.*both:/],
    [`low:${file}`, undefined, /this model is one network, leave low: out/],
  ] as const) {
    const error = await readLoras([asked], { dit, ...(low && { low }) }).catch((e: Error) => e);
    assert.match((error as Error).message, said);
  }
});

test.run();

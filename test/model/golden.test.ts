/** The project on a device against the reference tensors, where their folder is at hand. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { deviceExecutor, type Executor } from '../golden/executor.ts';
import { runFolder } from '../golden/index.ts';

const folder = (name: string): string => fileURLToPath(new URL(`../../../shared/${name}`, import.meta.url));
const [wan21, wan22] = [folder('golden'), folder('golden2')];

async function failures(path: string, executor: Executor, only: readonly string[] = ['']): Promise<string> {
  const failed: string[] = [];
  for (const part of only)
    for await (const { name, status, note } of runFolder(path, executor, part))
      if (status === 'fail') failed.push(`${name}: ${note}`);
  return failed.join('\n');
}

const half = await deviceExecutor('f16').catch(() => undefined);
const check = (possible: boolean, name: string, body: () => Promise<void>): void =>
  possible ? test(name, body) : test.skip(name, body);
check(existsSync(wan21), 'every reference case', async () =>
  assert.is(await failures(wan21, await deviceExecutor()), ''),
);
check(existsSync(wan22), 'every reference case of Wan2.2 and of LoRAs', async () =>
  assert.is(await failures(wan22, await deviceExecutor(), ['wan-keys', 'dit22', 'vae22', 'pipe22', 'lora ']), ''),
);
for (const path of [wan21, wan22])
  check(existsSync(path) && half !== undefined, `networks with half-precision operands, ${path}`, async () =>
    assert.is(await failures(path, half!), ''),
  );
/** Units in plain WGSL: they round what native ones round. */
const UNIT = { operands: 'f16', M: 8, N: 8, K: 8, lanes: 32, multiple: 32, emulated: true } as const;
check(
  existsSync(wan21) && half !== undefined,
  'image-to-video and its gradients on emulated matrix units',
  async () => {
    const units = await deviceExecutor('f16', { tier: 'tiled', subgroup: 0, units: [UNIT] });
    assert.is(await failures(wan21, units, ['dit_i2v']), '');
  },
);

test.run();

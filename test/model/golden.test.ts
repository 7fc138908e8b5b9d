/** The project on a device against the reference tensors, where their folder is at hand. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { deviceExecutor, oracle, type Executor } from '../golden/executor.ts';
import { runFolder } from '../golden/index.ts';

const shared = (name: string): string => fileURLToPath(new URL(`../../../shared/${name}`, import.meta.url));
const folder = shared('golden');
const later = shared('golden2');

async function failures(executor: Executor, from = folder, only = ''): Promise<string> {
  const failed: string[] = [];
  for await (const { name, status, note } of runFolder(from, executor, only))
    if (status === 'fail') failed.push(`${name}: ${note}`);
  return failed.join('\n');
}

const half = await deviceExecutor('f16 forward').catch(() => undefined);
const here = existsSync(folder);
const check = (possible: boolean, name: string, body: () => Promise<void>): void =>
  possible ? test(name, body) : test.skip(name, body);
check(here, 'every reference case', async () => assert.is(await failures(await deviceExecutor()), ''));
check(here && half !== undefined, 'every network with half-precision operands, as in training', async () =>
  assert.is(await failures(half!), ''),
);
check(existsSync(later), 'every LoRA of the second set', async () =>
  assert.is(await failures(oracle, later, 'lora '), ''),
);

test.run();

/** The project on a device against the reference tensors, where their folder is at hand. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { deviceExecutor } from '../golden/executor.ts';
import { runFolder } from '../golden/index.ts';

const folder = fileURLToPath(new URL('../../../shared/golden', import.meta.url));

if (existsSync(folder)) {
  test('every reference case', async () => {
    const failures: string[] = [];
    for await (const { name, status, note } of runFolder(folder, await deviceExecutor())) if (status === 'fail') failures.push(`${name}: ${note}`);
    assert.is(failures.length, 0, failures.join('\n'));
  });
} else {
  test.skip('every reference case', () => {});
}

test.run();

/** All that a run trains, with every kernel in parts: the same weights to the bit. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const CHILD = fileURLToPath(new URL('./cutschild.ts', import.meta.url));

/** In a process of its own: lavapipe maps memory for each pipeline, and two runs come to as many maps as Linux lets a process have. */
async function trained(...limit: string[]): Promise<{ files: Record<string, Buffer>; dispatches: number }> {
  const out = mkdtempSync(join(tmpdir(), 'vpae-'));
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', CHILD, out, ...limit]);
  const names = readdirSync(out).filter((f) => f.endsWith('.safetensors'));
  return {
    files: Object.fromEntries(names.map((f) => [f, readFileSync(join(out, f))])),
    dispatches: Number(/(\d+) dispatches/.exec(stdout)?.[1]),
  };
}

test('a VAE, a teacher and both phases of distillation', async () => {
  const whole = await trained();
  const parts = await trained('1e-6');
  assert.ok(Object.keys(whole.files).length >= 3, Object.keys(whole.files).join());
  assert.ok(parts.dispatches > 2 * whole.dispatches, `${whole.dispatches} dispatches, ${parts.dispatches} in parts`);
  assert.equal(Object.keys(parts.files), Object.keys(whole.files));
  for (const [name, bytes] of Object.entries(whole.files)) assert.ok(parts.files[name]!.equals(bytes), name);
});

test.run();

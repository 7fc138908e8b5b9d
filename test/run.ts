/** All tests: `npm test`, or `npm test -- PATTERN` for the files whose path matches. Ends with `N passed, N failed`. */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { availableParallelism } from 'node:os';
import { openAdapter } from '../engine/host/adapter.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const pattern = new RegExp(process.argv[2] ?? '');
const tsx = createRequire(import.meta.url).resolve('tsx');
const files = (readdirSync(join(root, 'test'), { recursive: true }) as string[])
  .filter((f) => f.endsWith('.test.ts') && pattern.test(f))
  .sort();

// Once, before the files race for it: this may fetch a software driver.
const { info } = await openAdapter();
console.log(`${info.name} (${info.driver}): ${info.reason}; ${files.length} test files`);

let passed = 0;
let failed = 0;
const queue = [...files];

function runFile(file: string): Promise<void> {
  const from = performance.now();
  return new Promise((done) => {
    let text = '';
    const child = spawn(process.execPath, ['--import', tsx, join(root, 'test', file)], {
      cwd: root,
      env: { ...process.env, FORCE_COLOR: '0', NO_COLOR: '1' },
    });
    child.stdout.on('data', (d: Buffer) => {
      text += d.toString();
    });
    child.stderr.on('data', (d: Buffer) => {
      text += d.toString();
    });
    child.on('close', (code) => {
      const total = Number(/Total:\s+(\d+)/.exec(text)?.[1] ?? 0);
      const ok = Number(/Passed:\s+(\d+)/.exec(text)?.[1] ?? 0);
      const bad = Math.max(total - ok, code === 0 ? 0 : 1);
      passed += ok;
      failed += bad;
      const seconds = ((performance.now() - from) / 1000).toFixed(1);
      console.log(`${bad ? 'FAIL' : 'ok  '} ${file}  ${ok}/${total}  ${seconds} s`);
      if (bad) console.log(text);
      done();
    });
  });
}

const workers = Array.from({ length: Math.min(2, availableParallelism()) }, async () => {
  for (let file = queue.shift(); file; file = queue.shift()) await runFile(file);
});
await Promise.all(workers);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed || !passed ? 1 : 0;

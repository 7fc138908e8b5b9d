/** All tests: `npm test`, or `npm test -- PATTERN` for the files whose path matches. Ends with `N passed, N failed`. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { availableParallelism } from 'node:os';
import { openAdapter } from '../engine/host/adapter.ts';
import { runFile } from './runner.ts';

const folder = fileURLToPath(new URL('.', import.meta.url));
const pattern = new RegExp(process.argv[2] ?? '');
const files = (readdirSync(folder, { recursive: true }) as string[])
  .filter((f) => f.endsWith('.test.ts') && pattern.test(f))
  .sort();

// Once, before the files race for it: this may fetch a software driver.
const { info } = await openAdapter();
console.log(`${info.name} (${info.driver}): ${info.reason}; ${files.length} test files`);

let passed = 0;
let failed = 0;
const queue = [...files];

const workers = Array.from({ length: Math.min(2, availableParallelism()) }, async () => {
  for (let file = queue.shift(); file; file = queue.shift()) {
    const { passed: ok, failed: bad, total, seconds, text, death } = await runFile(join(folder, file));
    passed += ok;
    failed += bad;
    const how = death ? `  ${death}` : '';
    console.log(`${bad ? 'FAIL' : 'ok  '} ${file}  ${ok}/${total}  ${seconds.toFixed(1)} s${how}`);
    if (bad) console.log(text);
  }
});
await Promise.all(workers);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed || !passed ? 1 : 0;

/**
 * Checks the project against a folder of reference tensors:
 * `node --import tsx test/golden.ts DIR [--device | --oracle] [part of a case's name]`. Exits with 1 if a case fails.
 */
import process from 'node:process';
import { deviceExecutor, oracle } from './golden/executor.ts';
import { runFolder } from './golden/index.ts';

const [folder, ...rest] = process.argv.slice(2);
const only = rest.filter((a) => !a.startsWith('--')).join(' ');
if (!folder || rest.some((a) => a.startsWith('--') && a !== '--device' && a !== '--oracle')) {
  console.error('usage: node --import tsx test/golden.ts DIR [--device | --oracle] [part of a case\'s name]');
  process.exit(2);
}
const executor = rest.includes('--oracle') ? oracle : await deviceExecutor();
console.log(`${folder} on ${executor.name}`);
const counts = { pass: 0, fail: 0, skip: 0 };
for await (const { name, status, note, seconds } of runFolder(folder, executor, only)) {
  counts[status]++;
  console.log(`${status} ${name} (${seconds.toFixed(1)} s): ${note}`);
}
console.log(`${counts.pass} passed, ${counts.fail} failed, ${counts.skip} skipped`);
process.exit(counts.fail ? 1 : 0);

/**
 * Checks the project against a folder of reference tensors:
 * `node --import tsx test/golden.ts DIR [--device | --oracle] [--operands f16] [part of a case's name]`. Exits with 1 if a case fails.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { deviceExecutor, oracle } from './golden/executor.ts';
import { runFolder } from './golden/index.ts';

function parse() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        device: { type: 'boolean' },
        oracle: { type: 'boolean' },
        operands: { type: 'string', default: 'f32' },
      },
    });
    const { operands } = values;
    if (positionals.length && (operands === 'f32' || (operands === 'f16' && !values.oracle)))
      return {
        folder: positionals[0]!,
        only: positionals.slice(1).join(' '),
        operands,
        oracle: values.oracle,
      } as const;
  } catch {
    /* an unknown option */
  }
  console.error(
    "usage: node --import tsx test/golden.ts DIR [--device | --oracle] [--operands f16] [part of a case's name]",
  );
  return process.exit(2);
}

const { folder, only, operands, oracle: inDoubles } = parse();
const executor = inDoubles ? oracle : await deviceExecutor(operands);
console.log(`${folder} on ${executor.name}`);
const counts = { pass: 0, fail: 0, skip: 0 };
for await (const { name, status, note, seconds } of runFolder(folder, executor, only)) {
  counts[status]++;
  console.log(`${status} ${name} (${seconds.toFixed(1)} s): ${note}`);
}
console.log(`${counts.pass} passed, ${counts.fail} failed, ${counts.skip} skipped`);
process.exit(counts.fail ? 1 : 0);

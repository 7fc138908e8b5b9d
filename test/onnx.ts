/**
 * Checks the engine against ONNX's operator cases (Debian: libonnx-testdata):
 * `node --import tsx test/onnx.ts [PATTERN] [--oracle]`. PATTERN is a regular expression over names as `node/test_abs`. Exits with 1 if a
 * case fails.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import { deviceExecutor, oracle } from './golden/executor.ts';
import { cases, DATA, installed, runCase, type Result } from './onnx/run.ts';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { oracle: { type: 'boolean' } } });
if (!installed()) {
  console.error(`${DATA} is not there: install Debian's libonnx-testdata`);
  process.exit(2);
}
const executor = values.oracle ? oracle : await deviceExecutor();
const pattern = new RegExp(positionals[0] ?? '');
const results: Result[] = [];
for (const name of cases().filter((n) => pattern.test(n))) {
  const result = await runCase(name, executor);
  if (result.status === 'failed' || positionals.length) console.log(`${result.status} ${name}: ${result.note}`);
  results.push(result);
}

const count = (list: readonly Result[], status: Result['status']): number =>
  list.filter((r) => r.status === status).length;
const byOp = new Map<string, Result[]>();
for (const r of results) byOp.set(r.op, [...(byOp.get(r.op) ?? []), r]);
console.log(`${DATA} on ${executor.name}: operator, passed, failed, unsupported`);
for (const [op, list] of [...byOp].sort(([a], [b]) => (a < b ? -1 : 1))) {
  const why = new Set(list.filter((r) => r.status === 'unsupported').map((r) => r.note));
  console.log(
    [
      op.padEnd(28),
      ...(['passed', 'failed', 'unsupported'] as const).map((s) => String(count(list, s)).padStart(4)),
      ' ',
      [...why].join('; '),
    ]
      .join(' ')
      .trimEnd(),
  );
}
console.log(
  `${results.length} cases: ${count(results, 'passed')} passed, ${count(results, 'failed')} failed, ${count(results, 'unsupported')} unsupported`,
);
process.exit(count(results, 'failed') ? 1 : 0);

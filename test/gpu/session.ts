/**
 * All that a GPU can tell in one call of a few minutes, in one file: `node --import tsx test/gpu/session.ts [--minutes 10] [--out FILE]
 * [--golden FOLDER]`. Its own description, tests, speed beside PyTorch's, tuned kernels, steps of a 1.3B block. docs/gpus.md says what
 * becomes of it. The file is whole after each part; a part that fails or takes too long does not end the rest.
 */
import { cpus } from 'node:os';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { ownFile } from '../../cli/common/root.ts';
import { readText } from '../../cli/common/text.ts';
import { writeWhole } from '../../train/loop/files.ts';
import { runParts, type Outcome, type Part } from './parts.ts';
import { BENCH, blockName, counts, rowOf, TESTS, type Session } from './row.ts';

/** The largest share of the minutes that the adapter's own description may take: a software driver may have to be fetched. */
const FIRST = 0.3;
/** Of a part's time that is spent on measuring; the rest opens the device and plans. */
const MEASURING = 0.7;

const vpae = (...args: string[]): string[] => ['cli/main.ts', ...args];
const whole = (seconds: number): string => String(Math.max(1, Math.floor(MEASURING * seconds)));

interface Block {
  size: string;
  frames: number;
  job: 'sample' | 'teacher';
  precision: 'f32' | 'f16';
}

/** A block of the smallest released model: what its steps take beside it is 29 more of it. */
const block = ({ size, frames, job, precision }: Block): Part => ({
  name: blockName(job, precision),
  share: 1,
  run: (seconds) =>
    [
      'cli/main.ts bench steps --json --preset wan2.1-t2v-1.3b --layers 1',
      `--size ${size} --frames ${frames} --job ${job} --budget ${whole(seconds)}`,
      job === 'sample' ? `--precision ${precision}` : `--set run.precision=${precision}`,
    ].flatMap((words) => words.split(' ')),
});

/** @param gpu whether there is one: a processor gets work that it can do */
function partsOf(gpu: boolean, golden: string | undefined): Part[] {
  const size = gpu ? { size: '832x480', frames: 81 } : { size: '64x64', frames: 5 };
  return [
    { name: 'doctor', share: 0.5, run: () => vpae('doctor') },
    { name: TESTS[0], share: 4, run: () => ['test/run.ts', '^engine/'] },
    { name: TESTS[1], share: 2, run: () => ['test/run.ts', '^kernels/'] },
    {
      name: TESTS[2],
      share: 2,
      run: golden === undefined ? { not: '--golden names no folder' } : () => ['test/golden.ts', golden, '--device'],
    },
    { name: BENCH, share: 4, run: () => vpae('bench', '--vs', '--json') },
    {
      name: 'tune',
      share: 3,
      run: (seconds) =>
        vpae('tune', '--json', '--preset', gpu ? 'wan2.1-t2v-1.3b' : 'digits', '--seconds', whole(seconds)),
    },
    block({ ...size, job: 'sample', precision: 'f32' }),
    block({ ...size, job: 'sample', precision: 'f16' }),
    block({ ...size, job: 'teacher', precision: 'f32' }),
    block({ ...size, job: 'teacher', precision: 'f16' }),
  ];
}

function parse() {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: 'string', default: '10' },
        out: { type: 'string', default: 'gpu-session.json' },
        golden: { type: 'string' },
      },
    });
    const minutes = Number(values.minutes);
    if (minutes > 0) return { ...values, minutes };
  } catch {
    // an unknown option
  }
  console.error(
    'usage: node --import tsx test/gpu/session.ts [--minutes 10] [--out gpu-session.json] [--golden FOLDER]',
  );
  return process.exit(2);
}

const { minutes, out, golden } = parse();
const until = performance.now() + 60_000 * minutes;
const { version } = JSON.parse(readText(ownFile('package.json'))) as { version: string };
const parts: Outcome[] = [];
/** What `doctor --json` says; a row of test/devices/table.ts takes its `adapter` as it stands. */
let described: (Session['described'] & { info: { kind: string } }) | undefined;

function keep(outcome: Outcome): void {
  parts.push(outcome);
  const report = {
    version,
    began: new Date(Date.now() - performance.now()).toISOString(),
    minutes,
    node: process.version,
    processor: `${cpus().length} of ${cpus()[0]?.model ?? 'an unknown kind'}`,
    described,
    row: rowOf({ described, parts }),
    parts,
  };
  writeWhole(out, `${JSON.stringify(report, undefined, 1)}\n`);
  const { ok, name, seconds, reason } = outcome;
  const said = [reason, counts(outcome)].filter(Boolean).join(', ');
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}, ${seconds.toFixed(0)} s${said && `: ${said}`}`);
}

const first: Part = { name: 'description', share: 1, run: () => vpae('doctor', '--json') };
await runParts([first], performance.now() + FIRST * 60_000 * minutes, (outcome) => {
  described = outcome.result as typeof described;
  keep(outcome);
});
await runParts(partsOf(described?.info.kind === 'gpu', golden), until, keep);
console.log(
  `${rowOf({ described, parts })}\n${parts.filter((p) => p.ok).length} of ${parts.length} parts; all is in ${out}`,
);
process.exit(parts.every((p) => p.ok) ? 0 : 1);

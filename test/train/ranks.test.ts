/** Several ranks end in the bits of one process that takes the same micro-batches, and all of them end when one does. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { turns } from '../../train/loop/accumulate.ts';
import { loadPreset } from '../../train/presets/index.ts';
import { cutAsBegun, cutFor, microBatches } from '../../train/ranks/cut.ts';
import { sentBytes, updateSeconds } from '../../train/ranks/model.ts';
import { launchedBy } from '../../train/ranks/mpi.ts';
import { partsOf } from '../../train/ranks/sums.ts';
import { finished, onSeveral, ranked, ROOT, type Ended } from './ranks.ts';

const dir = mkdtempSync(join(tmpdir(), 'vpae-ranks-'));
test.after(() => rmSync(dir, { recursive: true, force: true }));
/** Of a preset that have batches. */
const SECTIONS = ['trainVae', 'teacher', 'priming', 'equilibrium', 'baselines.consistency', 'baselines.meanflow'];

test('who started a process is known by what it left in the environment', () => {
  assert.is(launchedBy({}), undefined);
  assert.is(launchedBy({ OMPI_COMM_WORLD_SIZE: '2' }), 'open mpi');
  assert.is(launchedBy({ OMPI_COMM_WORLD_SIZE: '1' }), undefined);
  assert.is(launchedBy({ PMI_SIZE: '2' }), 'mpich');
  assert.is(launchedBy({ SLURM_STEP_NUM_TASKS: '8' }), 'slurm');
  assert.is(launchedBy({ SLURM_NTASKS: '8' }), undefined, 'the script of a job, which srun has not started');
});

test('batches are cut into a multiple of what was asked for, and of the ranks', () => {
  assert.is(microBatches({ batch: 16, accumulate: 1 }, 2), 2);
  assert.is(microBatches({ batch: 24, accumulate: 2 }, 3), 6);
  assert.is(microBatches({ batch: 16, accumulate: 8 }, 2), 8);
  assert.is(microBatches({ batch: 16, accumulate: 1 }, 3), undefined);
  assert.equal(
    JSON.stringify(cutFor(loadPreset('digits'), 2)),
    JSON.stringify(
      loadPreset(
        'digits',
        SECTIONS.map((s) => `${s}.accumulate=2`),
      ),
    ),
  );
});

test('every micro-batch falls to one rank, and the last round to all', () => {
  for (const [accumulate, size] of [
    [4, 2],
    [3, 2],
    [2, 4],
    [8, 8],
  ] as const) {
    const all = Array.from({ length: size }, (_, rank) => turns({ batch: 24, accumulate }, 5, { rank, size }));
    const taken = all.flat().filter(({ rates }) => rates.micro!.share);
    assert.equal(
      taken.map(({ at }) => at).sort((a, b) => a - b),
      Array.from({ length: accumulate }, (_, i) => 5 * accumulate + i),
    );
    for (const own of all)
      assert.equal(
        own.map(({ rates }) => rates.micro!.last),
        own.map((_, i) => Number(i === own.length - 1)),
      );
    for (const own of all) assert.is(own.length, Math.ceil(accumulate / size));
  }
  assert.equal(
    turns({ batch: 4, accumulate: 1 }, 3),
    [{ at: 3, rates: {} }],
    'one process alone is told nothing of it',
  );
});

test('parts cover a tensor and begin where a kernel may bind', () => {
  for (const [size, ranks] of [
    [1000, 3],
    [64, 4],
    [3, 2],
    [4096, 8],
  ] as const) {
    const parts = partsOf(size, ranks);
    assert.is(
      parts.reduce((a, b) => a + b),
      size,
    );
    parts.slice(0, -1).reduce((at, n) => (assert.is((at + n) % 64 === 0 || at + n === size, true), at + n), 0);
  }
});

test('an update takes as long as its parts, one micro-batch added up while the next is computed', () => {
  const rates = { read: 10, write: 20, link: 5, add: 40 };
  const update = { ranks: 2, accumulate: 4, bytes: 40, compute: 3 };
  assert.is(sentBytes(update), 3 * 20); // two rounds and the sums, half of them each
  // A round: 4 s to the host, 4 to the other rank, 1 to add; the sums: 4 s to all, 2 to the device.
  assert.is(updateSeconds(update, rates), 3 + 9 + 9 + 6);
  assert.is(updateSeconds({ ...update, compute: 30 }, rates), 30 + 30 + 9 + 6);
  assert.is(updateSeconds({ ...update, ranks: 1 }, rates), 12);
  assert.is(sentBytes({ ...update, ranks: 1 }), 0);
});

test('a run goes on with the micro-batches that it began with', async () => {
  const p = loadPreset('digits');
  const folder = join(dir, 'begun');
  mkdirSync(folder);
  const as = async (begun: boolean) =>
    (await cutAsBegun(p, { folder, job: 'teacher', begun: () => begun })).teacher.accumulate;
  assert.is(await as(false), 1);
  writeFileSync(join(folder, 'ranks.json'), '{"teacher":4}');
  assert.is(await as(true), 4, 'on one process too');
  writeFileSync(join(folder, 'ranks.json'), '{"teacher":0}');
  await as(true).then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /^\[ranks\] .*ranks\.json is damaged \(/),
  );
});

test('what MPICH has started is one line', async () => {
  const { code, said } = await alone({ PMI_SIZE: '2', PMI_RANK: '0' });
  assert.is(code, 1);
  assert.match(said.at(-1)!, /^vpae: \[mpi\] this was started by MPICH's mpiexec, .*: install Open MPI/);
});

const TRAIN = ['train', 'vae', '--preset', 'digits-test', '--set', 'run.sampleEvery=0'];

/** The command without a launcher. */
function alone(env: Record<string, string>): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--import', 'tsx', 'cli/main.ts', ...TRAIN, '--run', join(dir, 'alone')], {
      cwd: ROOT,
      env: { ...process.env, DEBUG: '', ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.on('data', (d: Buffer) => (stderr += d.toString()));
    child.on('close', (code) =>
      resolve({ code, stdout: '', stderr, said: stderr.split('\n').filter((l) => l.startsWith('vpae: ')) }),
    );
  });
}

onSeveral('two ranks and one process with accumulate=2 end in the same bits, logs included', async () => {
  const child = 'test/train/rankschild.ts';
  const parts = 'vae,teacher,vpae';
  const [two, one] = ['two', 'one'].map((name) => join(dir, name)) as [string, string];
  for (const folder of [two, one]) mkdirSync(folder);
  const cut = SECTIONS.map((s) => `${s}.accumulate=2`);
  await finished(2, [child, two, parts]);
  await finished(1, [child, one, parts, ...cut]);
  for (const name of ['vae', 'teacher', 'student'])
    assert.ok(
      readFileSync(join(two, `${name}.safetensors`)).equals(readFileSync(join(one, `${name}.safetensors`))),
      name,
    );
  const log = (folder: string, job: string) =>
    readFileSync(join(folder, job, 'metrics.jsonl'), 'utf8').replaceAll(/"seconds":[\d.]+/g, '');
  for (const job of ['vae', 'teacher', 'priming', 'equilibrium']) assert.is(log(two, job), log(one, job), job);
});

onSeveral('a command that two ranks began goes on alone to the same bits', async () => {
  const run = join(dir, 'begun by two');
  let poll: NodeJS.Timeout | undefined;
  const { code, said } = await ranked(2, [...TRAIN, '--run', run], {
    watch(_, launcher) {
      poll ??= setInterval(() => {
        if (!existsSync(join(run, 'vae', 'checkpoint-00000002.safetensors'))) return;
        clearInterval(poll);
        process.kill(launcher, 'SIGINT');
      }, 20);
    },
  });
  clearInterval(poll);
  if (code !== 0)
    assert.equal(said, [`vpae: stopped; ${run} is as it was saved last, the same command goes on from there`]);
  assert.is((await ranked(1, [...TRAIN, '--run', run])).code, 0);
  const [together, one] = [run, join(dir, 'one')].map((folder) => readFileSync(join(folder, 'vae.safetensors')));
  assert.ok(together!.equals(one!), 'as the test before made it on one process with accumulate=2');
});

onSeveral('a command that runs in one process is refused on several, in one line', async () => {
  for (const words of [['eval'], ['train', 'classifier']]) {
    const { code, said } = await ranked(2, words);
    assert.is(code, 2);
    assert.equal(said, [
      `vpae: ${words.join(' ')} runs in one process, and mpirun started several: only train vae|teacher, distill, ablate and bench reduce share their work out`,
    ]);
  }
});

onSeveral('what every rank finds wrong is said once', async () => {
  const { code, said } = await ranked(3, [...TRAIN, '--run', join(dir, 'three')]);
  assert.is.not(code, 0);
  assert.equal(said, [
    'vpae: [vae] a batch of 2 clips in micro-batches of 2 does not go round 3 ranks: take 1 of them, or a run that begins with as many as divide 2',
  ]);
});

test.run();

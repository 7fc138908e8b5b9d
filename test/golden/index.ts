/** Runs a whole folder of reference tensors, case by case. */
import { clipCase } from './clip.ts';
import { ditCase } from './dit.ts';
import { Skip, type Executor } from './executor.ts';
import { Fixture, readManifest, type Case, type FileEntry, type Verdict } from './format.ts';
import { halfCases, keyCases, loaderCases } from './loader.ts';
import { longCase } from './long.ts';
import { loraCase } from './lora.ts';
import { nonfiniteCase } from './nonfinite.ts';
import { opCase } from './ops.ts';
import { eightBitCase, encoderCase, ggufCase, scaledCase } from './quant.ts';
import { diffusersTables, flowCase, schedulerCase } from './schedulers.ts';
import { a14bCase, ti2vCase } from './pipelines.ts';
import { bucketCase, umt5Case } from './umt5.ts';
import { vae22Case, vaeCase } from './vae.ts';

const RUNNERS: Record<string, (fixture: Fixture, c: Case, executor: Executor) => Promise<Verdict>> = {
  wan_dit_t2v: ditCase,
  wan_dit_i2v: ditCase,
  wan_vae: vaeCase,
  wan22_dit_ti2v: ditCase,
  wan22_dit_i2v: ditCase,
  wan22_vae: vae22Case,
  wan22_pipeline_ti2v: ti2vCase,
  wan22_pipeline_a14b: a14bCase,
  umt5_encoder: umt5Case,
  clip_visual: clipCase,
  ops: opCase,
  lora: loraCase,
  gguf_quant: ggufCase,
  fp8: eightBitCase,
  fp8_scaled: scaledCase,
  fp8_umt5: encoderCase,
  flow_schedulers: schedulerCase,
  hard_long_reduction: longCase,
  hard_nonfinite: nonfiniteCase,
};

/** Expected tensors outside the cases of their file, by how their names begin. */
const TABLES: { name: string; begins: string; run: (fixture: Fixture, executor: Executor) => Promise<Verdict> }[] = [
  { name: 'train', begins: 'train/', run: flowCase },
  { name: 'diffusers', begins: 'diffusers_', run: diffusersTables },
  { name: 'buckets', begins: 'buckets/', run: bucketCase },
];

/**
 * Half-precision operands are judged on whole networks, by the 2-norm alone: rounding
 * linears and attention moves their outputs by up to 7e-3.
 */
const HALF_KINDS = [
  'wan_dit_t2v',
  'wan_dit_i2v',
  'wan22_dit_ti2v',
  'wan22_dit_i2v',
  'wan_vae',
  'umt5_encoder',
  'clip_visual',
];
const HALF_REL_L2 = 2e-2;
const halved = (entry: FileEntry): FileEntry => ({
  ...entry,
  tensors: Object.fromEntries(
    Object.entries(entry.tensors).map(([name, t]) => [
      name,
      t.rel_l2_tol ? { ...t, atol: Infinity, rel_l2_tol: HALF_REL_L2 } : t,
    ]),
  ),
});

export interface Result extends Verdict {
  name: string;
  seconds: number;
}

async function* timed(cases: AsyncIterable<[string, Verdict]>): AsyncGenerator<Result> {
  let start = performance.now();
  for await (const [name, verdict] of cases) {
    yield { name, ...verdict, seconds: (performance.now() - start) / 1000 };
    start = performance.now();
  }
}

const guarded = (work: () => Promise<Verdict>): Promise<Verdict> =>
  work().catch((error: Error): Verdict =>
    error instanceof Skip
      ? { status: 'skip', note: error.message }
      : { status: 'fail', note: error.stack ?? error.message },
  );

async function* fileCases(
  folder: string,
  name: string,
  entry: FileEntry,
  executor: Executor,
  only: string,
): AsyncGenerator<[string, Verdict]> {
  const wanted = (label: string) => label.includes(only);
  // Files of kind `hard` differ from each other, so their name decides.
  const kind = entry.kind === 'hard' ? name : entry.kind;
  const runner = RUNNERS[kind];
  if (name === 'hard_half') {
    if (wanted(name))
      for await (const [label, verdict] of halfCases(folder, entry)) yield [`${name} ${label}`, verdict];
    return;
  }
  const cases = (entry.cases ?? []).filter((c) => wanted(`${name} ${c.name}`));
  if (!runner) {
    for (const c of cases) yield [`${name} ${c.name}`, { status: 'skip', note: `files of kind ${kind} are unknown` }];
    return;
  }
  const outside = Object.keys(entry.tensors).filter((n) => !entry.cases?.some((c) => n.startsWith(`${c.name}/`)));
  const tables = TABLES.filter((t) => outside.some((n) => n.startsWith(t.begins)) && wanted(`${name} ${t.name}`));
  if (!cases.length && !tables.length) return;
  let fixture: Fixture;
  try {
    fixture = await Fixture.read(folder, entry);
  } catch (error) {
    yield [name, { status: 'fail', note: (error as Error).message }];
    return;
  }
  for (const c of cases) yield [`${name} ${c.name}`, await guarded(() => runner(fixture, c, executor))];
  for (const t of tables) yield [`${name} ${t.name}`, await guarded(() => t.run(fixture, executor))];
}

/**
 * Every case of the folder whose label contains `only`: loader, tables of names, then
 * file by file; with half-precision operands the networks only.
 */
export async function* runFolder(folder: string, executor: Executor, only = ''): AsyncGenerator<Result> {
  const manifest = await readManifest(folder);
  if (executor.operands !== 'f32') {
    for (const [name, entry] of Object.entries(manifest.files))
      if (HALF_KINDS.includes(entry.kind)) yield* timed(fileCases(folder, name, halved(entry), executor, only));
    return;
  }
  for (const source of [loaderCases(folder, manifest), keyCases(folder)]) {
    for await (const result of timed(source)) if (result.name.includes(only)) yield result;
  }
  for (const [name, entry] of Object.entries(manifest.files))
    yield* timed(fileCases(folder, name, entry, executor, only));
}

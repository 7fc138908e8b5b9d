/** Reference cases of LoRA files: weights with one or several of them merged in, and files that must be refused in one line. */
import { join } from 'node:path';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { loadLora, mergeFiles, type Lora } from '../../model/files/lora.ts';
import { WeightsError } from '../../model/files/stored.ts';
import { ditCase } from './dit.ts';
import type { Executor } from './executor.ts';
import { Fixture, judge, type Case, type Verdict } from './format.ts';

/** Of the model, or of one of two experts: then `under` stands before its weights' names. */
async function baseOf(fixture: Fixture, expert: string | undefined) {
  if (expert === undefined) return { under: '', weights: (await fixture.other('base')).weights() };
  const under = `${expert}.`;
  const all = Object.entries((await fixture.other('experts')).weights());
  const own = all.filter(([name]) => name.startsWith(under)).map(([name, t]) => [name.slice(under.length), t] as const);
  return { under, weights: Object.fromEntries(own) };
}

const OUTPUT = 'out/y.0';
/** Of the base: its inputs are those of the output. */
const MODEL = 'c0_image';

/** What is expected of weights. */
const weightsOf = ({ folder, entry, tensors }: Fixture): Fixture => {
  const own = Object.entries(entry.tensors).filter(([name]) => !name.endsWith(`/${OUTPUT}`));
  return new Fixture(folder, { ...entry, tensors: Object.fromEntries(own) }, tensors);
};

/** The base's own case with merged weights, of which the output alone is expected. */
async function rerun(fixture: Fixture, { name }: Case, merged: Record<string, HostTensor>): Promise<[Fixture, Case]> {
  const { folder, entry, tensors } = await fixture.other('base');
  const [from, to] = [`${name}/${OUTPUT}`, `${MODEL}/${OUTPUT}`];
  const weights = Object.entries(merged).map(([out, t]) => [out.slice('out/'.length), t] as const);
  const given = Object.entries(entry.tensors).filter(([, { role }]) => role !== 'expected');
  return [
    new Fixture(
      folder,
      { ...entry, tensors: { ...Object.fromEntries(given), [to]: fixture.entry.tensors[from]! } },
      new Map([...tensors, ...weights, [to, fixture.get(from)]]),
    ),
    entry.cases.find((c) => c.name === MODEL)!,
  ];
}

async function refused(path: string, shapes: Parameters<typeof loadLora>[1]): Promise<Verdict> {
  try {
    await loadLora(path, shapes);
    return { status: 'fail', note: 'it was read' };
  } catch (error) {
    const { message } = error as Error;
    return { status: error instanceof WeightsError && !message.includes('\n') ? 'pass' : 'fail', note: message };
  }
}

export async function loraCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const { under, weights } = await baseOf(fixture, c['expert'] as string | undefined);
  const shapes = Object.fromEntries(Object.entries(weights).map(([name, { shape }]) => [name, shape]));
  const paths = (c['files'] as string[]).map((file) => join(fixture.folder, file));
  if (c.op === 'lora_refuse') return refused(paths[0]!, shapes);
  const loras: Lora[] = [];
  for (const [i, path] of paths.entries())
    loras.push({ file: await loadLora(path, shapes), scale: (c['strengths'] as number[])[i]! });
  const got: Record<string, HostTensor> = {};
  for (const [name, weight] of Object.entries(weights)) {
    const merged = mergeFiles(name, weight, loras);
    if (merged !== weight) got[`out/${under}${name}`] = merged;
  }
  const untold = Object.keys(got).filter((name) => !fixture.expected(c.name).includes(name));
  if (untold.length) return { status: 'fail', note: `changed without being told: ${untold.join(', ')}` };
  const verdict = judge(weightsOf(fixture), c.name, got);
  return verdict.status === 'pass' && fixture.expected(c.name).includes(OUTPUT)
    ? ditCase(...(await rerun(fixture, c, got)), executor)
    : verdict;
}

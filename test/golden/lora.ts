/** Reference cases of LoRA files: weights with one or several of them merged in, and files that must be refused in one line. */
import { join } from 'node:path';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { loadLora, mergeFiles, type Lora } from '../../model/files/lora.ts';
import { WeightsError } from '../../model/files/stored.ts';
import { Fixture, judge, type Case, type Verdict } from './format.ts';

/** Of the model, or of one of two experts: then `under` stands before its weights' names. */
async function baseOf(fixture: Fixture, expert: string | undefined) {
  if (expert === undefined) return { under: '', weights: (await fixture.other('base')).weights() };
  const under = `${expert}.`;
  const all = Object.entries((await fixture.other('experts')).weights());
  const own = all.filter(([name]) => name.startsWith(under)).map(([name, t]) => [name.slice(under.length), t] as const);
  return { under, weights: Object.fromEntries(own) };
}

/** What is expected of weights; a model's output with them is the model's affair. */
const weightsOf = ({ folder, entry, tensors }: Fixture): Fixture => {
  const own = Object.entries(entry.tensors).filter(([name]) => !name.endsWith('/out/y.0'));
  return new Fixture(folder, { ...entry, tensors: Object.fromEntries(own) }, tensors);
};

async function refused(path: string, shapes: Parameters<typeof loadLora>[1]): Promise<Verdict> {
  try {
    await loadLora(path, shapes);
    return { status: 'fail', note: 'it was read' };
  } catch (error) {
    const { message } = error as Error;
    return { status: error instanceof WeightsError && !message.includes('\n') ? 'pass' : 'fail', note: message };
  }
}

export async function loraCase(fixture: Fixture, c: Case): Promise<Verdict> {
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
  return judge(weightsOf(fixture), c.name, got);
}

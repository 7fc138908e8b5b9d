/** The format of a folder of reference tensors: manifest, tolerances, and how a result is judged. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { printShapes } from '../../engine/host/errors.ts';
import type { HostTensor } from '../../engine/frontend/tree.ts';
import { openWeights } from '../../model/files/open.ts';
import type { StoredType } from '../../model/files/stored.ts';

export interface TensorEntry {
  role: 'weight' | 'input' | 'expected';
  dtype: StoredType;
  shape: number[];
  atol?: number;
  rtol?: number;
  rel_l2_tol?: number;
  exact?: boolean;
}

/** Parsed JSON whose form the op or the kind of file decides; its readers know it. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Json = any;
export type Attrs = Record<string, Json>;

/** Attributes of a case beside its name depend on the file's kind. */
export interface Case {
  name: string;
  op?: string;
  attrs?: Attrs;
  [key: string]: Json;
}

export interface FileEntry {
  file: string;
  kind: string;
  config?: Attrs;
  cases: Case[];
  tensors: Record<string, TensorEntry>;
  [key: string]: Json;
}

export interface Manifest {
  files: Record<string, FileEntry>;
  loader?: { entries: Attrs[] };
}

export const readManifest = async (folder: string): Promise<Manifest> =>
  JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as Manifest;

/** One file of the folder, all in memory. */
export class Fixture {
  readonly folder: string;
  readonly entry: FileEntry;
  readonly tensors: ReadonlyMap<string, HostTensor>;

  constructor(folder: string, entry: FileEntry, tensors: ReadonlyMap<string, HostTensor>) {
    this.folder = folder;
    this.entry = entry;
    this.tensors = tensors;
  }

  static async read(folder: string, entry: FileEntry): Promise<Fixture> {
    const weights = await openWeights(join(folder, entry.file));
    try {
      const tensors = new Map<string, HostTensor>();
      for (const [name, { shape }] of Object.entries(entry.tensors)) {
        const t = await weights.tensor(name);
        if (String(t.shape) !== String(shape))
          throw new Error(`${name}: the manifest says ${printShapes(shape)}, the file ${printShapes(t.shape)}`);
        tensors.set(name, t);
      }
      return new Fixture(folder, entry, tensors);
    } finally {
      await weights.close();
    }
  }

  /** Another file of the folder, by the name that `uses` has for its role. */
  async other(role: string): Promise<Fixture> {
    const { files } = await readManifest(this.folder);
    return Fixture.read(this.folder, files[(this.entry['uses'] as Record<string, string>)[role]!]!);
  }

  get(name: string): HostTensor {
    const t = this.tensors.get(name);
    if (!t) throw new Error(`no tensor ${name} in ${this.entry.file}`);
    return t;
  }

  /** Module weights: names without a slash. */
  weights(): Record<string, HostTensor> {
    return Object.fromEntries([...this.tensors].filter(([name]) => !name.includes('/')));
  }

  /** Tensors whose name begins with `prefix`, by the rest of their name. */
  under(prefix: string): Record<string, HostTensor> {
    return Object.fromEntries(
      [...this.tensors].filter(([name]) => name.startsWith(prefix)).map(([name, t]) => [name.slice(prefix.length), t]),
    );
  }

  /** Names, behind `case/`, of what a case must give. */
  expected(name: string): string[] {
    return Object.entries(this.entry.tensors)
      .filter(([n, t]) => n.startsWith(`${name}/`) && t.role === 'expected')
      .map(([n]) => n.slice(name.length + 1));
  }
}

export interface Verdict {
  status: 'pass' | 'fail' | 'skip';
  note: string;
}

/** The largest share of a tolerance that was used; above 1 is a failure, described by `why`. */
export interface Match {
  share: number;
  why: string;
}

/** Both rules of the format: every element within atol + rtol |expected|, and the difference's 2-norm within rel_l2_tol of the expected. */
export function compare(got: HostTensor | undefined, expected: HostTensor, tol: TensorEntry): Match {
  const bad = (why: string): Match => ({ share: Infinity, why });
  if (!got) return bad('missing');
  if (String(got.shape) !== String(expected.shape))
    return bad(`shape ${printShapes(got.shape)}, expected ${printShapes(expected.shape)}`);
  if (tol.exact || expected.dtype !== 'f32') {
    const at = expected.data.findIndex((v, i) => !Object.is(v, got.data[i]) && v !== got.data[i]);
    return at < 0
      ? { share: 0, why: '' }
      : bad(`element ${at} is ${got.data[at]}, expected exactly ${expected.data[at]}`);
  }
  let worst = 0,
    at = 0,
    difference = 0,
    norm = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const e = expected.data[i]!,
      d = Math.abs(got.data[i]! - e);
    const share = d === 0 ? 0 : d / (tol.atol! + tol.rtol! * Math.abs(e));
    if (!(share <= worst)) [worst, at] = [Number.isNaN(share) ? Infinity : share, i];
    difference += d * d;
    norm += e * e;
  }
  const l2 = difference === 0 ? 0 : Math.sqrt(difference / norm) / (tol.rel_l2_tol ?? Infinity);
  if (worst <= 1 && l2 <= 1) return { share: Math.max(worst, l2), why: '' };
  return {
    share: Math.max(worst, l2),
    why: `element ${at} is ${got.data[at]}, expected ${expected.data[at]} (${worst.toPrecision(3)} of its tolerance); 2-norm of the difference ${l2.toPrecision(3)} of its tolerance`,
  };
}

/** Judges every tensor a case must give. `got` is named as `expected()` names it. */
export function judge(fixture: Fixture, name: string, got: Record<string, HostTensor>): Verdict {
  const names = fixture.expected(name);
  if (!names.length) return { status: 'skip', note: 'nothing is expected of it' };
  const matches = names.map((n) => ({
    n,
    ...compare(got[n], fixture.get(`${name}/${n}`), fixture.entry.tensors[`${name}/${n}`]!),
  }));
  const wrong = matches.filter((m) => !(m.share <= 1));
  if (wrong.length)
    return {
      status: 'fail',
      note: [
        `${wrong.length} of ${names.length} tensors differ`,
        ...wrong.slice(0, 5).map((m) => `    ${m.n}: ${m.why}`),
      ].join('\n'),
    };
  return {
    status: 'pass',
    note: `${names.length} tensors, at most ${(100 * Math.max(0, ...matches.map((m) => m.share))).toFixed(1)} % of the tolerance`,
  };
}

/** The programs of a compiled function, by input signature: the ones used last are kept. */
import type { TensorType } from '../frontend/graph.ts';
import type { Flat } from '../frontend/tree.ts';
import type { Operand } from '../compiler/ranges.ts';
import type { Program } from './program.ts';

/** Signatures that a function keeps programs for. */
export const MAX_PROGRAMS = 64;

export interface Built {
  program: Program;
  outTree: Flat;
  /** For each result: its type, and the input it was written into. */
  results: { type: TensorType; into?: number }[];
  /** Whose largest numbers are the last result, beyond the tree. */
  operands: readonly Operand[];
}

export interface Entry {
  /** What `building` gives, once it has. */
  built?: Built;
  building: Promise<Built>;
  /** Calls that have not given their results. */
  calls: number;
}

export class Programs {
  private entries = new Map<string, Entry>();

  /** The program of this signature, or the one that is being made. One that cannot be made is forgotten. */
  get(key: string, make: () => Promise<Built>): Entry {
    const found = this.entries.get(key);
    if (found) {
      this.entries.delete(key); // to the end: used last
      this.entries.set(key, found);
      return found;
    }
    const entry: Entry = { building: make(), calls: 0 };
    this.entries.set(key, entry);
    const { entries } = this;
    entry.building.then(
      (built) => {
        entry.built = built;
      },
      () => entries.delete(key),
    );
    this.trim();
    return entry;
  }

  /** All of them; none is left. */
  take(): Entry[] {
    const taken = [...this.entries.values()];
    this.entries = new Map();
    return taken;
  }

  private trim(): void {
    for (const [key, { built, calls }] of this.entries) {
      if (this.entries.size <= MAX_PROGRAMS) return;
      if (!built || calls) continue;
      built.program.free(`made room, a function keeps ${MAX_PROGRAMS} signatures`);
      this.entries.delete(key);
    }
  }
}

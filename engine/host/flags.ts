/** Every developer flag: one typed table, read once from the environment. */
import { env } from './runtime.ts';

interface Flag<T> {
  doc: string;
  /** `text` is undefined when the variable is unset or empty. Throws a message without the flag's name. */
  parse(text: string | undefined): T;
}

const on = (doc: string): Flag<boolean> => ({ doc, parse: (text) => text !== undefined && text !== '0' });

const text = (doc: string): Flag<string | undefined> => ({ doc, parse: (given) => given });

const level = (doc: string, max: number): Flag<number> => ({
  doc,
  parse(text) {
    const n = Number(text ?? 0);
    if (!Number.isInteger(n) || n < 0 || n > max) throw new Error(`expected 0 to ${max}, got "${text}"`);
    return n;
  },
});

/** A number, 1 or more. */
const amount = (doc: string): Flag<number | undefined> => ({
  doc,
  parse(text) {
    const n = Number(text ?? 1);
    if (!(n >= 1)) throw new Error(`expected a number of 1 or more, got "${text}"`);
    return text === undefined ? undefined : n;
  },
});

const choice = <const C extends string>(doc: string, ...choices: C[]): Flag<C | undefined> => ({
  doc,
  parse(text) {
    if (text === undefined) return undefined;
    const found = choices.find((c) => c === text);
    if (!found) throw new Error(`expected ${choices.join(', ')}, got "${text}"`);
    return found;
  },
});

const TABLE = {
  DEBUG: level('1 a line per program, 2 a line per kernel with time and rates, 3 the graphs, 4 the generated WGSL', 4),
  PROFILE: text('file to write a Chrome trace of every kernel to, such as trace.json'),
  VALIDATE: on('check every kernel against the float64 reference (slow)'),
  NANCHECK: on('stop at the first kernel that writes a non-finite value (slow)'),
  NO_FUSE: on('one kernel per operation'),
  NO_F16: on('pretend that the device has no shader-f16'),
  NO_MATRIX: on('no subgroup matrix units'),
  TIER: choice(
    'kernel tier, instead of the one that suits the device; matrix is emulated where there are no units',
    'scalar',
    'tiled',
    'matrix',
  ),
  NO_TUNE: on('configurations by rule only, none that vpae tune measured'),
  VPAE_ADAPTER: choice(
    'where to run, instead of the best that works',
    'auto',
    'gpu',
    'system',
    'lavapipe',
    'swiftshader',
    'native',
    'null',
  ),
  VPAE_DEVICE: text("which of the system's adapters, by its number or a part of its name in doctor --list"),
  VPAE_SUBMIT_MS: amount(
    'most milliseconds of work a submit, so that no watchdog ends it; 100 on a GPU, no bound on a CPU driver',
  ),
  NO_FETCH: on('never download the lavapipe software driver'),
};

export type Flags = { [K in keyof typeof TABLE]: ReturnType<(typeof TABLE)[K]['parse']> };

/** Throws `[flags] NAME: expected …, got …`. */
export function readFlags(variable: (name: string) => string | undefined): Flags {
  const read = Object.entries(TABLE).map(([name, flag]) => {
    try {
      return [name, flag.parse(variable(name) || undefined)];
    } catch (error) {
      throw new Error(`[flags] ${name}: ${(error as Error).message}`, { cause: error });
    }
  });
  return Object.fromEntries(read) as Flags;
}

export const FLAG_DOCS = Object.fromEntries(Object.entries(TABLE).map(([name, flag]) => [name, flag.doc])) as Record<
  keyof Flags,
  string
>;

export const flags: Flags = readFlags(env);

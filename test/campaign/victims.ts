/** Commands to be killed: how each is started in a folder of its own, and what must stand there in the end, to the bit. */
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHash } from 'node:crypto';

const CLI = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const STEPS = fileURLToPath(new URL('steps.ts', import.meta.url));
const BUNDLE = fileURLToPath(new URL('../../bundle/digits', import.meta.url));

export interface Victim {
  name: string;
  /** Of all kills. */
  share: number;
  /** Fills a folder before the first start. */
  prepare(dir: string): void;
  /** Arguments of Node, the same for every start. */
  args(dir: string): string[];
}

/** Small runs of the test preset; `from` holds what the commands before it have made. */
const run = (
  name: string,
  share: number,
  words: readonly string[],
  from?: string,
  keep: readonly string[] = [],
): Victim => ({
  name,
  share,
  prepare(dir) {
    for (const part of from ? keep : []) cpSync(join(from!, part), join(dir, part), { recursive: true });
  },
  args: (dir) => [CLI, ...words, '--preset', 'digits-test', '--run', dir, '--bundle', dir],
});

const PROMPTS = ['a 3 moving up-left', 'a 7 moving down', 'a 1 moving right', 'a 9 moving up'];

/** @param base a run of the test preset with its VAE and its teacher */
export const victims = (base: string): Victim[] => [
  { name: 'steps', share: 0.4, prepare: () => {}, args: (dir) => [STEPS, join(dir, 'run')] },
  {
    name: 'export',
    share: 0.26,
    prepare: () => {},
    args: (dir) => [
      CLI,
      'export',
      join(BUNDLE, 'student.safetensors'),
      '--out',
      join(dir, 'out.safetensors'),
      '--dtype',
      'f32',
    ],
  },
  {
    name: 'sample',
    share: 0.14,
    prepare: (dir) => writeFileSync(join(dir, 'prompts.txt'), PROMPTS.join('\n')),
    args: (dir) => [CLI, 'sample', '--prompts', join(dir, 'prompts.txt'), '--out', join(dir, 'clips', 'c.png')],
  },
  run('data make', 0.1, ['data', 'make'], base, ['vae.safetensors']),
  run('train teacher', 0.06, ['train', 'teacher', '--no-tune'], base, ['vae.safetensors', 'data']),
  run('distill', 0.04, ['distill', '--no-tune'], base, ['vae.safetensors', 'data', 'teacher.safetensors']),
];

/** What makes the base. */
export const baseCommands = (base: string): string[][] => {
  mkdirSync(base, { recursive: true });
  return ['vae', 'teacher'].map((what) => [CLI, 'train', what, '--no-tune', '--preset', 'digits-test', '--run', base]);
};

/** Every file by its path: the hash of what it says, without what tells of the machine or of the time it took. */
export function contents(dir: string): Map<string, string> {
  const files = (
    readdirSync(dir, { recursive: true, withFileTypes: true }) as {
      name: string;
      parentPath: string;
      isFile(): boolean;
    }[]
  )
    .filter((f) => f.isFile())
    .map((f) => join(f.parentPath, f.name));
  const hash = (path: string): string => {
    const bytes = readFileSync(path);
    const text = path.endsWith('metrics.jsonl') ? bytes.toString('utf8').replace(/,?"seconds":[\d.e-]+/g, '') : bytes;
    return createHash('sha256').update(text).digest('hex');
  };
  return new Map(files.map((path) => [relative(dir, path), hash(path)]));
}

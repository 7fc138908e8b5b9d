/** The engines that ours is compared with: what they are called, and which packages they need. */
import { isInstalled } from './peer.ts';
import { hasTorch } from './torch.ts';

const ROSTER = [
  { name: 'gpu.js', packages: ['gpu.js'] },
  { name: 'tfjs', packages: ['@tensorflow/tfjs', '@tensorflow/tfjs-backend-webgpu'] },
  { name: 'jax-js', packages: ['@jax-js/jax'] },
  // Its WebAssembly takes a minute to optimise, during which nothing answers: the baseline compiler's code will do.
  { name: 'onnxruntime-web', packages: ['onnxruntime-web'], flags: ['--liftoff-only'] },
  { name: 'onnxruntime-web, fused', packages: ['onnxruntime-web'], flags: ['--liftoff-only'] },
  { name: 'onnxruntime-node', packages: ['onnxruntime-node'] },
  { name: 'torch', packages: [] },
] as const satisfies readonly { name: string; packages: readonly string[]; flags?: readonly string[] }[];

export type Entry = (typeof ROSTER)[number];
export type EngineName = Entry['name'] | 'ours';

/** The same package in two ways is one name for people. */
export const peerNames = (): string[] => [...new Set(ROSTER.map((e) => e.name.replace(/,.*/, '')))];
export const entriesOf = (names: readonly string[]): Entry[] =>
  ROSTER.filter((e) => names.includes(e.name.replace(/,.*/, '')));

/** How to get what an entry lacks; undefined when all is there. */
export function missing({ name, packages }: Entry): string | undefined {
  if (name === 'torch') return hasTorch() ? undefined : 'pip install torch (for the python3 of this machine)';
  const lacking = packages.filter((p) => !isInstalled(p));
  return lacking.length
    ? `npm i --no-save --ignore-scripts ${packages.join(' ')} (in this folder, or in another that VPAE_PEERS names)`
    : undefined;
}

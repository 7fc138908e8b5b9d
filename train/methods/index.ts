/**
 * The methods of distillation, by the names that `vpae distill --method` has for them. A new one is a file beside these and a line here.
 */
import { apt } from './apt.ts';
import { consistency } from './consistency.ts';
import { dmd2 } from './dmd2.ts';
import { meanflow } from './meanflow.ts';
import type { Method, Stage } from './stage.ts';
import { vpae, vsd } from './vpae.ts';

export const METHODS = { vpae, vsd, dmd2, consistency, meanflow, apt } as const satisfies Record<string, Method>;
export type MethodName = keyof typeof METHODS;
export const METHOD_NAMES = Object.keys(METHODS) as readonly MethodName[];

export type StageName = (typeof METHODS)[MethodName]['stages'][number]['name'];
/** Every stage of them once, in the order of the table. */
export const STAGES: readonly Stage<StageName>[] = [
  ...new Set(Object.values(METHODS).flatMap((m): readonly Stage<StageName>[] => m.stages)),
];

/** What run.ts and its child tell each other. */
import type { JobName } from '../../../train/planning/jobs.ts';
import type { ReleasedArgs } from '../../common/released.ts';
import type { Compiled } from './kernel.ts';

/** Whose steps: a preset or a released model at a size. */
export type StepsOf = ReleasedArgs & { jobs: readonly JobName[] };

export interface Question {
  /** Regular expression of names and labels. */
  only: string;
  /** In place of the kernels' own cases. */
  steps?: StepsOf;
}

export interface Answer {
  adapter: string;
  driver: string;
  kernels: Omit<Compiled, 'dump'>[];
}

/** A line between dumps of the driver. */
export const marker = (kernel: number, which: 'begin' | 'end'): string => `\n@@ ${which} ${kernel}\n`;

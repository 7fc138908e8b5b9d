/** What run.ts and its child tell each other. */
import type { Compiled } from './kernel.ts';

export interface Answer {
  adapter: string;
  driver: string;
  kernels: Omit<Compiled, 'dump'>[];
}

/** A line between dumps of the driver. */
export const marker = (kernel: number, which: 'begin' | 'end'): string => `\n@@ ${which} ${kernel}\n`;

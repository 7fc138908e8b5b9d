/** A job against the clock: as many steps as fit into a time, and the average judged half-way and at the end. */
import type { Job } from './loop.ts';

/** The step of all networks that decides how many there will be: the one before it compiles. */
const TIMED = 2;

/**
 * How many steps there are in all, once `done` of them are done and the last took `each` seconds: at most `most`, and at least the next.
 */
export const stepsThatFit = (done: number, each: number, left: number, most: number): number =>
  Math.min(most, done + Math.max(1, Math.floor(left / each)));

/** How far a job got. */
export interface Timed {
  readonly steps: number;
  /** Steps in which the generator rested. */
  readonly rested: number;
}

/**
 * One step of all networks compiles, the next is timed and decides how many there will be; when the time is up the job ends all the
 * same. The steps at the start in which the generator rests are cut short where they take over a quarter of the time.
 * Such a job cannot be resumed.
 */
export function within<J extends Job & { alone: number }>(job: J, seconds: number): J & Timed {
  const start = performance.now();
  const spent = (): number => (performance.now() - start) / 1000;
  const most = job.steps - job.alone;
  /** Steps in which the generator rested, those of all networks, and how many of the latter the time allows. */
  const done = { rested: 0, both: 0, fit: most };
  const steps = (): number => done.rested + done.fit;
  const limits = {
    get steps() {
      return steps();
    },
    get rested() {
      return done.rested;
    },
    async advance(...[state, , rate]: Parameters<Job['advance']>) {
      const before = spent();
      const rests = done.both === 0 && done.rested < job.alone && before < seconds / 4;
      const step = rests ? done.rested++ : job.alone + done.both++;
      const { state: next, metrics } = await job.advance(state, step, rate);
      const numbers = await metrics;
      if (rests) return { state: next, metrics };
      if (done.both <= TIMED) done.fit = stepsThatFit(done.both, spent() - before, seconds - spent(), most);
      if (spent() > seconds) done.fit = done.both;
      return { state: next, metrics: Promise.resolve(numbers) };
    },
    best: job.best && {
      ...job.best,
      get every() {
        return done.both > TIMED ? Math.ceil(steps() / 2) : Infinity;
      },
      get from() {
        return done.rested;
      },
    },
  };
  return Object.defineProperties({ ...job }, Object.getOwnPropertyDescriptors(limits)) as J & Timed;
}

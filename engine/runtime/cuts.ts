/**
 * A program's kernels as dispatches and submits: long kernels are cut into parts, short ones go together, until no submit is longer than
 * the device's pace allows. Times are predicted first and measured as the program runs; the bits are the same, whatever the cut.
 */
import type { Dispatch } from '../../kernels/kernel.ts';
import { cuttable, partsOf } from '../../kernels/parts.ts';
import { uniformBytes } from '../compiler/plan.ts';
import type { Pace } from './pace.ts';

/** Dispatches in one submit, of whatever length: enough to hide its cost. */
const SUBMIT_EVERY = 256;
/** Runs that are watched for how long submits take: the first ones, and one of so many later. */
const [FIRST_RUNS, SOME_RUNS] = [4, 16];
/** A kernel predicted to take this share of a submit may turn out to be too long for one: it is printed so that it can be cut. */
const LONG = 1 / 16;
/** Parts this much longer than a submit may be are cut anew, and so are those this much shorter. */
const [OVER, UNDER] = [1.5, 0.25];

/** A kernel of the program. */
interface Whole {
  /** Number of its group. */
  group: number;
  dispatch: Dispatch;
  /** Can be cut into parts. */
  long: boolean;
  /** What it takes, as predicted and then measured. */
  seconds: number;
}

/** One dispatch: a kernel, or a part of one. */
export interface Step {
  /** Number of its kernel. */
  whole: number;
  dispatch: Dispatch;
  seconds: number;
  /** Where its words lie: in the program's uniforms, or in those of parts. */
  uniform: { parts: boolean; offset: number };
}

/** Uniform words of dispatches, one behind the other. */
export interface Words {
  words: Uint32Array<ArrayBuffer>;
  offsets: number[];
}

function laidOut(dispatches: readonly Dispatch[]): Words {
  let bytes = 0;
  const offsets = dispatches.map((d) => (bytes += uniformBytes(d)) - uniformBytes(d));
  const words = new Uint32Array(bytes / 4 || 4);
  dispatches.forEach((d, i) => words.set(d.params, offsets[i]! / 4));
  return { words, offsets };
}

export class Cuts {
  steps: readonly Step[] = [];
  /** The first step of each group, and their number. */
  firsts: readonly number[] = [];
  /** Of the kernels that are never cut. */
  readonly uniforms: Words;
  /** Times have turned out to be others than the steps were cut by. */
  miscut = false;
  private readonly wholes: readonly Whole[];
  private readonly groups: number;
  private readonly pace: Pace;
  private runs = 0;

  /** @param launches dispatches of each group */
  constructor(launches: readonly (readonly Dispatch[])[], pace: Pace) {
    this.pace = pace;
    this.groups = launches.length;
    this.wholes = launches.flatMap((dispatches, group) =>
      dispatches.map((d): Whole => {
        const seconds = pace.predict(d);
        const long = seconds > LONG * pace.limit;
        return { group, dispatch: long ? cuttable(d) : d, long, seconds };
      }),
    );
    this.uniforms = laidOut(this.wholes.filter((w) => !w.long).map((w) => w.dispatch));
  }

  /** Kernels as their pipelines have them. */
  get kernels(): readonly Dispatch[] {
    return this.wholes.map((w) => w.dispatch);
  }

  /** Cuts by what is known of times. @returns the words of parts, where there are any */
  cut(): Words | undefined {
    let short = 0;
    const parts: Dispatch[] = [];
    const firsts: number[] = [];
    const steps: Step[] = [];
    this.wholes.forEach((w, whole) => {
      while (firsts.length <= w.group) firsts.push(steps.length);
      if (!w.long) {
        const uniform = { parts: false, offset: this.uniforms.offsets[short++]! };
        steps.push({ whole, dispatch: w.dispatch, seconds: w.seconds, uniform });
        return;
      }
      const cut = partsOf(w.dispatch, Math.ceil(w.seconds / this.pace.limit));
      for (const dispatch of cut) {
        parts.push(dispatch);
        steps.push({ whole, dispatch, seconds: w.seconds / cut.length, uniform: { parts: true, offset: 0 } });
      }
    });
    while (firsts.length <= this.groups) firsts.push(steps.length);
    this.firsts = firsts;
    this.steps = steps;
    this.miscut = false;
    if (!parts.length) return undefined;
    const laid = laidOut(parts);
    const places = laid.offsets.values();
    for (const s of steps) if (s.uniform.parts) s.uniform.offset = places.next().value!;
    return laid;
  }

  /** Where a submit ends that begins with step `start`. */
  endOf(start: number, end: number): number {
    const most = Math.min(end, start + SUBMIT_EVERY);
    let left = this.pace.limit - this.steps[start]!.seconds;
    let next = start + 1;
    while (next < most && (left -= this.steps[next]!.seconds) >= 0) next++;
    return next;
  }

  /** What is to be told of the submits of a run that begins, if so. */
  watch(): Watch | undefined {
    const run = this.runs++;
    if (this.pace.limit === Infinity || (run >= FIRST_RUNS && run % SOME_RUNS)) return undefined;
    return new Watch(this.wholes.length);
  }

  /** Once all of a run is submitted. */
  async learn(watch: Watch): Promise<void> {
    const took = await watch.all();
    if (!took) return;
    const { pace, wholes } = this;
    const sum = (of: (i: number) => number): number => took.reduce((all, _, i) => all + of(i), 0);
    pace.learn(
      sum((i) => took[i]!),
      sum((i) => pace.predict(wholes[i]!.dispatch)),
    );
    const parts = new Uint32Array(took.length);
    for (const s of this.steps) parts[s.whole]!++;
    for (const s of this.steps) s.seconds = took[s.whole]! / parts[s.whole]!;
    wholes.forEach((w, i) => {
      w.seconds = took[i]!;
      const each = w.seconds / parts[i]!;
      if (w.long && (each > OVER * pace.limit || (parts[i]! > 1 && each < UNDER * pace.limit))) this.miscut = true;
    });
  }
}

/** What kernels take in a run: each its share of its submit, by the prediction. */
export class Watch {
  private readonly took: Float64Array;
  private readonly waits: Promise<boolean>[] = [];

  constructor(kernels: number) {
    this.took = new Float64Array(kernels);
  }

  /** @param measured seconds that these steps take together */
  add(steps: readonly Step[], measured: Promise<number>): void {
    const predicted = steps.reduce((sum, s) => sum + s.seconds, 0);
    const share = (seconds: number): boolean => {
      for (const s of steps) this.took[s.whole]! += (seconds * s.seconds) / predicted;
      return true;
    };
    this.waits.push(measured.then(share, () => false)); // a lost device is told elsewhere
  }

  /** Seconds of each kernel; undefined where some could not be measured. */
  async all(): Promise<Float64Array | undefined> {
    return (await Promise.all(this.waits)).every(Boolean) ? this.took : undefined;
  }
}

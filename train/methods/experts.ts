/**
 * A teacher of two experts, each for a range of noise (METHOD §1.19). One student begins as the one for high noise, and every update asks
 * one of them for its score: which one is drawn as often as the law of times falls into its range, and its times are drawn within it.
 * Where each has a student of its own, that asks its own expert alone.
 */
import type { Device } from '../../engine/runtime/device.ts';
import { place, type Origin } from '../../model/files/origin.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import { freeTree, type State } from '../loop/checkpoint.ts';
import { Stream } from '../loop/rng.ts';
import type { Course } from '../presets/index.ts';
import { drawTime, type TimeLaw } from './flow.ts';
import { freeze, studentOf } from './jobs.ts';
import type { Rollout } from './rollout.ts';
import type { Sampled, Weights } from './sample.ts';
import type { Opening } from './stage.ts';

/** What of the teacher the student begins as. */
export const beginning = ({ teacher, low, range }: Pick<Opening, 'teacher' | 'low' | 'range'>): Origin =>
  range?.expert === 'low' ? low! : teacher;

/** The frozen networks of a job. */
export class Teachers {
  readonly high: Weights;
  private readonly low: Weights | undefined;
  /** Of the student for high noise, what is its own. */
  private readonly led: Weights | undefined;
  /** Within whose range all times are drawn, where each expert has a student. */
  readonly range: Expert | undefined;
  private readonly course: Course;

  private constructor(
    course: Course,
    range: Expert | undefined,
    frozen: { high: Weights; low?: Weights; led?: Weights },
  ) {
    [this.course, this.range] = [course, range];
    [this.high, this.low, this.led] = [frozen.high, frozen.low, frozen.led];
  }

  static async freeze(device: Device, { teacher, low, course, range }: Opening): Promise<Teachers> {
    return new Teachers(course, range?.expert, {
      high: await freeze(device, teacher, course),
      ...(low && { low: await freeze(device, low, course) }),
      ...(range?.high && { led: await place(device, range.high) }),
    });
  }

  /** What the student begins as, or is adapters of. */
  get own(): Weights {
    return this.range === 'low' ? this.low! : this.high;
  }

  /** Whose score an update asks for; nothing where there is one teacher. @param law of its times */
  expertAt(law: TimeLaw, step: number, role: string): Expert | undefined {
    const { experts, seed } = this.course;
    if (!experts || this.range) return this.range;
    return drawTime(law, new Stream(seed, step, `${role}.expert`)) < experts.boundary ? 'low' : 'high';
  }

  /** The networks that an update is told: what the student is an adapter of, and whose score it asks for where that is another's. */
  told(expert: Expert | undefined): { teacher: Weights; real?: Weights } {
    if (this.range) return { teacher: this.own };
    return { teacher: this.high, ...(expert && { real: expert === 'low' ? this.low! : this.high }) };
  }

  /** Who samples down to a level of the student: it itself, before it the one for high noise where that is another. */
  playing(generator: Weights): Parameters<Rollout['to']>[0] {
    return {
      networks: { teacher: this.own, generator },
      before: this.led && { teacher: this.high, generator: this.led },
    };
  }

  /** As a sampler takes them. */
  get sampled(): Sampled {
    return this.low ? { high: this.high, low: this.low } : this.high;
  }

  /** The student as a sampler takes it; of two, the one that is not there yet is its expert. */
  student(state: State): Sampled {
    const { student } = this.course;
    const own = studentOf(student, this.own, state['generator']!.ema!);
    if (!this.range) return own;
    if (this.range === 'high') return { high: own, low: this.low! };
    return { high: studentOf(student, this.high, this.led!), low: own };
  }

  free(): void {
    freeTree([this.high, this.low ?? {}, this.led ?? {}]);
  }
}

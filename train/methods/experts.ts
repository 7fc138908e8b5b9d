/**
 * A teacher of two experts, each for a range of noise (METHOD §1.19): the student begins as the one for high noise, and every update asks
 * one of them for its score. Which one is drawn as often as the law of times falls into its range, and its times are drawn within it.
 */
import type { Device } from '../../engine/runtime/device.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import { freeTree } from '../loop/checkpoint.ts';
import { Stream } from '../loop/rng.ts';
import type { Course } from '../presets/index.ts';
import { drawTime, type TimeLaw } from './flow.ts';
import { freeze } from './jobs.ts';
import type { Sampled, Weights } from './sample.ts';
import type { Opening } from './stage.ts';

/** The frozen networks of a job. */
export class Teachers {
  readonly high: Weights;
  private readonly low: Weights | undefined;
  private readonly course: Course;

  private constructor(course: Course, high: Weights, low: Weights | undefined) {
    [this.course, this.high, this.low] = [course, high, low];
  }

  static async freeze(device: Device, { teacher, low, course }: Opening): Promise<Teachers> {
    return new Teachers(course, await freeze(device, teacher, course), low && (await freeze(device, low, course)));
  }

  /** Whose score an update asks for; nothing where there is one teacher. @param law of its times */
  expertAt(law: TimeLaw, step: number, role: string): Expert | undefined {
    const { experts, seed } = this.course;
    if (!experts) return undefined;
    return drawTime(law, new Stream(seed, step, `${role}.expert`)) < experts.boundary ? 'low' : 'high';
  }

  /** The networks that an update is told: what the student is an adapter of, and whose score it asks for where that is another's. */
  told(expert: Expert | undefined): { teacher: Weights; real?: Weights } {
    return { teacher: this.high, ...(expert && { real: expert === 'low' ? this.low! : this.high }) };
  }

  /** As a sampler takes them. */
  get sampled(): Sampled {
    return this.low ? { high: this.high, low: this.low } : this.high;
  }

  free(): void {
    freeTree([this.high, this.low ?? {}]);
  }
}

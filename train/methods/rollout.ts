/** Few-step students are trained on the states that their own sampling passes through: DMD2's backward simulation (METHOD §1.13). */
import type { Device } from '../../engine/runtime/device.ts';
import { normal } from '../../engine/frontend/functional.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { schedule } from '../../model/schedulers/index.ts';
import { ditConfigOf, latentShape } from './conditions.ts';
import { noise } from './flow.ts';
import { assemble, predictX0, timeAt, type Condition, type Networks, type Time } from './networks.ts';
import type { Course } from '../presets/index.ts';
import { key, Stream } from '../loop/rng.ts';
import { spans, type Expert } from '../../model/pipeline/diffuse.ts';
import { studentsSampler, type Weights } from './sample.ts';

interface State {
  x: Tensor;
}
type Student = Record<'teacher' | 'generator', Weights>;

export class Rollout {
  private readonly preset: Course;
  /** σ of the student's levels, from 1 down. */
  private readonly levels: readonly number[];
  /** Which of them are the student's own: from here on, and before that. */
  private readonly own: { from: number; to: number };
  /** The state, written anew by every call. */
  private readonly x: NDArray;
  private readonly start;
  private readonly move;

  /** @param range of two students, whose levels it ends at */
  constructor(device: Device, p: Course, batch: number, range?: Expert) {
    const sampling = studentsSampler(p);
    const { steps, shift } = sampling;
    const own = spans(sampling).find(({ expert }) => !range || expert === range);
    if (!own) throw new Error(`[distill] of student.steps=${steps} none is the ${range}-noise expert's: take more`);
    this.own = own;
    const dit = ditConfigOf(p);
    this.preset = p;
    this.levels = schedule('euler', steps, shift).sigmas.slice(0, steps);
    this.x = device.zeros([batch, ...latentShape(p)]);
    this.start = device.compile(({ x }: State, k: Tensor): State => ({ x: normal(k, x.shape) }), {
      donate: [0],
      name: 'rollout start',
    });
    this.move = device.compile(
      (
        { x }: State,
        { teacher, generator }: Networks<'teacher' | 'generator'>,
        c: Condition,
        at: { t: Time; next: Tensor; key: Tensor },
      ): State => ({
        x: noise(predictX0(assemble(p.student, teacher, generator), dit, x, at.t, c), normal(at.key, x.shape), at.next),
      }),
      { donate: [0], name: 'rollout' },
    );
  }

  /**
   * Samples from pure noise down to a level of the student, one for the batch.
   * @param before who samples down to the student's own levels, where these are not the first
   * @returns the state [B,C,F,H,W], good until the next call, and the level
   */
  async to(
    { networks, before }: { networks: Student; before?: Student | undefined },
    c: Condition<HostTensor>,
    step: number,
    role: string,
  ): Promise<{ input: NDArray; t: Time<HostTensor> }> {
    const { seed } = this.preset;
    const { from, to } = this.own;
    const level = from + new Stream(seed, step, `${role}.level`).int(to - from);
    const at = (i: number) =>
      timeAt(
        ditConfigOf(this.preset),
        host(new Float32Array(this.x.shape[0]!).fill(this.levels[i]!), [this.x.shape[0]!]),
      );
    const { x } = this;
    await this.start({ x }, key(seed, step, `${role}.start`));
    for (let i = 0; i < level; i++) {
      await this.move({ x }, i < from ? before! : networks, c, {
        t: at(i),
        next: at(i + 1).sigma,
        key: key(seed, step, `${role}.level ${i + 1}`),
      });
    }
    return { input: x, t: at(level) };
  }

  async close(): Promise<void> {
    await Promise.all([this.start.free(), this.move.free()]);
    this.x.free();
  }
}

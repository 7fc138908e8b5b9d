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
import { studentSampler, type Weights } from './sample.ts';

interface State {
  x: Tensor;
}

export class Rollout {
  private readonly preset: Course;
  /** σ of the student's levels, from 1 down. */
  private readonly levels: readonly number[];
  /** The state, written anew by every call. */
  private readonly x: NDArray;
  private readonly start;
  private readonly move;

  constructor(device: Device, p: Course, batch: number) {
    const { steps, shift } = studentSampler(p.student.steps);
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
   * @returns the state [B,C,F,H,W], good until the next call, and the level
   */
  async to(
    networks: Record<'teacher' | 'generator', Weights>,
    c: Condition<HostTensor>,
    step: number,
    role: string,
  ): Promise<{ input: NDArray; t: Time<HostTensor> }> {
    const { seed } = this.preset;
    const level = new Stream(seed, step, `${role}.level`).int(this.levels.length);
    const at = (i: number) =>
      timeAt(
        ditConfigOf(this.preset),
        host(new Float32Array(this.x.shape[0]!).fill(this.levels[i]!), [this.x.shape[0]!]),
      );
    const { x } = this;
    await this.start({ x }, key(seed, step, `${role}.start`));
    for (let i = 0; i < level; i++) {
      await this.move({ x }, networks, c, {
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

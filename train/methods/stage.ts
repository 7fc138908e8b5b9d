/** What a method consists of: stages, each a job that trains the student from what the one before it kept. */
import type { Device } from '../../engine/runtime/device.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import type { DiTConfig } from '../../model/config.ts';
import type { Origin } from '../../model/files/origin.ts';
import type { Expert } from '../../model/pipeline/diffuse.ts';
import type { HeadConfig } from '../../model/heads.ts';
import type { Precision } from '../../model/pipeline/precision.ts';
import type { Shards } from '../data/shards.ts';
import type { Batching } from '../loop/accumulate.ts';
import type { AdamConfig, Trained } from '../loop/optim.ts';
import type { Course, Settings } from '../presets/index.ts';
import type { Ranks } from '../ranks/ranks.ts';
import type { StudentJob } from './jobs.ts';
import type { Batch, Time } from './networks.ts';

/** An expert whose student is trained; for the low-noise one's, what the high-noise one's last stage kept. */
export interface Range {
  expert: Expert;
  high?: Origin | undefined;
}

/** What a stage is opened with. */
export interface Opening {
  device: Device;
  course: Course;
  shards: Shards;
  teacher: Origin;
  /** Of two experts the one for low noise; `teacher` is then the one for high noise. */
  low?: Origin | undefined;
  /** What the stage before kept: the generator's averaged weights, or adapters. The first stage has none. */
  before?: Origin | undefined;
  /** Where each of two experts gets a student: whose it is. */
  range?: Range | undefined;
  /** Who trains it together. */
  ranks?: Ranks | undefined;
}

export interface Stage<Name extends string = string> {
  /** Of its job, and of the job's folder in a run. */
  name: Name;
  /** Gives it this many generator updates. */
  budget: <P extends Course>(p: P, updates: number) => P;
  /** Steps with those in which the generator rests. */
  steps: (p: Course) => number;
  /** What of a preset decides its numbers, beside networks and data. */
  settings: (p: Course) => Record<string, unknown>;
  /** The numbers of a step that say most. */
  tells: readonly string[];
  open: (o: Opening) => Promise<StudentJob>;
  batching: (s: Settings) => Batching;
  /** It may ask each of two experts for its score. */
  hearsExperts?: true;
  /** The setting of its micro-batches, where it takes any. */
  accumulates?: string;
  /** The same on types, for `vpae plan`. */
  outline: (s: Numbers, on: Types) => Outline;
}

/** A method of distillation, as the table of methods has it. */
export interface Method {
  title: string;
  /** Where it was published. */
  paper: string;
  /** Of METHOD.md. */
  section: string;
  stages: readonly Stage[];
  /** Settings that make it what it is. */
  change?: <P extends Course>(p: P) => P;
}

/** Settings with the networks that they are for: of a preset, or of a released model at a size. */
export interface Numbers extends Settings {
  config: DiTConfig;
  head: HeadConfig;
}

type Shapes = Readonly<Record<string, readonly number[]>>;

/** Tensors of an update as types. One type object is one tensor, wherever it stands: each call makes new ones. */
export interface Types {
  /** Frozen; beside it, where there are two experts, the one for low noise. */
  teacher: Record<string, TensorType>;
  low?: Record<string, TensorType> | undefined;
  batch: Batch<TensorType>;
  time: () => Time<TensorType>;
  /** A random key. */
  key: () => TensorType;
  scalar: () => TensorType;
  /** Weights with what goes along with them. */
  trained: (shapes: Shapes, adam: AdamConfig, ema?: boolean) => Trained<TensorType>;
}

/** What a stage trains and runs in a step. */
export interface Outline {
  /** Networks by what people call them. */
  trains: Record<string, Trained<TensorType>>;
  /** Shapes of what is drawn on the host before it is on the device. */
  drawn: readonly Shapes[];
  programs: readonly Program[];
}

export interface Program {
  name: string;
  /** Updates of it in a step; 1 unless given. */
  calls?: number;
  /** (state, …frozen, batch, inputs), as `compileStep` takes it. */
  fn: unknown;
  state: Trained<TensorType>;
  frozen: readonly unknown[];
  /** Inputs beside the rates. */
  inputs: Record<string, unknown>;
  precision?: Precision;
}

/**
 * Full-state checkpoints of a training run: every network, moment, average and adapter, with the step and the run's configuration
 * hash, in one safetensors file `checkpoint-00000100.safetensors`. A file is written whole or not at all; the last two are kept.
 */
import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Device } from '../../engine/runtime/device.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import { flatten, mapTree, type HostTensor } from '../../engine/frontend/tree.ts';
import { openWeights } from '../../model/files/open.ts';
import { inFile, place, type FileTensor, type Origin } from '../../model/files/origin.ts';
import { saveTensors } from '../../model/files/safetensors.ts';
import { writeError } from './files.ts';
import type { Trained } from './optim.ts';
import { moved, packsOf, views } from './packs.ts';

/** Every network a job trains, by name: `generator`, `fake`, `head` … */
export type State<X = NDArray> = Record<string, Trained<X>>;

export interface CheckpointMeta {
  job: string;
  /** Steps done: the next step's index. */
  step: number;
  /** Hash of the run's configuration. */
  config: string;
  /** What the learning rates are multiplied by; 1 unless the run has rolled back. */
  rate?: number;
}

const KEPT = 2;
const PARTS: readonly (keyof Trained)[] = ['params', 'm', 'v', 'ema', 'grads'];
const NAME = /^checkpoint-(\d{8})\.safetensors$/;
const fileName = (step: number): string => `checkpoint-${String(step).padStart(8, '0')}.safetensors`;

/** Names of a folder's checkpoints, oldest first. */
async function checkpoints(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((f) => NAME.test(f)).sort();
}

/** Path of the newest checkpoint, if there is one. */
export async function latestCheckpoint(folder: string): Promise<string | undefined> {
  const last = (await checkpoints(folder)).at(-1);
  return last && join(folder, last);
}

/** Writes a checkpoint, tensor by tensor, and removes all but the last two. @throws one line; the checkpoints before it are untouched. */
export async function saveCheckpoint(
  folder: string,
  state: State<HostTensor | NDArray>,
  meta: CheckpointMeta,
): Promise<string> {
  const path = join(folder, fileName(meta.step));
  const flat: Record<string, HostTensor | NDArray> = {};
  for (const [net, trained] of Object.entries(state)) {
    for (const [part, tensors] of Object.entries(trained)) {
      for (const [name, t] of Object.entries(tensors as typeof flat)) flat[`${net}/${part}/${name}`] = t;
    }
  }
  try {
    await saveTensors(path, flat, { metadata: { checkpoint: JSON.stringify(meta) } });
  } catch (error) {
    const last = await latestCheckpoint(folder).catch(() => undefined);
    throw writeError('checkpoint', path, error, last ? `; ${basename(last)} is intact, the run resumes from it` : '');
  }
  for (const old of (await checkpoints(folder)).slice(0, -KEPT)) await rm(join(folder, old));
  return path;
}

/** Removes a checkpoint that leads nowhere, so that the one before it is the newest. */
export const dropCheckpoint = (folder: string, step: number): Promise<void> =>
  rm(join(folder, fileName(step)), { force: true });

/** Removes every checkpoint of a run that is over. */
export async function dropCheckpoints(folder: string): Promise<void> {
  for (const old of await checkpoints(folder)) await rm(join(folder, old));
}

/** A checkpoint open for reading; for the caller to close. */
export interface Saved {
  meta: CheckpointMeta;
  state: State<FileTensor>;
  close: () => Promise<void>;
}

/** @throws one line when the file is damaged or no checkpoint of ours. */
export async function openSaved(path: string): Promise<Saved> {
  const weights = await openWeights(path).catch((error: Error) => {
    throw new Error(
      `[checkpoint] ${basename(path)} is damaged (${error.message}); remove it to resume from the one before it`,
      { cause: error },
    );
  });
  const text = weights.metadata['checkpoint'];
  if (text === undefined) {
    await weights.close();
    throw new Error(`[checkpoint] ${path} holds weights, not the state of a run`);
  }
  let meta: CheckpointMeta;
  try {
    meta = JSON.parse(text) as CheckpointMeta;
    if (!Number.isSafeInteger(meta?.step) || meta.step < 0) throw new Error('it names no step');
  } catch (error) {
    await weights.close();
    throw new Error(
      `[checkpoint] ${basename(path)} is damaged (${(error as Error).message}); remove it to resume from the one before it`,
      { cause: error },
    );
  }
  const state: State<FileTensor> = {};
  for (const [key, tensor] of Object.entries(inFile(weights))) {
    const [net, part, name] = key.split('/') as [string, keyof Trained, string];
    if (!/^[a-z]\w*$/i.test(net) || !PARTS.includes(part) || !name) {
      await weights.close();
      throw new Error(
        `[checkpoint] ${path} holds ${JSON.stringify(key.slice(0, 100))}, which is no part of a run's state`,
      );
    }
    ((state[net] ??= { params: {}, v: {} })[part] ??= {})[name] = tensor;
  }
  return { state, meta, close: () => weights.close() };
}

/** A saved state on a device, in packs. */
export async function placeState(device: Device, saved: State<FileTensor>): Promise<State> {
  const state: State = {};
  for (const [net, parts] of Object.entries(saved)) {
    const placed: Partial<Trained<NDArray>> = {};
    for (const [part, tensors] of Object.entries(parts)) {
      const alone = await place(device, tensors as Origin);
      const packs = packsOf(alone);
      placed[part as keyof Trained] = views(moved(device, alone, packs), packs);
    }
    state[net] = placed as Trained<NDArray>;
  }
  return state;
}

/** Uploads a tree of tensors. */
export const toDevice = <T>(device: Device, tree: T): OnDevice<T> =>
  mapTree((t: HostTensor) => device.tensor(t.data, t.shape, t.dtype), tree) as OnDevice<T>;
type OnDevice<T> = T extends HostTensor ? NDArray : T extends object ? { [K in keyof T]: OnDevice<T[K]> } : T;

/** Reads a tree of tensors back. */
export async function toHost<T>(tree: T): Promise<OnHost<T>> {
  const flat = flatten<NDArray>(tree);
  const leaves: HostTensor[] = [];
  for (const t of flat.leaves) leaves.push({ data: await t.read(), shape: t.shape, dtype: t.dtype });
  return flat.rebuild(leaves) as OnHost<T>;
}
type OnHost<T> = T extends NDArray ? HostTensor : T extends object ? { [K in keyof T]: OnHost<T[K]> } : T;

/** Gives the memory of a tree of tensors back. */
export const freeTree = (tree: unknown): void => flatten<NDArray>(tree).leaves.forEach((t) => t.free());

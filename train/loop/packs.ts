/**
 * The tensors of a trained network as few buffers: small ones lie side by side in packs, so that one kernel updates many. On the host, in
 * checkpoints and inside a step every tensor goes by its own name; programs take and give packs.
 */
import type { Device } from '../../engine/runtime/device.ts';
import { join, JOINED } from '../../engine/frontend/functional.ts';
import type { TensorType } from '../../engine/frontend/graph.ts';
import type { NDArray } from '../../engine/runtime/ndarray.ts';
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { BYTES, numel } from '../../kernels/kernel.ts';
import { isMatrix } from '../../model/params.ts';
import type { Trained } from './optim.ts';

/** Numbers of a pack at most: much longer than a dispatch, and little memory, as a pack's gradients are held from the first of them on. */
const LARGEST = 2 ** 20;

/** Tensors of one kind, matrices or not, one behind the other from number `at` on. It goes by the name of its first. */
export interface Pack {
  name: string;
  size: number;
  members: { name: string; shape: readonly number[]; at: number }[];
}

type Named<X> = Readonly<Record<string, X>>;

/** Which tensors are packed, by their names and types alone; those that do not fill whole bindings stay alone. */
export function packsOf(types: Named<TensorType>): Pack[] {
  const packs: Pack[] = [];
  const open: { [kind: string]: Pack } = {};
  for (const name of Object.keys(types).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))) {
    const { shape, dtype } = types[name]!;
    const size = numel(shape);
    if (dtype !== 'f32' || size === 0 || size % JOINED || size > LARGEST) continue;
    const kind = String(isMatrix(name, shape));
    if (!open[kind] || open[kind].size + size > LARGEST) packs.push((open[kind] = { name, size: 0, members: [] }));
    open[kind].members.push({ name, shape, at: open[kind].size });
    open[kind].size += size;
  }
  return packs.filter(({ members }) => members.length > 1);
}

/** Each pack under its name in place of its members; the others stay. */
function packed<X>(tensors: Named<X>, packs: readonly Pack[], whole: (pack: Pack) => X): Record<string, X> {
  const out = { ...tensors };
  for (const pack of packs) {
    for (const { name } of pack.members) delete out[name];
    out[pack.name] = whole(pack);
  }
  return out;
}

export const pack = (tensors: Named<Tensor>, packs: readonly Pack[]): Record<string, Tensor> =>
  packed(tensors, packs, ({ members }) => join(members.map(({ name }) => tensors[name]!.reshape([-1]))));

/** A pack as a type, with those of its members. */
export interface PackType extends TensorType {
  readonly members: readonly { type: TensorType; at: number }[];
}

export const packTypes = (types: Named<TensorType>, packs: readonly Pack[]): Record<string, TensorType | PackType> =>
  packed<TensorType>(types, packs, ({ size, members }): PackType => ({
    shape: [size],
    dtype: 'f32',
    members: members.map(({ name, at }) => ({ type: types[name]!, at })),
  }));

/** What named tensors on a device lie in. @throws one line when a tensor lies alone that should not */
export const buffersOf = (tensors: Named<NDArray>, packs: readonly Pack[]): Record<string, NDArray> =>
  packed(tensors, packs, ({ name }) => tensors[name]!.whole ?? fail(name));

function fail(name: string): never {
  throw new Error(`[step] ${name} lies in a buffer of its own: begin the state with start() or placeState()`);
}

/** Each pack's members under their names in place of it; the others stay. */
function unpacked<X>(
  tensors: Named<X>,
  packs: readonly Pack[],
  member: (whole: X, at: number, shape: readonly number[]) => X,
): Record<string, X> {
  const out = { ...tensors };
  for (const { name: first, members } of packs)
    for (const { name, shape, at } of members) out[name] = member(tensors[first]!, at, shape);
  return out;
}

export const unpack = (tensors: Named<Tensor>, packs: readonly Pack[]): Record<string, Tensor> =>
  unpacked(tensors, packs, (whole, at, shape) => whole.slice(0, at, at + numel(shape)).reshape(shape));

export const views = (tensors: Named<NDArray>, packs: readonly Pack[]): Record<string, NDArray> =>
  unpacked(tensors, packs, (whole, at, shape) => whole.view(at, shape));

/** Tensors that each have a buffer of their own, moved into packs. */
export const moved = (device: Device, tensors: Named<NDArray>, packs: readonly Pack[]): Record<string, NDArray> =>
  packed(tensors, packs, ({ size, members }) => {
    const whole = device.empty([size]);
    for (const { name, at } of members) {
      const { buffer, offset, bytes } = tensors[name]!;
      device.copy(buffer, offset, whole.buffer, at * BYTES.f32, bytes);
      tensors[name]!.free();
    }
    return whole;
  });

/** One function over weights, moments and average. */
export const eachRole = <X, Y>(s: Trained<X>, f: (tensors: Record<string, X>) => Record<string, Y>): Trained<Y> =>
  Object.fromEntries(
    Object.entries(s as unknown as Record<string, Record<string, X>>).map(([role, tensors]) => [role, f(tensors)]),
  ) as unknown as Trained<Y>;

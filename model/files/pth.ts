/**
 * PyTorch's `.pth`, `.pt` and `.bin`: a zip of a pickle, which says what the tensors are, and the storages they are views of.
 * Only tensors are read; nothing of the file is run.
 *
 * Format: torch/serialization.py and caffe2/serialize of PyTorch 1.6 and later.
 */
import { numel } from '../../kernels/kernel.ts';
import { printShapes } from '../../engine/host/errors.ts';
import { Dict, unpickle, type Global, type Value } from './pickle.ts';
import { bytesOf, isSize, type Archive, type DataFile, type StoredTensor, type StoredType } from './stored.ts';
import { zipMembers } from './zip.ts';
import { quoted } from './json.ts';

const STORAGES: Record<string, StoredType> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

class StorageType {
  readonly dtype: StoredType;

  constructor(dtype: StoredType) {
    this.dtype = dtype;
  }
}

/** A member `data/<key>` of the archive, as `count` values. */
class Storage {
  readonly dtype: StoredType;
  readonly key: string;
  readonly count: number;

  constructor(dtype: StoredType, key: string, count: number) {
    this.dtype = dtype;
    this.key = key;
    this.count = count;
  }
}

class View {
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

const MAX_RANK = 64; // PyTorch's own
const MAX_PICKLE = 32e6; // bytes: hundreds of thousands of names
const MAX_TWICE = 16; // bytes of tensors for each of the file's: some tie their weights

const isSizes = (x: Value | undefined): x is number[] => Array.isArray(x) && x.length <= MAX_RANK && x.every(isSize);

/** storage, offset, size, stride, requires_grad, backward hooks. */
function rebuildTensor([storage, offset, shape, strides]: readonly Value[]): View {
  if (
    !(storage instanceof Storage) ||
    !isSize(offset) ||
    !isSizes(shape) ||
    !isSizes(strides) ||
    shape.length !== strides.length
  ) {
    throw new Error('a tensor is described by other than a storage, an offset, a size and a stride');
  }
  return new View(storage, offset, shape, strides);
}

/** tensor, requires_grad, backward hooks. */
function rebuildParameter([tensor]: readonly Value[]): View {
  if (!(tensor instanceof View)) throw new Error('a parameter is made of what is no tensor');
  return tensor;
}

const GLOBALS: ReadonlyMap<string, Global> = new Map<string, Global>([
  ...Object.entries(STORAGES).map(([name, dtype]): [string, Global] => [`torch.${name}`, new StorageType(dtype)]),
  ['collections.OrderedDict', () => new Dict()],
  ['torch._utils._rebuild_tensor_v2', rebuildTensor],
  ['torch._utils._rebuild_parameter', rebuildParameter],
]);

/** 'storage', type, key, device, count. */
function persistentStorage(id: Value): Storage {
  const [kind, type, key, , count] = Array.isArray(id) ? (id as Value[]) : [];
  if (kind !== 'storage' || !(type instanceof StorageType) || typeof key !== 'string' || !isSize(count))
    throw new Error('names something outside of it that is no storage');
  return new Storage(type.dtype, key, count);
}

/** Strides of a row-major tensor; those of axes of size 1 do not matter. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return false;
    step *= shape[axis]!;
  }
  return true;
}

/** The state dict of a file: name → tensor. @throws why it is none, or what is not allowed in it */
export async function readPth(file: DataFile): Promise<Archive> {
  const members = await zipMembers(file);
  const pickles = [...members.keys()].filter((name) => /^[^/]*\/data\.pkl$/.test(name));
  if (pickles.length !== 1) throw new Error(`is no PyTorch archive: ${pickles.length || 'no'} data.pkl in it`);
  const root = pickles[0]!.slice(0, -'data.pkl'.length);
  const order = members.get(`${root}byteorder`);
  if (
    order &&
    (order.length !== 6 || new TextDecoder().decode(await file.read(order.start, order.length)) !== 'little')
  )
    throw new Error('was written on a big-endian machine');
  const { start, length, checksum } = members.get(pickles[0]!)!;
  if (length > MAX_PICKLE) throw new Error(`its data.pkl has ${length} bytes, ${MAX_PICKLE} are allowed`);
  const pickle = await file.read(start, length);
  checksum.follow(start, pickle);
  const state = unpickle(pickle, { globals: GLOBALS, persistent: persistentStorage });
  if (!(state instanceof Dict)) throw new Error('holds no state dict, names with their tensors');

  const place = (name: string, { storage: { dtype, key, count }, offset, shape, strides }: View): StoredTensor => {
    const fail = (why: string) => new Error(`tensor ${quoted(name)}: ${why}`);
    const member = members.get(`${root}data/${key}`);
    if (!member) throw fail(`there is no storage ${quoted(key)} in the archive`);
    if (count * bytesOf(dtype, 1) > member.length)
      throw fail(
        `its storage of ${count} ${dtype} needs ${count * bytesOf(dtype, 1)} bytes, the archive has ${member.length}`,
      );
    const values = numel(shape);
    const end = values ? offset + shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, 1) : 0;
    // A view that repeats its values could fill the memory from a small file.
    if (!(end <= count && values <= count))
      throw fail(
        `a view ${printShapes(shape)} with strides ${printShapes(strides)} from ${offset} does not fit its storage of ${count}`,
      );
    const piece = {
      file,
      start: member.start + (values ? offset : 0) * bytesOf(dtype, 1),
      count: values,
      checksum: member.checksum,
    };
    return {
      dtype,
      shape,
      pieces: [isRowMajor(shape, strides) || !values ? piece : { ...piece, view: { shape, strides } }],
    };
  };
  const tensors = new Map<string, StoredTensor>();
  for (const [name, value] of state) {
    if (typeof name !== 'string' || !(value instanceof View))
      throw new Error(`${quoted(name)} is no tensor: only a flat state dict is read`);
    tensors.set(name, place(name, value));
  }
  const bytes = [...tensors.values()].reduce((sum, t) => sum + numel(t.shape) * bytesOf(t.dtype, 1), 0);
  if (bytes > MAX_TWICE * file.size)
    throw new Error(
      `its tensors are views of ${bytes} bytes in all, ${MAX_TWICE} times its own ${file.size} are allowed`,
    );
  return { metadata: {}, tensors };
}

/** The engine by itself: tensors, gradients, and functions compiled to WebGPU. */
export { open, Device } from './device.ts';
export type { CompileOptions, CompiledFunction, Concrete, Feed } from './compile.ts';
export { NDArray } from './ndarray.ts';
export { Tensor } from './tensor.ts';
export { vjp } from './autodiff.ts';
export { checkpoint } from './remat.ts';
export { flatten, host, mapTree, type HostTensor } from './tree.ts';
export { trace } from './trace.ts';
export { evaluate } from './oracle.ts';
export { EngineError } from './errors.ts';
export { NoAdapterError } from './adapter.ts';
export * from './functional.ts';

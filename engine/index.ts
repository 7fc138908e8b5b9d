/**
 * The engine by itself: tensors, gradients, and functions compiled to WebGPU. The floors above use the same functions, and
 * `device.compile` like everyone, but import them from their own files: an import line then says which room it needs, and a test
 * or a child process loads no more than that.
 */
export { open, Device } from './runtime/device.ts';
export type { CompileOptions, CompiledFunction, Concrete, Feed } from './runtime/compile.ts';
export { NDArray } from './runtime/ndarray.ts';
export { Streamed } from './runtime/streamed.ts';
export { Tensor } from './frontend/tensor.ts';
export { vjp } from './frontend/autodiff.ts';
export { checkpoint } from './frontend/remat.ts';
export { flatten, host, mapTree, type HostTensor } from './frontend/tree.ts';
export { trace } from './frontend/trace.ts';
export { evaluate } from './frontend/oracle.ts';
export { EngineError } from './host/errors.ts';
export { NoAdapterError } from './host/choose.ts';
export * from './frontend/functional.ts';

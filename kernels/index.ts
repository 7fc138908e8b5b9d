/** Kernel families: pure functions (capabilities, problem) → WGSL and launch numbers. */
export type * from './kernel.ts';
export { attention, attentionGrad } from './attention/index.ts';
export { conv3d, conv3dInput, conv3dWeight } from './conv3d/index.ts';
export { gather, scatterAdd } from './gather/index.ts';
export { matmul } from './matmul/index.ts';
export { order } from './order/index.ts';
export { pointwise } from './pointwise/index.ts';
export { pool } from './pool/index.ts';
export { random } from './random/index.ts';
export { reduce } from './reduce/index.ts';
export { layerNorm, layerNormGrad, rmsNorm, rmsNormGrad, softmax } from './rows/index.ts';
export { scan } from './scan/index.ts';

/**
 * WebGPU's interfaces by name, for whoever uses the declarations without TypeScript's `dom` or @webgpu/types: empty there, and one
 * with the real ones where they are.
 */
declare global {
  interface GPU {}
  interface GPUAdapter {}
  interface GPUBindGroup {}
  interface GPUBuffer {}
  interface GPUComputePassEncoder {}
  interface GPUComputePipeline {}
  interface GPUDevice {}
  interface GPUDeviceLostInfo {}
  interface GPUError {}
}

export {};

/** Matrix units as devices have them: each form is emulated for its numbers, and validated as it is printed for the device. */
import type { MatrixUnit } from '../../kernels/mma.ts';

const unit = (operands: 'f16' | 'f32', shape: readonly [number, number, number], lanes: number, multiple: number) => {
  const [M, N, K] = shape;
  return { operands, M, N, K, lanes, multiple, emulated: false } satisfies MatrixUnit;
};

export const UNITS = {
  nvidia: unit('f16', [16, 16, 16], 32, 32),
  rdna3: unit('f16', [16, 16, 16], 32, 64),
  intel: unit('f16', [8, 16, 16], 16, 32),
  apple: unit('f32', [8, 8, 8], 32, 64),
  small: unit('f16', [8, 8, 8], 32, 32),
};

export const emulated = (of: MatrixUnit): MatrixUnit => ({ ...of, emulated: true });

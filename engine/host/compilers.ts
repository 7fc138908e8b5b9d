/**
 * Compilers of GPUs that are not there: Mesa's AMD driver behind a stand-in for the kernel's, so that it opens, compiles and computes
 * nothing. The stand-in has to be in a process before it starts, which makes it a matter of a child's environment.
 */
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log } from './choose.ts';
import { codename, hasApt } from './debian.ts';
import { arch, cacheDir, env, platform } from './runtime.ts';
import { fetchMesa, type MesaPart } from './software.ts';
import { verify } from './trusted.ts';

const AMD_SHIM = 'libamdgpu_noop_drm_shim.so';
const AMD: MesaPart = {
  name: 'AMD compiler',
  what: 'its AMD driver and a stand-in for the kernel',
  packages: ['mesa-vulkan-drivers', 'mesa-drm-shim', 'libvulkan1'],
  driver: 'libvulkan_radeon.so',
  beside: [AMD_SHIM],
};

/** GPUs that the stand-in plays, and what there is of vector units: `dual` ones issue two FMAs at a time. */
export const AMD_GPUS = {
  navi31: { what: 'RDNA3', dual: true },
  gfx1150: { what: 'RDNA3.5', dual: true },
  navi21: { what: 'RDNA2', dual: false },
  navi10: { what: 'RDNA1', dual: false },
  vega10: { what: 'GCN5', dual: false },
} as const;
export type AmdGpu = keyof typeof AMD_GPUS;

/**
 * What a child's environment must hold to open `gpu` and to have its driver print machine code on stderr.
 * @throws one line where the driver cannot be had
 */
export async function amdEnvironment(gpu: AmdGpu, fetch: boolean, log: Log): Promise<Record<string, string>> {
  if (platform !== 'linux') throw new Error('Mesa and its stand-ins for GPUs are for Linux only');
  const dir = cacheDir(`radv-${codename()}-${arch}`);
  if (!existsSync(dir)) {
    if (!fetch) throw new Error("Mesa's AMD compiler is not fetched yet, and NO_FETCH is set");
    if (!hasApt()) throw new Error("Mesa's AMD compiler cannot be fetched: there is no apt-get here");
    await fetchMesa(dir, AMD, log);
  }
  verify(dir);
  const lib = join(dir, 'lib');
  return {
    VK_DRIVER_FILES: join(dir, 'icd.json'),
    LD_PRELOAD: join(lib, AMD_SHIM),
    LD_LIBRARY_PATH: [lib, env('LD_LIBRARY_PATH')].filter(Boolean).join(':'),
    AMDGPU_GPU_ID: gpu,
    RADV_DEBUG: 'asm,shaderstats',
    MESA_SHADER_CACHE_DISABLE: 'true',
    XDG_RUNTIME_DIR: env('XDG_RUNTIME_DIR') ?? mkdtempSync(join(tmpdir(), 'vpae-xdg-')),
    VPAE_ADAPTER: 'gpu',
  };
}

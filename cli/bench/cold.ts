/** How long a training step takes for the first time on a machine that has never compiled it: a child with empty driver caches. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Child } from '../common/child.ts';
import type { Times } from './clock.ts';

const LIMIT_MS = 300_000;

/** Times the teacher step of the preset `digits-test`; `firstMs` is the cold one. */
export async function coldStep(): Promise<Times> {
  const cache = mkdtempSync(join(tmpdir(), 'vpae-cold-'));
  const child = new Child(new URL('./coldchild', import.meta.url), {
    env: { MESA_SHADER_CACHE_DIR: cache, __GL_SHADER_DISK_CACHE: '0' },
  });
  try {
    return await child.ask<Times>({}, LIMIT_MS);
  } finally {
    child.close();
    rmSync(cache, { recursive: true, force: true });
  }
}

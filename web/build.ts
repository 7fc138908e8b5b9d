/** `npm run web`: the page as static files in out/web, for any server; `npm run web -- --serve` serves them on this machine. */
import { copyFileSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build, context, type BuildOptions, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const MODELS = ['student', 'vae', 'frames'];

/** The training floor's files know Node; what the page uses of them does not. What is not used is left out, its imports too. */
const withoutNode: Plugin = {
  name: 'without node',
  setup(builder) {
    builder.onResolve({ filter: /^node:/ }, ({ path }) => ({ path, external: true, sideEffects: false }));
  },
};

const options = (folder: string): BuildOptions => ({
  entryPoints: [join(root, 'web/page.ts')],
  outdir: folder,
  bundle: true,
  minify: true,
  sourcemap: true,
  format: 'esm',
  target: 'es2023',
  platform: 'browser',
  plugins: [withoutNode],
  logLevel: 'warning',
});

/** Builds the page into a folder. @returns bytes of its script */
export async function buildPage(folder: string): Promise<number> {
  mkdirSync(join(folder, 'models'), { recursive: true });
  for (const name of ['index.html', 'page.css']) copyFileSync(join(root, 'web', name), join(folder, name));
  for (const name of MODELS) {
    const file = `${name}.safetensors`;
    copyFileSync(join(root, 'bundle/digits', file), join(folder, 'models', file));
  }
  await build(options(folder));
  return statSync(join(folder, 'page.js')).size;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const folder = join(root, 'out/web');
  const bytes = await buildPage(folder);
  console.log(`out/web: page.js has ${(bytes / 1024).toFixed(0)} KiB`);
  if (process.argv.includes('--serve')) {
    const { port } = await (await context(options(folder))).serve({ servedir: folder, host: '127.0.0.1' });
    console.log(`http://localhost:${port}/`);
  }
}

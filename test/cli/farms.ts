/** A NATS server and workers of it, where nats-server and its client are installed. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { createServer, type AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { needing } from '../needs.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Why there can be no farm here; nothing where there can be. */
function noFarm(): string | undefined {
  if (spawnSync('nats-server', ['--version']).status !== 0)
    return 'there is no nats-server on the PATH (Debian: apt install nats-server): farms are not tried';
  try {
    createRequire(import.meta.url).resolve('@nats-io/transport-node');
    return undefined;
  } catch {
    return "NATS's client is not installed: farms are not tried";
  }
}

/** A test of a farm; skipped, with the reason, where there can be none. */
export const onFarm = needing(noFarm());

export const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });

export const gone = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.on('exit', () => resolve());
  });

/** A server that keeps its queue in `store`. @returns when it listens */
export async function startServer(port: number, store: string, ...more: string[]): Promise<ChildProcess> {
  const child = spawn('nats-server', ['-js', '-a', '127.0.0.1', '-p', String(port), '-sd', store, ...more], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await new Promise<void>((resolve, reject) => {
    let said = '';
    child.stderr.on('data', (d: Buffer) => {
      said += d.toString();
      if (said.includes('Server is ready')) resolve();
    });
    child.on('exit', () => reject(new Error(said)));
  });
  return child;
}

/** `vpae worker --queue ADDRESS`. @param said gets what it prints */
export function startWorker(address: string, said: (text: string) => void = () => {}, env = {}): ChildProcess {
  const words = ['--import', 'tsx', 'cli/main.ts', 'worker', '--queue', address];
  const child = spawn(process.execPath, words, {
    cwd: ROOT,
    env: { ...process.env, DEBUG: '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (d: Buffer) => said(d.toString()));
  return child;
}

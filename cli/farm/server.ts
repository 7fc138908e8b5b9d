/** A NATS server of this machine's own, for trying a farm without one. */
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { cacheDir } from '../../engine/host/runtime.ts';
import { UsageError } from '../common/errors.ts';

const HOST = '127.0.0.1';
const PATIENCE_MS = 10_000;

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, HOST, () => resolve(true));
    socket.on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });

/**
 * Starts one that ends with this process.
 * @returns its address.
 * @throws one line: it is not installed, the address is taken or not this machine's
 */
export async function startServer(address = `nats://${HOST}:4222`): Promise<{ address: string; stop: () => void }> {
  const [, host, port = '4222'] = /^nats:\/\/(127\.0\.0\.1|localhost)(?::(\d{1,5}))?\/?$/.exec(address) ?? [];
  if (host === undefined)
    throw new UsageError(
      `--local starts a server on this machine, as nats://${HOST}:4222: leave --queue ${address} out`,
    );
  if (await answers(Number(port)))
    throw new UsageError(
      `port ${port} is taken: a server that runs there is used by --queue ${address} without --local`,
    );
  const store = cacheDir('farm', `server-${port}`);
  mkdirSync(store, { recursive: true });
  const child = spawn('nats-server', ['-js', '-a', HOST, '-p', port, '-sd', store], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let [said, ended] = ['', ''];
  child.stderr.on('data', (d: Buffer) => (said = (said + d.toString()).slice(-2000)));
  child.on('error', (error: NodeJS.ErrnoException) => {
    ended =
      error.code === 'ENOENT'
        ? 'nats-server is not installed (Debian, Ubuntu: apt install nats-server; elsewhere: nats.io/download)'
        : error.message;
  });
  child.on('close', (code) => (ended ||= `nats-server left with exit code ${code}: ${said.trim().split('\n').at(-1)}`));
  const stop = (): void => void child.kill();
  process.on('exit', stop);
  for (const until = Date.now() + PATIENCE_MS; !(await answers(Number(port)));) {
    if (ended) throw new Error(`[worker] ${ended}`);
    if (Date.now() > until) throw new Error(`[worker] nats-server does not answer on port ${port}`);
    await wait(50);
  }
  return { address: `nats://${HOST}:${port}`, stop };
}

/** PyTorch, where the machine's python3 has it: it works, and is timed, in a process of its own behind two pipes. */
import { spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { ownFile } from '../../common/root.ts';
import type { Sample } from '../clock.ts';
import { BLOCK } from '../works.ts';
import type { Peer } from './peer.ts';

const IMPORT_MS = 60_000;

/** Whether `python3 -c "import torch"` works. */
export const hasTorch = (): boolean =>
  spawnSync('python3', ['-c', 'import torch'], { timeout: IMPORT_MS, stdio: 'ignore' }).status === 0;

type Python = ChildProcessByStdio<Writable, Readable, null>;

/** Asks pytorch.py: its answers are lines of JSON, with raw f32 behind those that count it. */
class Pipe {
  private held = Buffer.alloc(0);
  private readonly chunks: AsyncIterator<Buffer>;
  private readonly python: Python;

  constructor(python: Python) {
    this.python = python;
    this.chunks = python.stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async ask<T>(question: object, raw: readonly Float32Array[] = []): Promise<T> {
    this.python.stdin.write(`${JSON.stringify(question)}\n`);
    for (const x of raw) this.python.stdin.write(new Uint8Array(x.buffer, x.byteOffset, x.byteLength));
    while (!this.held.includes(0x0a)) await this.more();
    const said = JSON.parse(this.take(this.held.indexOf(0x0a) + 1).toString()) as T | { error: string };
    if (typeof said === 'object' && said && 'error' in said) throw new Error(said.error);
    return said as T;
  }

  async floats(count: number): Promise<Float32Array> {
    while (this.held.length < 4 * count) await this.more();
    return new Float32Array(new Uint8Array(this.take(4 * count)).buffer);
  }

  private async more(): Promise<void> {
    const { value, done } = await this.chunks.next();
    if (done) throw new Error("PyTorch's process ended; python3 says why when it runs cli/bench/peers/pytorch.py");
    this.held = Buffer.concat([this.held, value]);
  }

  private take(bytes: number): Buffer {
    const taken = this.held.subarray(0, bytes);
    this.held = this.held.subarray(bytes);
    return taken;
  }
}

export async function peer(): Promise<Peer> {
  const python = spawn('python3', [ownFile('cli/bench/peers/pytorch.py')], { stdio: ['pipe', 'pipe', 'inherit'] });
  const pipe = new Pipe(python);
  const opened: Peer = {
    version: '',
    on: 'CPU',
    async open(work, numbers) {
      const { version, on } = await pipe.ask<{ version: string; on: string | null }>(
        { work: work.name, shapes: work.inputs, block: BLOCK },
        numbers,
      );
      if (on === null) return undefined;
      Object.assign(opened, { version, on });
      return {
        sample: (calls) => pipe.ask<Sample & { peakBytes: number }>({ calls }),
        async answer() {
          const { counts } = await pipe.ask<{ counts: number[] }>({ answer: true });
          const answers: Float32Array[] = [];
          for (const count of counts) answers.push(await pipe.floats(count));
          return answers;
        },
      };
    },
  };
  return opened;
}

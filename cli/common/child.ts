/** Child processes that answer questions: what may crash, hang or leave its marks on a process takes only the child with it. */
import { fork, type ChildProcess } from 'node:child_process';
import { openSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { EXTENSION } from './root.ts';

interface ChildOptions {
  args?: readonly string[];
  env?: Record<string, string>;
  /** Flags of the runtime. */ flags?: readonly string[];
  /** A file that takes all it says on stderr. */
  log?: string;
}

type Answer = { value: unknown } | { error: string };

const STDERR_KEPT = 4000; // characters

export class Child {
  private readonly process: ChildProcess;
  private stderr = '';
  private waiting: ((answer: Answer) => void) | undefined;
  private ended: string | undefined;

  /** @param module one that calls `serve`, without its extension: that of the sources or of the build */
  constructor(module: URL, { args = [], env = {}, flags = [], log }: ChildOptions = {}) {
    const loader = 'Deno' in globalThis || EXTENSION === '.js' ? [] : ['--import', import.meta.resolve('tsx')];
    this.process = fork(fileURLToPath(module) + EXTENSION, args, {
      execArgv: [...loader, ...flags],
      env: { ...process.env, ...env },
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', log === undefined ? 'pipe' : openSync(log, 'w'), 'ipc'],
    });
    this.process.stderr?.on('data', (d: Buffer) => {
      this.stderr = (this.stderr + d.toString()).slice(-STDERR_KEPT);
    });
    this.process.on('message', (answer: Answer) => this.settle(answer));
    this.process.on('error', (error) => this.end(error.message));
    this.process.on('close', (code, signal) =>
      this.end(signal ? `it was ended by ${signal}` : `it left with exit code ${code}${this.complaint()}`),
    );
  }

  /** Asks and waits. A child that does not answer in time is ended. Throws what went wrong there, in one line. */
  async ask<T>(question: unknown, timeoutMs: number): Promise<T> {
    const answer = await new Promise<Answer>((resolve) => {
      if (this.ended !== undefined) return resolve({ error: this.ended });
      const timer = setTimeout(() => {
        this.end(`no answer within ${Math.round(timeoutMs / 1000)} s`);
        this.close();
      }, timeoutMs);
      this.waiting = (found) => {
        clearTimeout(timer);
        resolve(found);
      };
      this.process.send(question as object);
    });
    if ('error' in answer) throw new Error(answer.error.split('\n')[0]);
    return answer.value as T;
  }

  close(): void {
    this.process.kill('SIGKILL');
  }

  private settle(answer: Answer): void {
    this.waiting?.(answer);
    this.waiting = undefined;
  }

  private end(reason: string): void {
    this.ended ??= reason;
    this.settle({ error: this.ended });
  }

  private complaint(): string {
    const line = this.stderr.split('\n').findLast((l) => /error/i.test(l));
    return line ? `: ${line.trim()}` : '';
  }
}

/** The child's side: answers one question after the other, and ends with its parent. */
export function serve(answer: (question: never) => Promise<unknown>): void {
  process.on('message', (question) => {
    answer(question as never)
      .then(
        (value): Answer => ({ value }),
        (error: unknown): Answer => ({ error: error instanceof Error ? error.message : String(error) }),
      )
      .then(
        (found) => process.send!(found),
        () => process.exit(1),
      );
  });
  process.on('disconnect', () => process.exit());
}

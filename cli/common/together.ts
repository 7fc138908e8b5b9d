/** What a training command works in: a session, or as one of several ranks that a launcher has started, all of which end together. */
import process from 'node:process';
import { open } from '../../engine/runtime/device.ts';
import { Ranks } from '../../train/ranks/ranks.ts';
import { EXIT, Interrupted, report, soon } from './errors.ts';
import { herald } from './herald.ts';
import { session, type Session } from './session.ts';

/** In which rank 0 has said why all end: Open MPI ends it as soon as another rank has gone. */
const TURN_MS = 300;

export interface Together extends Session {
  ranks?: Ranks | undefined;
}

/**
 * As `session`, alone. On several ranks the first error, lost device or signal ends them all at once: what is saved is what there is.
 * @param stopped what a person must know after Ctrl-C
 */
export async function together(stopped: string, body: (s: Together) => Promise<void>): Promise<void> {
  const ranks = await Ranks.join();
  if (!ranks) return session(stopped, body);
  const { rank, size, host, mpi } = ranks;
  if (rank > 0) console.log = console.error = () => {}; // but for what ends it
  const heralded = await herald(ranks);
  // The launcher ends a job by SIGTERM: of Ctrl-C, and of a rank that has gone. One of them says so.
  const leave = async (): Promise<void> => {
    if (rank === 0 && !(await heralded.wasTold())) report(new Interrupted(stopped));
    if (rank > 0) await new Promise((resolve) => setTimeout(resolve, TURN_MS));
    mpi.abandon(EXIT.interrupted);
  };
  const stop = (): void => void leave();
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    const device = await open();
    const { name, kind, reason } = device.info;
    const first = await ranks.told(() => name);
    if (first !== name)
      throw new Error(`[ranks] ${host} has ${name}, rank 0 has ${first}: ranks that differ would drift apart`);
    console.error(`${size} ranks; adapter: ${name} (${kind}), ${reason}`);
    await body({ device, signal: new AbortController().signal, ranks });
    await ranks.queue((m) => m.leave());
    device.close();
  } catch (error) {
    await soon(); // what all ranks find wrong rank 0 alone tells, and then they are gone
    const code = report(error);
    if (rank > 0) await heralded.tell();
    mpi.abandon(code);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

/** Open MPI, as far as training needs it, called through koffi. Nothing of it is loaded in a process that no launcher has started. */
import { accessSync } from 'node:fs';
import { hostname } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import process from 'node:process';

/** What a launcher tells a process that it starts; nothing where there is one process alone. */
export function launchedBy(
  env: Readonly<Record<string, string | undefined>>,
): 'open mpi' | 'slurm' | 'mpich' | undefined {
  if (Number(env['OMPI_COMM_WORLD_SIZE']) > 1) return 'open mpi';
  if (Number(env['SLURM_STEP_NUM_TASKS']) > 1) return 'slurm';
  return Number(env['PMI_SIZE']) > 1 ? 'mpich' : undefined;
}

const INSTALL = 'install Open MPI 4 or 5 (Debian, Ubuntu: apt install openmpi-bin) and start with its mpirun';
const KOFFI = 'koffi@3.3.4';

/** Handles are addresses of Open MPI's own objects. */
type Handle = object;
type Data = Float32Array | Uint16Array | Uint8Array;

interface Native {
  (...args: unknown[]): number;
  async(...args: unknown[]): void;
}

interface Library {
  func(prototype: string): Native;
  symbol(name: string, type: string): Handle;
}
interface Koffi {
  load(path: string, options: { global: boolean }): Library;
}

const NAME = process.platform === 'darwin' ? 'libmpi.40.dylib' : 'libmpi.so.40';

/** Where the library may be: wherever the system finds it, else beside the mpirun on the PATH. */
function places(): string[] {
  const bins = (process.env['PATH'] ?? '').split(delimiter).filter((dir) => {
    try {
      accessSync(join(dir, 'mpirun'));
      return true;
    } catch {
      return false;
    }
  });
  const roots = [process.env['OPAL_PREFIX'], process.env['MPI_HOME'], ...bins.map(dirname)].filter(Boolean) as string[];
  return [NAME, ...roots.flatMap((root) => ['lib', 'lib64', 'lib/openmpi'].map((dir) => join(root, dir, NAME)))];
}

/** @throws one line: what is missing, and what to install */
async function load(): Promise<Library> {
  const koffi = await import('koffi').then(
    (module) => (module as unknown as { default: Koffi }).default,
    (error: Error) => {
      throw new Error(`[mpi] the package koffi is needed to call Open MPI: npm install ${KOFFI} brings it`, {
        cause: error,
      });
    },
  );
  // V8 and Open MPI's hooks into malloc do not bear each other; they are for networks that pml ob1 does without.
  process.env['OMPI_MCA_memory'] ??= '^patcher';
  process.env['OMPI_MCA_pml'] ??= 'ob1';
  let reason = '';
  for (const path of places()) {
    try {
      const library = koffi.load(path, { global: true });
      library.symbol('ompi_mpi_comm_world', 'void');
      return library;
    } catch (error) {
      reason ||= (error as Error).message;
    }
  }
  throw new Error(`[mpi] started as one of several processes, but there is no Open MPI here (${reason}): ${INSTALL}`);
}

const SERIALIZED = 2; // MPI_THREAD_SERIALIZED: any thread, one at a time
const POLL_MS = 1;

/** One call after the other; none may begin before the one before it has ended. */
export class Mpi {
  readonly rank: number;
  readonly size: number;
  /** Its number among those on this machine. */
  readonly local: number;
  readonly host = hostname();
  private readonly world: Handle;
  private readonly types: { f32: Handle; bytes: Handle; sum: Handle };
  private readonly calls: Record<
    'alltoallv' | 'allgatherv' | 'allreduce' | 'reduceLocal' | 'bcast' | 'ibarrier' | 'test' | 'finalize',
    Native
  >;
  private readonly exit: Native;

  private constructor(library: Library) {
    const { func, symbol } = {
      func: library.func.bind(library),
      symbol: (name: string) => library.symbol(name, 'void'),
    };
    this.world = symbol('ompi_mpi_comm_world');
    this.types = { f32: symbol('ompi_mpi_float'), bytes: symbol('ompi_mpi_byte'), sum: symbol('ompi_mpi_op_sum') };
    const ask = (name: string): number => {
      const found = [0];
      func(`int ${name}(void*, _Out_ int*)`)(this.world, found);
      return found[0]!;
    };
    func('int MPI_Init_thread(void*, void*, int, _Out_ int*)')(null, null, SERIALIZED, [0]);
    this.rank = ask('MPI_Comm_rank');
    this.size = ask('MPI_Comm_size');
    const { env } = process;
    this.local = Number(env['OMPI_COMM_WORLD_LOCAL_RANK'] ?? env['SLURM_LOCALID'] ?? this.rank);
    this.calls = {
      alltoallv: func('int MPI_Alltoallv(void*, void*, void*, void*, void*, void*, void*, void*, void*)'),
      allgatherv: func('int MPI_Allgatherv(void*, int, void*, void*, void*, void*, void*, void*)'),
      allreduce: func('int MPI_Allreduce(void*, void*, int, void*, void*, void*)'),
      reduceLocal: func('int MPI_Reduce_local(void*, void*, int, void*, void*)'),
      bcast: func('int MPI_Bcast(void*, int, void*, int, void*)'),
      ibarrier: func('int MPI_Ibarrier(void*, void*)'),
      test: func('int MPI_Test(void*, _Out_ int*, void*)'),
      finalize: func('int MPI_Finalize()'),
    };
    this.exit = func('void _exit(int)'); // the C library's, which is in every process
  }

  /**
   * Joins the processes of this job.
   * @returns nothing where this process was started alone
   * @throws one line where the launcher is another than Open MPI's, or its library is missing
   */
  static async join(): Promise<Mpi | undefined> {
    const launcher = launchedBy(process.env);
    if (!launcher) return undefined;
    if (launcher === 'mpich') throw new Error(`[mpi] this was started by MPICH's mpiexec, or one like it: ${INSTALL}`);
    const mpi = new Mpi(await load());
    if (mpi.size === 1)
      throw new Error(
        "[mpi] srun started several processes that do not know each other: srun --mpi=pmix, with Slurm's PMIx plugin, or mpirun inside salloc",
      );
    return mpi;
  }

  /**
   * Every rank's part of `send` for every other; parts lie one behind the other, `counts` long in `send` and `own` long each in `receive`.
   */
  exchange(send: Data, counts: readonly number[], receive: Data, own: number): Promise<void> {
    const even = counts.map(() => own);
    const type = this.typeOf(send);
    return this.run(
      'alltoallv',
      send,
      ints(counts),
      offsets(counts),
      type,
      receive,
      ints(even),
      offsets(even),
      type,
      this.world,
    );
  }

  /** Each rank's part, `counts` long, one behind the other in `receive`. */
  gather(send: Data, receive: Data, counts: readonly number[]): Promise<void> {
    const type = this.typeOf(send);
    return this.run('allgatherv', send, send.length, type, receive, ints(counts), offsets(counts), type, this.world);
  }

  /** Plain sum over all ranks, in whatever order the library likes. */
  allreduce(send: Float32Array, receive: Float32Array): Promise<void> {
    return this.run('allreduce', send, receive, send.length, this.types.f32, this.types.sum, this.world);
  }

  /** to += from, on this rank. */
  add(from: Float32Array, to: Float32Array): Promise<void> {
    return this.run('reduceLocal', from, to, to.length, this.types.f32, this.types.sum);
  }

  /** What rank 0 has. */
  tell(data: Uint8Array): Promise<void> {
    return this.run('bcast', data, data.length, this.types.bytes, 0, this.world);
  }

  /** Waits for all ranks without taking a core, as long as it may be. */
  async meet(): Promise<void> {
    const [request, done] = [Buffer.alloc(8), [0]];
    this.calls.ibarrier(this.world, request);
    for (;;) {
      this.calls.test(request, done, null);
      if (done[0]) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Leaves in good order: once on every rank. */
  async leave(): Promise<void> {
    await this.meet();
    this.calls.finalize();
  }

  /**
   * Ends this process at once, and with it all others: the launcher sees to that. Nothing of Node's own end can wait for a call under way.
   */
  abandon(code: number): never {
    this.exit(code);
    throw new Error('unreachable');
  }

  private typeOf(data: Data): Handle {
    if (data instanceof Uint16Array) throw new Error('[mpi] 16-bit numbers travel as bytes');
    return data instanceof Float32Array ? this.types.f32 : this.types.bytes;
  }

  /** In a thread of its own. Open MPI ends the process on an error of its own. */
  private run(name: keyof Mpi['calls'], ...args: unknown[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.calls[name].async(...args, (error: Error | null) => (error ? reject(error) : resolve()));
    });
  }
}

const ints = (numbers: readonly number[]): Int32Array => Int32Array.from(numbers);
const offsets = (counts: readonly number[]): Int32Array => {
  let at = 0;
  return Int32Array.from(counts, (n) => (at += n) - n);
};

/** What one process does alone, refused where a launcher has started several. */
import process from 'node:process';
import { launchedBy } from '../../train/ranks/mpi.ts';
import { UsageError } from './errors.ts';

/** @throws one line where a launcher has started several processes for what one does alone */
export function alone(what: string): void {
  const launcher = launchedBy(process.env);
  if (launcher)
    throw new UsageError(
      `${what} runs in one process, and ${launcher === 'slurm' ? 'srun' : 'mpirun'} started several: only train vae|teacher, distill, ablate and bench reduce share their work out`,
    );
}

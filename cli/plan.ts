/** `vpae plan`: what a preset's training steps will cost, before anything is trained. */
import type { CommandModule } from 'yargs';
import { json, preset, presetOf, type Args } from './options.ts';
import { session } from './session.ts';
import { planSteps } from './steps.ts';
import { draw } from './table.ts';

const options = { ...preset, ...json } as const;
const LARGEST = 10;

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);

async function plan(args: Args<typeof options>): Promise<void> {
  const p = presetOf(args);
  await session('stopped; nothing was written', async ({ device }) => {
    const steps = await planSteps(device, p);
    if (args.json) {
      console.log(JSON.stringify(steps.map(({ plan: { memory, ...cost }, ...s }) => ({ ...s, ...cost, largest: memory.atPeak.slice(0, LARGEST).map(({ name, bytes }) => ({ name, bytes })) }))));
      return;
    }
    console.log(draw(['step', 'batch', 'networks, MiB', 'activations, MiB', 'kernels', 'GFLOP', 'traffic, GB'],
      steps.map((s) => [s.name, String(s.batch), mib(s.state), mib(s.plan.bytes), String(s.plan.kernels), (s.plan.flops / 1e9).toFixed(2), (s.plan.traffic / 1e9).toFixed(2)])));
    const top = steps.reduce((a, b) => (a.state + a.plan.bytes > b.state + b.plan.bytes ? a : b));
    const budget = Number.isFinite(device.budget) ? ` of ${mib(device.budget)} MiB` : '';
    console.log(`\n${p.name} needs the most in the ${top.name} step: ${mib(top.state + top.plan.bytes)} MiB${budget}. Largest tensors at its peak:`);
    for (const { name, bytes } of top.plan.memory.atPeak.slice(0, LARGEST)) console.log(`  ${mib(bytes).padStart(8)} MiB  ${name}`);
  });
}

const command: CommandModule<object, Args<typeof options>> = {
  command: 'plan',
  describe: 'memory and arithmetic of a preset\'s training steps; nothing is run',
  builder: (y) => y
    .options(options)
    .example('$0 plan --set phase1.batch=64', 'will a larger batch fit?'),
  handler: plan,
};
export default command;

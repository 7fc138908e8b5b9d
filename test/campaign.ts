/**
 * Faults by the thousand: commands killed at random moments, damaged files of every format that is read, races for locks and pages.
 * `node --import tsx test/campaign.ts [--kills 200] [--mutants 20000] [--seed 1] [--only kills,mutants,races]`; ends with 1 on any finding.
 * `--victims "train teacher,distill"` kills these alone.
 */
import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { killCampaign } from './campaign/kills.ts';
import { mutantCampaign } from './campaign/mutants.ts';
import { raceCampaign } from './campaign/races.ts';
import type { Outcome } from './campaign/random.ts';

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    mutants: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
    victims: { type: 'string' },
    only: { type: 'string', default: 'mutants,races,kills' },
  },
});
const [kills, mutants, seed] = [values.kills, values.mutants, values.seed].map(Number) as [number, number, number];
const say = (line: string): void => console.error(line);

const parts: Record<string, () => Promise<Outcome>> = {
  mutants: () => mutantCampaign(mutants, seed, tmpdir(), say),
  races: () => raceCampaign(300, tmpdir(), say),
  kills: () => killCampaign(kills, seed, tmpdir(), say, values.victims?.split(',')),
};

const findings: string[] = [];
for (const name of values.only.split(',')) {
  const outcome = await parts[name]?.();
  if (!outcome) continue;
  console.log(`${outcome.tried}: ${outcome.findings.length} findings`);
  findings.push(...outcome.findings);
}
for (const finding of findings) console.log(`- ${finding}`);
process.exitCode = findings.length ? 1 : 0;

/** Reference cases of CLIP's visual tower: preprocessing, every block, and the features that are used. */
import type { Tensor } from '../../engine/frontend/tensor.ts';
import { host, type HostTensor } from '../../engine/frontend/tree.ts';
import { clip, clipPixels, clipTables, type CLIPTables } from '../../model/clip/clip.ts';
import { clipConfig } from '../../model/clip/config.ts';
import type { Executor } from './executor.ts';
import { judge, type Case, type Fixture, type Verdict } from './format.ts';

interface Inputs<T> {
  weights: Record<string, T>;
  image: T;
  tables: CLIPTables<T>;
}

export async function clipCase(fixture: Fixture, c: Case, executor: Executor): Promise<Verdict> {
  const config = clipConfig(fixture.entry.config);
  const image = fixture.get(`${c.name}/in/image`);
  const expected = fixture.expected(c.name);
  const model = ({ weights, image, tables }: Inputs<Tensor>): Record<string, Tensor> => {
    const out: Record<string, Tensor> = {};
    const probe = (name: string, value: Tensor) => {
      out[`out/${name}`] = value;
    };
    const pixels = clipPixels(image, tables, probe);
    probe('pixels', pixels);
    probe('features', clip(weights, config, pixels));
    probe('all_blocks', clip(weights, config, pixels, { depth: config.num_layers, probe }));
    return Object.fromEntries(Object.entries(out).filter(([name]) => expected.includes(name)));
  };
  const inputs: Inputs<HostTensor> = {
    weights: fixture.weights(),
    image: host(image.data, [1, ...image.shape]),
    tables: clipTables(config, [image.shape[1]!, image.shape[2]!]),
  };
  return judge(fixture, c.name, await executor.run(model, inputs));
}

/** The child of child.test.ts. */
import process from 'node:process';
import { serve } from '../../cli/common/child.ts';

serve(async (question: { do: string; numbers?: Float32Array }) => {
  if (question.do === 'crash') process.abort();
  if (question.do === 'leave') process.exit(7);
  if (question.do === 'hang')
    await new Promise((resolve) => {
      setTimeout(resolve, 60_000);
    });
  if (question.do === 'throw') throw new Error('no such thing\nand more');
  return question.numbers?.map((x) => 2 * x);
});

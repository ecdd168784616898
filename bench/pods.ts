/** Kubernetes' pods by the CRI, on daemons with a network of their own: CNI's plugins are the same on both sides. */
import { Kubelet } from '../test/harness/cri.ts';
import type { Measure } from './measure.ts';
import { idleCommand, type Side } from './side.ts';

const kubelets = new Map<Side, Kubelet>();

export const pods: Measure = {
  name: 'pods',
  topic: 'Pods',
  figures: [
    { name: 'cri-run-pod', what: 'RunPodSandbox, with a bridge and an address', unit: 'ms' },
    { name: 'cri-container', what: 'CreateContainer and StartContainer of sleep in it', unit: 'ms' },
    { name: 'cri-stop-pod', what: 'StopPodSandbox with that container still running', unit: 'ms' },
    { name: 'cri-remove-pod', what: 'RemovePodSandbox with that container in it', unit: 'ms' },
  ],
  rounds: { full: 20, quick: 5 },
  async prepare(side) {
    // With the side it ends too when a sample fails.
    const kubelet = side.daemon.use(await Kubelet.start({ peer: side.daemon.peer }));
    kubelets.set(side, kubelet);
    for (let round = 0; round < 2; round += 1) await live(kubelet, `warm-${round}`);
  },
  sample: (side, round) => live(kubelets.get(side)!, `pod-${round}`),
  tidy: (side) => kubelets.get(side)![Symbol.asyncDispose](),
};

/** A pod's whole life. @returns milliseconds of each step */
async function live(kubelet: Kubelet, name: string): Promise<readonly number[]> {
  const { runtime } = kubelet;
  const times = [performance.now()];
  const passed = () => times.push(performance.now());
  const pod = await kubelet.runPod(name);
  passed();
  await kubelet.run(pod, 'main', idleCommand);
  passed();
  await runtime.stopPodSandbox({ podSandboxId: pod.id });
  passed();
  await runtime.removePodSandbox({ podSandboxId: pod.id });
  passed();
  return times.slice(1).map((time, index) => time - times[index]!);
}

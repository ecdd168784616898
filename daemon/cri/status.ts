/** What the runtime is and whether it is ready. */
import { CgroupDriver } from '../../proto/gen/runtime/v1/api.ts';
import { version } from '../version.ts';
import type { Calls, Cri } from './cri.ts';
import { type RuntimeFeatures, runtimeFeatures } from './runtime-features.ts';
import { handlersOf, runtimeOf } from './settings.ts';

/** Of the kubelet API, in which `Version` is asked; it has stayed so. */
const KUBELET_API = '0.1.0';
export const API = 'v1';
/** What kubelets up to 1.25 ask for, those up to 1.22 for nothing else. */
export const ALPHA_API = 'v1alpha2';
const NAME = 'moor';

/** @param api what it is asked by */
export function statusCalls(
  cri: Cri,
  api: string,
): Calls<'version' | 'status' | 'runtimeConfig' | 'updateRuntimeConfig'> {
  return {
    async version() {
      return { version: KUBELET_API, runtimeName: NAME, runtimeVersion: version, runtimeApiVersion: api };
    },

    async status({ verbose }) {
      const problem = cri.networks.problem();
      const network =
        problem === undefined
          ? { status: true, reason: '', message: '' }
          : {
              status: false,
              reason: 'NetworkPluginNotReady',
              message: `Network plugin returns error: ${problem}`,
            };
      return {
        status: {
          conditions: [
            { type: 'RuntimeReady', status: true, reason: '', message: '' },
            { type: 'NetworkReady', ...network },
          ],
        },
        runtimeHandlers: await handlers(cri),
        features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: false },
        info: verbose ? infoOf(cri) : {},
      };
    },

    async runtimeConfig() {
      const { systemd_cgroup: isSystemd } = cri.settings;
      return { linux: { cgroupDriver: isSystemd ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS } };
    },

    // What it says is which addresses pods have, and that is the business of the CNI configuration.
    async updateRuntimeConfig() {
      return {};
    },
  };
}

/** Of each handler, as its runtime tells. */
async function handlers({ settings }: Cri): Promise<{ name: string; features: RuntimeFeatures }[]> {
  return Promise.all(
    handlersOf(settings).map(async (name) => {
      const features = await runtimeFeatures(runtimeOf(settings, name)?.binary_name ?? '');
      return { name, features };
    }),
  );
}

/** Keys are containerd's, by which monitors and test suites know where a node has its files. */
function infoOf({ settings, networks, root, state }: Cri): { [key: string]: string } {
  const problem = networks.problem();
  return {
    config: JSON.stringify({ ...settings, rootDir: root, stateDir: state }),
    cniconfig: JSON.stringify({ networks: problem === undefined ? networks.lists : [], problem }),
    lastCNILoadStatus: problem ?? 'OK',
  };
}

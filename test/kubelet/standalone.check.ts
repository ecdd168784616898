/** A real kubelet that no server tells what to run: its pods are manifests in a directory. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, after, afterEach, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { SpdyClient } from '../../daemon/cri/streaming/testing/spdy-client.ts';
import { BUSYBOX } from '../harness/cri.ts';
import { busyboxImage, ociArchive } from '../harness/image.ts';
import { eventually } from '../harness/wait.ts';
import { ADDRESS, API, type ContainerStatus, NODE, Node, type Pod } from './node.ts';

const WAIT = { within: 180_000 };
const HOST_PORT = 18080;
const V4 = 'v4.channel.k8s.io';

const container = (name: string, script: string, rest: object = {}) => ({
  name,
  image: BUSYBOX,
  imagePullPolicy: 'Never',
  command: ['sh', '-c', script],
  ...rest,
});

describe('a kubelet by itself', { timeout: 900_000 }, () => {
  let node: Node;
  before(async () => {
    node = await Node.start();
  });
  after(() => node[Symbol.asyncDispose]());
  afterEach((context) => {
    const test = context as TestContext;
    if (test.passed) return;
    test.diagnostic(`log of moord:\n${node.runtime.daemon.tail()}`);
    test.diagnostic(`log of kubelet:\n${node.tail()}`);
  });

  const podWhere = (what: string, name: string, isSo: (pod: Pod) => boolean): Promise<Pod> =>
    eventually(
      what,
      async () => {
        const pod = await node.pod(name);
        return pod !== undefined && isSo(pod) && pod;
      },
      WAIT,
    );
  const isReady = ({ status }: Pod) =>
    status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true;
  const named = (pod: Pod, name: string): ContainerStatus =>
    pod.status.containerStatuses!.find((status) => status.name === name)!;
  /** Kubelet lets go of what has ended by and by. */
  const isGone = (name: string) =>
    eventually(
      `${name} is gone`,
      async () => {
        const filter = { labelSelector: { 'io.kubernetes.pod.name': `${name}-${NODE}` } };
        return (await node.runtime.runtime.listPodSandbox({ filter })).items.length === 0;
      },
      WAIT,
    );

  it('a pod with an init container, volumes, probes, ports and limits becomes ready, and is stopped in order', async () => {
    const host = join(node.directory, 'host');
    node.apply({
      metadata: { name: 'full', labels: { app: 'full' } },
      spec: {
        terminationGracePeriodSeconds: 30,
        volumes: [
          { name: 'shared', emptyDir: {} },
          { name: 'host', hostPath: { path: host, type: 'DirectoryOrCreate' } },
          {
            name: 'info',
            downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] },
          },
        ],
        initContainers: [
          container('init', 'echo page > /data/index.html; mkdir /data/sub; echo below > /data/sub/file', {
            volumeMounts: [{ name: 'shared', mountPath: '/data' }],
          }),
        ],
        containers: [
          container('web', 'exec httpd -f -p 8080 -h /data', {
            ports: [{ containerPort: 8080, hostPort: HOST_PORT }],
            volumeMounts: [
              { name: 'shared', mountPath: '/data' },
              { name: 'info', mountPath: '/info' },
              { name: 'host', mountPath: '/host' },
            ],
            readinessProbe: { httpGet: { path: '/index.html', port: 8080 }, periodSeconds: 1 },
            livenessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1, failureThreshold: 30 },
            lifecycle: { preStop: { exec: { command: ['sh', '-c', 'echo before >> /host/end'] } } },
            resources: { limits: { memory: '64Mi', cpu: '200m' } },
          }),
          container(
            'side',
            'trap "echo stopped >> /host/end; exit 0" TERM; while :; do echo tick; sleep 1; done',
            {
              readinessProbe: { exec: { command: ['cat', '/sub/file'] }, periodSeconds: 1 },
              volumeMounts: [
                { name: 'shared', mountPath: '/sub', subPath: 'sub' },
                { name: 'host', mountPath: '/host' },
              ],
            },
          ),
          container('sailor', 'touch /file 2>&1; id; exec sleep 1000000', {
            securityContext: {
              runAsUser: 1000,
              readOnlyRootFilesystem: true,
              allowPrivilegeEscalation: false,
              capabilities: { drop: ['ALL'] },
            },
          }),
        ],
      },
    });
    const { status } = await podWhere('the pod is ready', 'full', isReady);
    assert.equal(status.initContainerStatuses![0]!.state.terminated!.exitCode, 0);
    for (const at of [`${status.podIP}:8080`, `${ADDRESS}:${HOST_PORT}`])
      assert.equal(await (await fetch(`http://${at}/index.html`)).text(), 'page\n');
    const logs = await node.ask(`/containerLogs/default/full-${NODE}/sailor`);
    assert.match(logs, /Read-only file system\nuid=1000\(sailor\) gid=1001\(crew\)/);
    assert.match(await node.ask(`/containerLogs/default/full-${NODE}/side?tailLines=1`), /^tick$/m);
    const labels = await node.ask(`/run/default/full-${NODE}/web?cmd=cat%20/info/labels`, 'POST');
    assert.match(labels, /app="full"/);

    const summary = JSON.parse(await node.get('/stats/summary')) as Summary;
    const pod = summary.pods.find(({ podRef }) => podRef.name === `full-${NODE}`)!;
    assert.deepEqual(pod.containers.map(({ name }) => name).sort(), ['sailor', 'side', 'web']);
    assert.ok(summary.node.runtime.imageFs.usedBytes > 0);
    assert.match(await node.get('/metrics/cadvisor'), /container_memory_working_set_bytes/);

    node.delete('full');
    await isGone('full');
    assert.deepEqual(readFileSync(join(host, 'end'), 'utf8').trim().split('\n').sort(), [
      'before',
      'stopped',
    ]);
  });

  it('containers that end badly are told apart, and started again later and later', async () => {
    node.apply({
      metadata: { name: 'trouble' },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [
          container('hog', 'tail /dev/zero', { resources: { limits: { memory: '32Mi' } } }),
          container('crash', 'echo why > /dev/termination-log; exit 3'),
          container('talker', 'echo last words; exit 4', {
            terminationMessagePolicy: 'FallbackToLogsOnError',
          }),
          { ...container('lost', ''), command: ['/no/such'] },
        ],
      },
    });
    const isLooping = ({ state, lastState }: ContainerStatus) =>
      lastState.terminated !== undefined && state.waiting?.reason === 'CrashLoopBackOff';
    const pod = await podWhere(
      'all are waited with',
      'trouble',
      ({ status }) => status.containerStatuses?.every(isLooping) === true,
    );
    const ends = pod.status.containerStatuses!.map(({ name, lastState: { terminated } }) => {
      const { exitCode, reason, message = '' } = terminated!;
      return [name, exitCode, reason, message.trim().split('\n').at(-1)!];
    });
    const lost = ends.find(([name]) => name === 'lost')!;
    assert.deepEqual(lost.slice(1, 3), [128, 'StartError']);
    assert.match(String(lost[3]), /\/no\/such: no such file or directory/);
    assert.deepEqual(
      ends.filter((end) => end !== lost),
      [
        ['crash', 3, 'Error', 'why'],
        ['hog', 137, 'OOMKilled', ''],
        ['talker', 4, 'Error', 'last words'],
      ],
    );
    node.delete('trouble');
    await isGone('trouble');
  });

  it('programs, first processes and ports are reached through the port of kubelet', async () => {
    node.apply({
      metadata: { name: 'streams' },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [
          container('reader', 'while read line; do echo "got $line"; done; exec sleep 1000000', {
            stdin: true,
          }),
          container('server', 'echo from the pod > /page; exec httpd -f -p 8080 -h /', {
            readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
          }),
        ],
      },
    });
    await podWhere('the pod is ready', 'streams', isReady);
    const at = (verb: string, name: string, query: string) =>
      `${API}/${verb}/default/streams-${NODE}${name}?${query}`;

    const script = encodeURIComponent('cat; echo bad >&2; exit 42');
    const command = `command=sh&command=-c&command=${script}`;
    const program = await SpdyClient.connect(
      at('exec', '/reader', `${command}&input=1&output=1&error=1`),
      V4,
    );
    const end = await program.open({ streamtype: 'error' });
    const stdin = await program.open({ streamtype: 'stdin' });
    const stdout = await program.open({ streamtype: 'stdout' });
    const stderr = await program.open({ streamtype: 'stderr' });
    stdin.write('to the program', true);
    assert.deepEqual([await stdout.output, await stderr.output], ['to the program', 'bad\n']);
    assert.match(await end.output, /"message":"42"/);

    const socket = new WebSocket(at('exec', '/reader', 'command=id&output=1').replace('https', 'wss'), V4, {
      rejectUnauthorized: false,
    });
    const messages: string[] = [];
    socket.on('message', (data: Buffer) => messages.push(data.toString('latin1')));
    await once(socket, 'close');
    assert.match(messages.join(''), /uid=0\(root\).*Success/s);

    const viewer = await SpdyClient.connect(at('attach', '/reader', 'input=1&output=1'), V4);
    await viewer.open({ streamtype: 'error' });
    const keys = await viewer.open({ streamtype: 'stdin' });
    const screen = await viewer.open({ streamtype: 'stdout' });
    keys.write('one\n');
    await screen.received('got one\n');
    viewer.socket.destroy();
    assert.match(await node.ask(`/containerLogs/default/streams-${NODE}/reader`), /^got one$/m);

    const forwarder = await SpdyClient.connect(at('portForward', '', ''), 'portforward.k8s.io');
    for (const requestid of ['0', '1']) {
      await forwarder.open({ port: '8080', requestid, streamtype: 'error' });
      const data = await forwarder.open({ port: '8080', requestid, streamtype: 'data' });
      data.write('GET /page HTTP/1.0\r\n\r\n');
      assert.match(await data.output, /from the pod\n$/);
      data.end();
    }
    const refusal = await forwarder.open({ port: '8081', requestid: '2', streamtype: 'error' });
    await forwarder.open({ port: '8081', requestid: '2', streamtype: 'data' });
    assert.match(await refusal.output, /8081/);
    forwarder.socket.destroy();
    node.delete('streams');
    await isGone('streams');
  });

  it('neither the end of kubelet nor of moord ends a container, and its log has every line once', async () => {
    const script = 'i=0; while :; do echo $((i += 1)); sleep 0.1; done';
    node.apply({
      metadata: { name: 'lasting' },
      spec: {
        terminationGracePeriodSeconds: 1,
        containers: [
          container('counter', script),
          container('server', 'exec httpd -f -p 80', {
            livenessProbe: { exec: { command: ['true'] }, periodSeconds: 1, failureThreshold: 30 },
          }),
        ],
      },
    });
    const first = await podWhere('the pod is ready', 'lasting', isReady);
    const ids = (pod: Pod) => pod.status.containerStatuses!.map(({ containerID }) => containerID);
    for (let round = 0; round < 3; round += 1) {
      await node.runtime.restart();
      if (round === 1) {
        await node.stopKubelet('SIGKILL');
        await node.startKubelet();
      }
      const { startedAt } = named(first, 'counter').state.running!;
      const pod = await podWhere('the pod is ready again', 'lasting', isReady);
      assert.deepEqual(ids(pod), ids(first));
      assert.deepEqual(
        pod.status.containerStatuses!.map(({ restartCount }) => restartCount),
        [0, 0],
      );
      assert.equal(named(pod, 'counter').state.running!.startedAt, startedAt);
      // Kubelet connects again by and by.
      const echo = `/run/default/lasting-${NODE}/server?cmd=echo%20${round}`;
      const seen = await eventually('a program runs in it', () => node.ask(echo, 'POST'), WAIT);
      assert.equal(seen.trim(), String(round));
    }
    const log = await node.ask(`/containerLogs/default/lasting-${NODE}/counter`);
    const lines = log.trim().split('\n').map(Number);
    assert.ok(lines.length > 20);
    assert.deepEqual(
      lines,
      lines.map((_, index) => index + 1),
    );
    node.delete('lasting');
    await isGone('lasting');
    assert.deepEqual(node.runtime.left(), []);
  });

  it('what is dead or unused is collected where there is little room, and nothing that is in use', async () => {
    const { runtime } = node;
    const isThere = async (image: string) =>
      (await runtime.images.imageStatus({ image: { image } })).image !== undefined;
    const collected = async (mark: string) => {
      const image = `registry.example/${mark}:1`;
      const archive = join(node.directory, `${mark}.tar`);
      ociArchive(archive, [[image], await busyboxImage({ above: [{ mark }] })]);
      await runtime.ctr().ok('images', 'import', archive);
      await eventually(`${image} is collected`, async () => !(await isThere(image)), WAIT);
    };
    node.apply({
      metadata: { name: 'kept' },
      spec: {
        terminationGracePeriodSeconds: 1,
        initContainers: [container('init', 'true')],
        containers: [container('main', 'exec sleep 1000000'), container('crash', 'exit 3')],
      },
    });
    const isCrashing = ({ status }: Pod) =>
      status.containerStatuses?.some(({ restartCount }) => restartCount > 0) === true;
    await podWhere('a container crashes', 'kept', isCrashing);
    await node.stopKubelet();
    // More than any disk has. Pods that no server knows of are not evicted for it.
    const available = '99.99%';
    node.configure({
      evictionHard: { 'nodefs.available': available, 'imagefs.available': available },
      imageMinimumGCAge: '1s',
    });
    await node.startKubelet();

    await collected('first');
    const { restartCount } = named((await node.pod('kept'))!, 'crash');
    await podWhere(
      'it crashes again',
      'kept',
      (pod) => named(pod, 'crash').restartCount > Math.max(restartCount, 1),
    );
    await collected('second');
    assert.ok(await isThere(BUSYBOX));
    const { containers } = await runtime.runtime.listContainers({});
    const count = (name: string) => containers.filter(({ metadata }) => metadata!.name === name).length;
    assert.equal(count('main'), 1);
    assert.ok(count('crash') <= 2, 'the last two at most of the many');
    const pods = (await runtime.runtime.listPodSandbox({})).items;
    const known = (await runtime.ctr().ok('containers', 'ls', '-q')).trim().split('\n');
    assert.ok(
      known.length <= containers.length + pods.length,
      'nothing is left of those that were collected',
    );

    node.delete('kept');
    await isGone('kept');
    await eventually(
      'no image is in use',
      async () => (await runtime.images.listImages({})).images.length === 0,
      WAIT,
    );
    await eventually(
      'the disk is free',
      async () => !/sha256/.test(await runtime.ctr().ok('snapshots', 'ls')),
      WAIT,
    );
    // What holds pods was collected as well: this kubelet knows nothing of pinned images.
    await runtime.runPod('another');
  });
});

/** What is read of `/stats/summary`. */
interface Summary {
  readonly node: { readonly runtime: { readonly imageFs: { readonly usedBytes: number } } };
  readonly pods: readonly {
    readonly podRef: { readonly name: string };
    readonly containers: readonly { readonly name: string }[];
  }[];
}

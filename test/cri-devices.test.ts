/** Devices of a pod's containers, with the device cgroup that guards them, and those of vendors by CDI. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Code } from '../ttrpc/errors.ts';
import { type ContainerChanges, Kubelet, type RunningPod, security } from './harness/cri.ts';
import { failureOf } from './harness/rpc.ts';

const FOREVER = ['sleep', '1000000'];
/** A device that no container has without asking, and that only who may read the kernel's log can open (kernel: Documentation/admin-guide/devices.txt). */
const KMSG = ['c', '1', '11'];
const reader = security({ capabilities: { addCapabilities: ['SYSLOG'] } });

describe('devices of containers', { timeout: 240_000 }, () => {
  let kubelet: Kubelet;
  let pod: RunningPod;
  let home: string;

  before(async () => {
    home = `/tmp/moor-cdi-${process.pid}`;
    for (const name of ['etc', 'run']) mkdirSync(join(home, name), { recursive: true });
    const directories = ['etc', 'run'].map((name) => JSON.stringify(join(home, name)));
    kubelet = await Kubelet.start({ config: `[cri.cdi]\nspec_dirs = [${directories.join(', ')}]` });
    pod = await kubelet.runPod('devices', { linux: { securityContext: { privileged: true } } });
  });
  after(async () => {
    await kubelet[Symbol.asyncDispose]();
    execFileSync('rm', ['-rf', home]);
  });

  const refuses = async (words: RegExp, changes: ContainerChanges) => {
    const failure = await failureOf(kubelet.create(pod, 'refused', FOREVER, changes));
    assert.match(failure.message, words);
    assert.equal(failure.code, Code.InvalidArgument);
  };

  it('a device is there as it was asked for, and may be used in no other way', async () => {
    const many = join(kubelet.daemon.directory, 'many');
    mkdirSync(join(many, 'below'), { recursive: true });
    execFileSync('mknod', ['-m', '640', join(many, 'log'), ...KMSG]);
    execFileSync('mknod', [join(many, 'below/zero'), 'c', '1', '5']);
    execFileSync('ln', ['-s', '/dev/kmsg', join(many, '../link')]);
    const containerId = await kubelet.run(pod, 'devices', FOREVER, {
      ...reader,
      devices: [
        { hostPath: join(many, '../link'), containerPath: '/dev/read', permissions: 'r' },
        { hostPath: many, containerPath: '/dev/many', permissions: 'r' },
      ],
    });
    assert.equal(await kubelet.exec(containerId, 'stat', '-c', '%t:%T %a', '/dev/many/log'), '1:b 640\n');
    assert.equal(
      await kubelet.exec(containerId, 'stat', '-c', '%t:%T', '/dev/read', '/dev/many/below/zero'),
      '1:b\n1:5\n',
    );
    const open = (flags: string, path: string) => ['sh', '-c', `exec 3${flags}${path}`];
    await kubelet.exec(containerId, ...open('<', '/dev/read'));
    assert.match(await kubelet.complaint(containerId, ...open('>', '/dev/read')), /Operation not permitted/);
    assert.match(
      await kubelet.complaint(containerId, ...open('>', '/dev/many/log')),
      /Operation not permitted/,
    );
    await kubelet.exec(containerId, 'dd', 'if=/dev/many/below/zero', 'of=/dev/null', 'count=1');
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('one that was not asked for cannot be opened, even when the container makes its node', async () => {
    const containerId = await kubelet.run(pod, 'none', FOREVER, reader);
    await kubelet.exec(containerId, 'mknod', '/tmp/log', ...KMSG);
    assert.match(await kubelet.complaint(containerId, 'cat', '/tmp/log'), /Operation not permitted/);
    assert.equal(await kubelet.exec(containerId, 'head', '-c', '1', '/dev/zero'), '\0');
    await kubelet.complaint(containerId, 'stat', '/dev/kmsg');
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('a privileged container has those of the host, and may use all', async () => {
    const containerId = await kubelet.run(pod, 'privileged', FOREVER, security({ privileged: true }));
    await kubelet.exec(containerId, 'sh', '-c', 'exec 3>/dev/kmsg');
    await kubelet.exec(containerId, 'mknod', '/tmp/log', ...KMSG);
    await kubelet.exec(containerId, 'sh', '-c', 'exec 3</tmp/log');
    await kubelet.runtime.removeContainer({ containerId });
  });

  it('what is no device is refused and named', async () => {
    const device = { hostPath: '/etc/passwd', containerPath: '/dev/x', permissions: 'rw' };
    await refuses(/not a device: \/etc\/passwd/, { devices: [device] });
    await refuses(/no\/such/, { devices: [{ ...device, hostPath: '/no/such' }] });
    await refuses(/permissions "rx"/, { devices: [{ ...device, hostPath: '/dev/zero', permissions: 'rx' }] });
  });

  it('devices of vendors by field and annotation, of files in YAML and JSON', async () => {
    const marked = join(home, 'marked');
    writeFileSync(
      join(home, 'etc/fancy.yaml'),
      `
cdiVersion: "0.6.0"
kind: example.com/fancy
containerEdits:
  env: [FANCY=all]
  hooks:
    - { hookName: createRuntime, path: /bin/sh, args: [sh, -c, "echo hooked > ${marked}"], timeout: 30 }
devices:
  - name: log
    containerEdits:
      env: ["LOG=/dev/fancy"]
      deviceNodes: [{ path: /dev/fancy, hostPath: /dev/kmsg, permissions: r, fileMode: 0444 }]
      mounts: [{ hostPath: ${home}, containerPath: /fancy, options: [ro, rbind] }]
      additionalGids: [4242]
`,
    );
    const json = (from: string) => ({
      cdiVersion: '0.6.0',
      kind: 'example.com/plain',
      devices: [{ name: '0', containerEdits: { env: [`FROM=${from}`] } }],
    });
    for (const name of ['etc', 'run'])
      writeFileSync(join(home, name, 'plain.json'), JSON.stringify(json(name)));
    const containerId = await kubelet.run(pod, 'vendors', FOREVER, {
      ...reader,
      CDIDevices: [{ name: 'example.com/fancy=log' }],
      annotations: { 'cdi.k8s.io/plugin': 'example.com/plain=0,example.com/fancy=log' },
    });
    const environment = await kubelet.exec(containerId, 'env');
    for (const line of ['FANCY=all', 'LOG=/dev/fancy', 'FROM=run'])
      assert.ok(environment.includes(`${line}\n`), line);
    assert.equal(await kubelet.exec(containerId, 'stat', '-c', '%t:%T %a', '/dev/fancy'), '1:b 444\n');
    await kubelet.exec(containerId, 'sh', '-c', 'exec 3</dev/fancy');
    assert.match(await kubelet.complaint(containerId, 'sh', '-c', 'exec 3>/dev/fancy'), /not permitted/);
    assert.match(await kubelet.exec(containerId, 'cat', '/fancy/run/plain.json'), /example.com/);
    assert.equal(await kubelet.exec(containerId, 'cat', '/fancy/marked'), 'hooked\n');
    assert.match(await kubelet.exec(containerId, 'id', '-G'), /\b4242\b/);
    await kubelet.runtime.removeContainer({ containerId });
    writeFileSync(join(home, 'etc/wrong.yaml'), 'kind: 5\n');
    await refuses(
      /unresolvable CDI devices example.com\/fancy=nine; .*wrong.yaml: cdiVersion must be a version/,
      { CDIDevices: [{ name: 'example.com/fancy=nine' }] },
    );
  });
});

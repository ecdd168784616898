/** `[cri]`: what Kubernetes' nodes are made with. Keys have containerd's names where it has them. */
import {
  type Kind,
  type Of,
  duration,
  expected,
  flag,
  integer,
  optionalPath,
  table,
  tableOf,
  text,
  texts,
} from '../schema.ts';

const path = /^\//;

/** Empty, or an image's reference. */
const reference: Kind<string> = {
  read(value = '', at) {
    if (typeof value !== 'string' || /\s/.test(value)) throw expected('the reference of an image', value, at);
    return value;
  },
};

/** A runtime class's handler. */
const runtime = table({
  /** As clients of the tasks' API name it: `io.containerd.runc.v2`, or the path of a shim. */
  runtime_type: text('io.containerd.runc.v2'),
  /** The runtime's program; empty for the shim's own choice. */
  binary_name: optionalPath(),
  /** Annotations of pods and containers that are handed on to the runtime; `*` stands for anything. */
  pod_annotations: texts(/^\S+$/, 'pattern of annotations'),
  container_annotations: texts(/^\S+$/, 'pattern of annotations'),
  privileged_without_host_devices: flag(false),
  /** Of images; empty for the one of all. */
  snapshotter: text(''),
});

export type RuntimeSettings = Of<typeof runtime>;

export const criSettings = table({
  /** A socket beside the daemon's own, for kubelet alone; empty for none. */
  address: optionalPath(),
  /** What holds a pod's namespaces; empty for the program that comes with Moor. */
  sandbox_image: reference,
  snapshotter: text('overlayfs'),
  default_runtime_name: text('runc'),
  runtimes: tableOf(/^[\w.-]+$/, runtime),
  /** Cgroups are made by systemd instead of in the file system. */
  systemd_cgroup: flag(false),
  /** Pods may bind to ports below 1024, and send pings, without capabilities. */
  enable_unprivileged_ports: flag(true),
  enable_unprivileged_icmp: flag(true),
  cni: table({
    bin_dirs: texts(path, 'absolute path', ['/opt/cni/bin', '/usr/lib/cni']),
    conf_dir: text('/etc/cni/net.d'),
    /** How many of the configurations a pod is attached to; 0 for all. */
    max_conf_num: integer(1, 0, 100),
    /** A plugin that takes longer is killed. */
    timeout: duration('2m'),
  }),
  streaming: table({
    /** Where kubelet finds the streams of exec, attach and port-forward. */
    address: text('127.0.0.1'),
    port: integer(0, 0, 65_535),
    idle_timeout: duration('4h'),
    /** Both or none. */
    tls_cert: optionalPath(),
    tls_key: optionalPath(),
  }),
  /** Bytes of a line of a container's log; longer ones are written in parts. 0 or less for no limit but the memory's. */
  max_container_log_line_size: integer(16_384, -1, 1 << 20),
  /** A pull that brings nothing for so long is given up. */
  image_pull_progress_timeout: duration('5m'),
  cdi: table({
    enable: flag(true),
    spec_dirs: texts(path, 'absolute path', ['/etc/cdi', '/var/run/cdi']),
  }),
});

export type CriSettings = Of<typeof criSettings>;

/** The runtime of a handler. @returns undefined when there is none of that name */
export function runtimeOf(settings: CriSettings, handler: string): RuntimeSettings | undefined {
  const name = handler === '' ? settings.default_runtime_name : handler;
  if (Object.hasOwn(settings.runtimes, name)) return settings.runtimes[name];
  return name === 'runc' ? runtime.read({}, []) : undefined;
}

/** The handlers there are; the empty one is the default. */
export function handlersOf({ runtimes }: CriSettings): string[] {
  return ['', ...new Set(['runc', ...Object.keys(runtimes)])];
}

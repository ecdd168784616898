/** Node's names of processors in Go's words. */
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/** This host's processor, as platforms name it. */
export const architecture = architectures[process.arch] ?? process.arch;

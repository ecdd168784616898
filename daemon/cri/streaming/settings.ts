/** Where the streaming server is. */
export interface StreamingSettings {
  /** The address to listen at: one that the kubelet reaches. */
  readonly address: string;
  /** 0 for any that is free. */
  readonly port: number;
  /** After which a connection on which nothing comes or goes is closed. */
  readonly idle_timeout: string;
  /** Files of a certificate and its key, for TLS: both or none. */
  readonly tls_cert: string;
  readonly tls_key: string;
}

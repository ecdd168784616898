/** The descriptor that a shim inherits its listening socket as. */
export const SOCKET_FD = 3;

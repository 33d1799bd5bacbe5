package peer

import "net"

// Traffic is what went over the connections between nodes since the transport was
// opened, Raft's among them, in bytes as the network carries them (with TLS, after
// encryption). Gossip is not in it: it does not come this way.
type Traffic struct {
	Sent, Received int64
}

// Traffic tells what went between this node and the others.
func (t *Transport) Traffic() Traffic {
	return Traffic{Sent: t.sent.Load(), Received: t.received.Load()}
}

// counted counts what goes over a socket: one addition for each system call, which
// carries many messages when there is much to do.
func (t *Transport) counted(nc net.Conn) net.Conn {
	return &countedConn{Conn: nc, t: t}
}

// countedConn is a connection of the transport, below TLS.
type countedConn struct {
	net.Conn
	t      *Transport
	closed bool // guarded by t.identified.mu
}

func (c *countedConn) Close() error {
	c.t.identified.remove(c)
	return c.Conn.Close()
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.t.received.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.t.sent.Add(int64(n))
	return n, err
}

package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/facetd/facetd/cluster"
)

// openNode connects to a node at the address it has now.
func (t *Transport) openNode(ctx context.Context, k kind, node cluster.NodeID) (net.Conn, greeting, error) {
	address, ok := t.cfg.AddressOf(node)
	if !ok {
		return nil, greeting{}, fmt.Errorf("connect to peer %v: no address is known", node)
	}
	nc, g, _, err := t.open(ctx, k, node, address, nil)
	return nc, g, err
}

// open connects to an address and greets, with a question if there is one. node
// is who must answer, empty for anyone of the cluster.
func (t *Transport) open(ctx context.Context, k kind, node cluster.NodeID, address string, question []byte) (net.Conn, greeting, []byte, error) {
	if t.ctx.Err() != nil {
		return nil, greeting{}, nil, ErrClosed
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	nc, err := t.cfg.Dial(dctx, address)
	cancel()
	if err != nil {
		return nil, greeting{}, nil, fmt.Errorf("connect to peer at %s: %w", address, err)
	}
	raw := t.counted(nc)
	if err := raw.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		raw.Close()
		return nil, greeting{}, nil, fmt.Errorf("connect to peer at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	stopped := context.AfterFunc(t.ctx, func() { raw.Close() })
	nc, g, answer, err := t.meet(ctx, raw, k, node, address, question)
	stopped()
	if !stop() {
		err = cmp.Or(err, context.Cause(ctx))
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		raw.Close()
		if _, ok := errors.AsType[*RefusedError](err); !ok {
			err = fmt.Errorf("connect to peer at %s: %w", address, err)
		}
		return nil, greeting{}, nil, err
	}
	return nc, g, answer, nil
}

// meet does the dialling side of the greeting.
func (t *Transport) meet(ctx context.Context, nc net.Conn, k kind, node cluster.NodeID, address string, question []byte) (net.Conn, greeting, []byte, error) {
	raw := nc
	var state *tls.ConnectionState
	if t.cfg.ClientTLS != nil {
		cfg := t.cfg.ClientTLS
		if host, _, err := net.SplitHostPort(address); err == nil && cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, greeting{}, nil, fmt.Errorf("TLS handshake: %w", err)
		}
		s := tc.ConnectionState()
		nc, state = tc, &s
	}
	mine := t.hello(k)
	mine.wanted, mine.extraLen = node, len(question)
	if _, err := nc.Write(appendExtra(mine.append(nil), question)); err != nil {
		return nil, greeting{}, nil, fmt.Errorf("greet: %w", err)
	}
	g, err := readGreeting(nc)
	if err != nil && state == nil {
		err = hungUp(err)
	}
	if err != nil {
		return nil, greeting{}, nil, err
	}
	extra, err := readExtra(nc, g.extraLen)
	if err != nil {
		return nil, greeting{}, nil, err
	}
	refused := func(reason error, format string, args ...any) (net.Conn, greeting, []byte, error) {
		return nil, greeting{}, nil, &RefusedError{Reason: reason, Address: address, Detail: fmt.Sprintf(format, args...)}
	}
	// Before anything is believed of what it says.
	if err := t.identify(raw, state, g.node); err != nil {
		return refused(ErrIdentity, "%v: %v", g.node, err)
	}
	if g.verdict == noAnswer {
		return refused(ErrNoAnswer, "%v says %q", g.node, extra)
	}
	if g.verdict != welcome {
		reason := g.verdict.err()
		if g.verdict == wrongCluster && (g.cluster.IsZero() || mine.cluster.IsZero()) {
			reason = fmt.Errorf("%w: %w", reason, cluster.ErrNoClusterYet)
		}
		return refused(reason, "%v of cluster %v with versions %d to %d answers; this is %v of cluster %v with versions %d to %d",
			g.node, g.cluster, g.versionMin, g.versionMax, mine.node, mine.cluster, mine.versionMin, mine.versionMax)
	}
	// What the other end accepts must be right from here, too.
	switch {
	case k != kindAsk && (g.cluster != mine.cluster || mine.cluster.IsZero()):
		return refused(ErrWrongCluster, "%v of cluster %v answers; this is cluster %v", g.node, g.cluster, mine.cluster)
	case !node.IsZero() && g.node != node:
		return refused(ErrWrongNode, "%v answers, %v was meant", g.node, node)
	case k != kindAsk && (g.version < mine.versionMin || g.version > mine.versionMax):
		return refused(ErrVersion, "%v chose version %d; this node speaks %d to %d", g.node, g.version, mine.versionMin, mine.versionMax)
	case g.kind != k:
		return refused(ErrGreeting, "%v answers with a connection of kind %v, not %v", g.node, g.kind, k)
	}
	return nc, g, extra, nil
}

// Who asks a node who it is, whatever cluster and version it belongs to: before
// anything is agreed on. With TLS its certificate is checked.
func (t *Transport) Who(ctx context.Context, address string) (Who, error) {
	nc, g, _, err := t.open(ctx, kindAsk, "", address, nil)
	if err != nil {
		return Who{}, err
	}
	nc.Close()
	return Who{Remote: g.remote(), Cluster: g.cluster, VersionMin: g.versionMin, VersionMax: g.versionMax}, nil
}

// Exchange asks whoever is at an address one question, which its Config.Answer
// answers: for founding and joining a cluster. It costs a connection.
func (t *Transport) Exchange(ctx context.Context, address string, question []byte) ([]byte, error) {
	if len(question) == 0 || len(question) > MaxExchange {
		return nil, fmt.Errorf("ask the node at %s: %w: question of %d bytes, limit %d", address, ErrTooLong, len(question), MaxExchange)
	}
	nc, _, answer, err := t.open(ctx, kindAsk, "", address, question)
	if err != nil {
		return nil, err
	}
	nc.Close()
	return answer, nil
}

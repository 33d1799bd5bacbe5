package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/facetd/facetd/cluster"
)

// accept takes connections until the transport is closed.
func (t *Transport) accept() {
	wait := time.Duration(0)
	for {
		nc, err := t.cfg.Listener.Accept()
		switch {
		case t.ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return
		case err != nil:
			// Out of file handles, or of memory: it passes, or the operator acts.
			wait = min(max(2*wait, backoffFirst), backoffLast)
			t.log.Error("peer port does not accept connections", "error", err)
			if !sleep(t.ctx, wait) {
				return
			}
			continue
		}
		wait = 0
		n, unknown := t.conns.Add(1), t.greeting.Add(1)
		if n > maxConns || unknown > maxGreeting {
			t.greeting.Add(-1)
			t.conns.Add(-1)
			nc.Close()
			t.refusal(nc, "too many connections")
			continue
		}
		t.wg.Go(func() {
			defer t.conns.Add(-1)
			t.serve(t.counted(nc))
		})
	}
}

// refusal logs that a connection was refused, now and then. While a cluster begins
// its nodes learn of it one after the other, and try again.
func (t *Transport) refusal(nc net.Conn, why any) {
	if err, ok := why.(error); ok && errors.Is(err, cluster.ErrNoClusterYet) {
		t.log.Debug("connection to the peer port refused", "remote", nc.RemoteAddr().String(), "reason", err)
		return
	}
	now, last := time.Now().UnixNano(), t.refused.Load()
	if now-last >= int64(refusalLog) && t.refused.CompareAndSwap(last, now) {
		t.log.Warn("connection to the peer port refused", "remote", nc.RemoteAddr().String(), "reason", why)
	}
}

// serve greets one connection and runs it to its end, unless Raft takes it over.
func (t *Transport) serve(raw net.Conn) {
	stop := context.AfterFunc(t.ctx, func() { raw.Close() })
	err := raw.SetDeadline(time.Now().Add(greetTimeout))
	var nc net.Conn
	var g greeting
	if err == nil {
		nc, g, err = t.greet(raw)
	}
	t.greeting.Add(-1)
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		stop()
		raw.Close()
		if t.ctx.Err() == nil {
			t.refusal(raw, err)
		}
		return
	}
	switch g.kind {
	case kindRaft:
		stop()
		t.raft.take(nc)
		return
	case kindPeer:
		t.servePeer(t.conn(nc), g.remote())
	case kindSnapshot:
		t.serveSnapshot(t.conn(nc), g.remote())
	}
	stop()
	raw.Close()
}

// greet reads the greeting of a connection and answers it.
func (t *Transport) greet(nc net.Conn) (net.Conn, greeting, error) {
	raw := nc
	var state *tls.ConnectionState
	if t.cfg.ServerTLS != nil {
		tc := tls.Server(nc, t.cfg.ServerTLS)
		nc = tc
		if err := tc.HandshakeContext(t.ctx); err != nil {
			return nc, greeting{}, fmt.Errorf("TLS handshake: %w", err)
		}
		s := tc.ConnectionState()
		state = &s
	}
	g, err := readGreeting(nc)
	if err != nil {
		return nc, g, err
	}
	question, err := readExtra(nc, g.extraLen)
	if err != nil {
		return nc, g, err
	}
	a := t.hello(g.kind)
	var reason error
	var extra []byte
	a.verdict, reason = t.judge(&g, raw, state)
	switch {
	case a.verdict != welcome:
	case g.kind != kindAsk:
		a.version = agree(g.versionMin, g.versionMax, t.cfg.versionMin, t.cfg.versionMax)
	case len(question) > 0:
		if extra, reason = t.answer(g.remote(), question); reason != nil {
			a.verdict, extra = noAnswer, []byte(reason.Error())
			extra = extra[:min(len(extra), maxText)]
		}
		a.extraLen = len(extra)
	}
	buf := appendExtra(a.append(nil), extra)
	if _, err := nc.Write(buf); err != nil {
		return nc, g, fmt.Errorf("answer greeting: %w", err)
	}
	if a.verdict != welcome {
		return nc, g, fmt.Errorf("%v connection from %v: %w", g.kind, g.node, reason)
	}
	return nc, g, nil
}

// answer answers a question of Exchange.
func (t *Transport) answer(from Remote, question []byte) ([]byte, error) {
	if t.cfg.Answer == nil {
		return nil, ErrNoService
	}
	b, err := t.cfg.Answer(from, question)
	if err == nil && len(b) > MaxExchange {
		err = fmt.Errorf("%w: answer of %d bytes, limit %d", ErrTooLong, len(b), MaxExchange)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// hello is what this node says of itself.
func (t *Transport) hello(k kind) greeting {
	return greeting{kind: k, versionMin: t.cfg.versionMin, versionMax: t.cfg.versionMax,
		cluster: t.cfg.Cluster(), boot: t.cfg.Boot, store: t.cfg.Store, node: t.cfg.Node}
}

// judge decides whether a connection is welcome.
func (t *Transport) judge(g *greeting, raw net.Conn, state *tls.ConnectionState) (verdict, error) {
	if err := t.identify(raw, state, g.node); err != nil {
		return badIdentity, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	mine := t.cfg.Cluster()
	switch {
	case t.ctx.Err() != nil:
		return shutdown, ErrShutdown
	case g.kind == kindAsk && g.extraLen == 0:
		return welcome, nil // whoever asks may know who this is
	case agree(g.versionMin, g.versionMax, t.cfg.versionMin, t.cfg.versionMax) == 0:
		return badVersion, fmt.Errorf("%w: it speaks %d to %d, this node %d to %d",
			ErrVersion, g.versionMin, g.versionMax, t.cfg.versionMin, t.cfg.versionMax)
	case g.kind == kindAsk:
		return welcome, nil
	case mine.IsZero() || g.cluster.IsZero():
		return wrongCluster, fmt.Errorf("%w: %v, this node to %v: %w", ErrWrongCluster, g.cluster, mine, cluster.ErrNoClusterYet)
	case g.cluster != mine:
		return wrongCluster, fmt.Errorf("%w: %v, this node to %v", ErrWrongCluster, g.cluster, mine)
	case !g.wanted.IsZero() && g.wanted != t.cfg.Node:
		return wrongNode, fmt.Errorf("%w: it looks for %v", ErrWrongNode, g.wanted)
	case g.node == t.cfg.Node:
		return wrongNode, fmt.Errorf("%w: it says that it is %v, as this node does", ErrWrongNode, g.node)
	}
	switch g.kind {
	case kindPeer:
		if t.cfg.Handler != nil {
			return welcome, nil
		}
	case kindSnapshot:
		if t.cfg.Snapshots != nil {
			return welcome, nil
		}
	case kindRaft:
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.raft != nil && !t.raft.over() {
			return welcome, nil
		}
	}
	return noService, fmt.Errorf("%w: %v", ErrNoService, g.kind)
}
